"""The blob, compiled on first use, and the layout of the memory that it shares with pylbr."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from pylbr.files.elf import ELFFile, defined_symbols, load_segments
from pylbr.record.parts import BLOB
from pylbr.record.toolchain import built

__all__ = [
    "Blob", "END_NAMES", "HANDLER_SIZE", "NATIVE_SLOTS", "SKIP_NAMES", "SKIP_RESTING", "blob",
    "build_blob", "read_blob",
]

_PAGE: Final = 4096
#: numbers.h.
NATIVE_SLOTS, HANDLER_SIZE = 128, 16
#: ``enum skip``.
SKIP_RESTING: Final = 2
#: ``enum end`` and ``enum skip`` of abi.h, in words.
END_NAMES: Final = (
    "full", "system call", "instruction that is not copied", "code out of reach",
    "code that may not be copied", "too long", "fault",
)
SKIP_NAMES: Final = (
    "recording ended", "no room for the thread", "limit of overhead", "code not known",
    "no lane free", "signal frame not known",
    "too many handlers of signals", "before an instruction that has faulted",
)  # fmt: skip

#: Structures of abi.h: names of the members in the order of `layout` in blob.c.
_STRUCTURES: Final = {
    "record": ("sequence", "tsc", "ip", "cost", "key", "cpu", "weight", "count", "end", "classes",
               "from", "to"),
    "range": ("start", "end", "kind"),
    "shared": ("stopped", "depth", "accept", "blocks_max", "cycles_max", "rest", "tick_cost",
               "burst", "gap", "period", "head", "full", "ticks", "left_out", "skipped",
               "ended", "generation", "version", "range_count", "ranges"),
    "region": ("start", "alias"),
    "slot": ("handler", "flags", "restorer", "mask", "number", "ready"),
    "state": ("shared", "ring", "ring_mask", "threads", "thread_count", "thread_size", "lanes",
              "lane_count", "pkeys", "fork_page", "region_count", "slice", "regions",
              "code_start", "code_end", "slot_count", "slots"),
}  # fmt: skip
_SHAPES: Final = {"classes": "u1", "from": "u8", "to": "u8", "skipped": "u8", "ended": "u8",
                  "regions": "u8"}


@dataclass(frozen=True, slots=True)
class Blob:
    """The blob as it lies in memory.

    Attributes
    ----------
    image : bytes
        Whole pages: code and constants, then data.
    data : int
        Offset of the data.
    symbols : dict of str to int
        Offsets in the image.
    types : dict of str to dtype
        Structures of abi.h.
    lane_size, thread_head, stack_size : int
        Bytes of a lane; of a thread's area before the vector registers; of its first part, an
        alternate stack.
    """

    image: bytes
    data: int
    symbols: dict[str, int]
    types: dict[str, np.dtype]
    lane_size: int
    thread_head: int
    stack_size: int


def build_blob() -> Path:
    """Path of the blob as an ELF file.

    Raises
    ------
    UnsupportedFeature
        There is no compiler, or it fails.
    """
    return built(BLOB)


@lru_cache(maxsize=1)
def blob() -> Blob:
    """The blob of this package; see `build_blob`."""
    image, data, symbols, types, rest = read_blob(build_blob(), _STRUCTURES)
    return Blob(image, data, symbols, types, *rest)


def read_blob(
    path: Path, structures: dict[str, tuple[str, ...]]
) -> tuple[bytes, int, dict[str, int], dict[str, np.dtype], tuple[int, ...]]:
    """Image, offset of the data, symbols, structures, and the other numbers of the table `layout`
    of a blob; `structures`: names of members, in the order of that table."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        loads = list(load_segments(elf))
        end = -(-max(s["p_vaddr"] + s["p_memsz"] for s, _ in loads) // _PAGE) * _PAGE
        image = bytearray(end)
        for segment, contents in loads:
            at = segment["p_vaddr"]
            image[at : at + len(contents)] = contents
        data = min(s["p_vaddr"] for s, _ in loads if s["p_flags"] & 2) // _PAGE * _PAGE
        found = {s.name: (s["st_value"], s["st_size"]) for s in defined_symbols(elf)}
    symbols = {name: value for name, (value, _) in found.items()}
    size = found["layout"][1]
    layout = struct.unpack_from(f"<{size // 4}I", image, symbols["layout"])
    types, rest = _types(layout, structures)
    return bytes(image), data, symbols, types, rest


def _types(
    layout: tuple[int, ...], structures: dict[str, tuple[str, ...]]
) -> tuple[dict[str, np.dtype], tuple[int, ...]]:
    types: dict[str, np.dtype] = {}
    at = 0
    for name, members in structures.items():
        size, places = layout[at], layout[at + 1 : at + 1 + 2 * len(members)]
        at += 1 + 2 * len(members)
        formats = [_format(*pair, types) for pair in zip(members, places[1::2], strict=True)]
        types[name] = np.dtype(
            {"names": members, "formats": formats, "offsets": places[::2], "itemsize": size}
        )
    return types, layout[at:]


def _format(member: str, size: int, types: dict[str, np.dtype]) -> object:
    item = types.get({"ranges": "range", "regions": "region", "slots": "slot"}.get(member, ""))
    if item is None and member not in _SHAPES:
        return f"i{size}" if member == "alias" else f"u{size}"
    item = np.dtype(_SHAPES[member]) if item is None else item
    return item, (size // item.itemsize,)
