"""The memory that a program, every branch of which is recorded, shares with pylbr."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from pylbr.record.native.blob import Blob, read_blob
from pylbr.record.native.full._expand import expand
from pylbr.record.native.full._numbered_ways import BRANCHES_PER_WAY, NumberedWays
from pylbr.record.native.ranges import to_array
from pylbr.record.parts import FULL
from pylbr.record.toolchain import built
from pylbr.record.wire_numbers import BLOCK_DTYPE
from pylbr.trace._edges import Edges

__all__ = ["FullBlob", "Memory", "full_blob"]

_PAGE: Final = 4096
#: Structures of full.h: names of the members in the order of `layout` in layout.c.
_STRUCTURES: Final = {
    "range": ("start", "end", "kind"),
    "shared": ("stop", "stopped", "stopped_at", "executed", "forks", "asked", "answered",
               "next_block", "next_length", "next_exit", "written", "read", "version",
               "range_count", "ranges"),
    "state": ("shared", "blocks", "lengths", "exits", "ring", "low", "near", "code", "pc",
              "region_count", "slice", "regions", "code_start", "code_end", "private"),
}  # fmt: skip
_WAY_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class FullBlob:
    """The blob, and the sizes of its tables (full.h)."""

    blob: Blob
    blocks: int
    lengths: int
    ways: int
    ring: int
    log: int
    near: int
    private: int


@lru_cache(maxsize=1)
def full_blob() -> FullBlob:
    """Compiled on first use.

    Raises
    ------
    UnsupportedFeature
        There is no compiler, or it fails.
    """
    image, data, symbols, types, sizes = read_blob(built(FULL), _STRUCTURES)
    # One address of a region here, no alias.
    return FullBlob(Blob(image, data, symbols, types, 0, 0, 0), *sizes)


class Memory:
    """One anonymous file: tables, ring, log, and the blob.

    Parameters
    ----------
    fd : int
        The file, empty.
    full : FullBlob

    Attributes
    ----------
    places : dict of str to (int, int)
        Offset and bytes of each part.
    """

    def __init__(self, fd: int, full: FullBlob) -> None:
        types = full.blob.types
        sizes = {
            "shared": types["shared"].itemsize, "blocks": full.blocks * BLOCK_DTYPE.itemsize,
            "lengths": full.lengths, "exits": full.ways * _WAY_BYTES, "ring": full.ring * 4,
            "log": full.log * 4 + _PAGE,
        }  # fmt: skip
        self.places: dict[str, tuple[int, int]] = {}
        at = 0
        for name, size in sizes.items():
            size = -(-size // _PAGE) * _PAGE
            self.places[name] = at, size
            at += size
        self.places["image"] = at, len(full.blob.image)
        os.ftruncate(fd, at + len(full.blob.image))
        os.pwrite(fd, full.blob.image, at)
        self._full = full
        self._memory = mmap.mmap(fd, at)
        self._header: Any = np.frombuffer(self._memory, types["shared"], 1)[0:1]
        self._ring = self._part("ring", np.dtype("<u4"), full.ring)
        self._ways = self._part("exits", np.dtype("<u4"), 2 * full.ways).reshape(-1, 2)
        self._header["next_block"] = self._header["next_exit"] = 1

    def _part(self, name: str, kind: np.dtype, count: int) -> np.ndarray:
        return np.frombuffer(self._memory, kind, count, self.places[name][0])

    def __getitem__(self, name: str) -> int:
        return int(self._header[name][0])

    def stop(self) -> None:
        """Take no more."""
        self._header["stop"] = 1

    @property
    def block_count(self) -> int:
        """Blocks so far, with number 0, which is none."""
        return min(self["next_block"], self._full.blocks)

    def live_tables(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Wire.live_tables`."""
        return (self._part("blocks", BLOCK_DTYPE, self._full.blocks),
                self._part("lengths", np.dtype("u1"), self._full.lengths))

    def blocks(self) -> np.ndarray:
        """See `Wire.blocks`."""
        return self.live_tables()[0][: self.block_count].copy()

    def lengths(self) -> np.ndarray:
        """See `Wire.lengths`."""
        return self.live_tables()[1][: min(self["next_length"], self._full.lengths)].copy()

    def take(self, most: int) -> np.ndarray:
        """What the program logged since the last call: numbers of ways, and events.

        Raises
        ------
        ValueError
            The program has written over the ring.
        """
        read, size = self["read"], self._full.ring
        waiting = self["written"] - read
        if not 0 <= waiting <= size:
            raise ValueError(f"{waiting} words wait in a ring of {size}")
        count = min(waiting, most, size - read % size)
        words = self._ring[read % size : read % size + count].copy()
        self._header["read"] = read + count
        return words

    def rest(self, most: int) -> np.ndarray:
        """What it had not handed over when it ended; all of it."""
        log = self._part("log", np.dtype("<u4"), self._full.log)
        place = self.places["log"][0] + self._full.log * 4
        (end,) = np.frombuffer(self._memory, "<i8", 1, place).tolist()
        count = min(max(self._full.log + end // 4, 0), self._full.log)
        return log[: count if end else 0].copy()

    #: See `WayTable`.
    branches_per_word = BRANCHES_PER_WAY

    def ways(self) -> np.ndarray:
        """See `WayTable.ways`."""
        return self._ways[: min(self["next_exit"], self._full.ways)]

    def expanded(self, words: np.ndarray) -> np.ndarray:
        """See `WayTable.expanded`."""
        return expand(words, self.ways())

    @staticmethod
    def numbered(edges: Edges) -> NumberedWays:
        """See `WayTable.numbered`."""
        return NumberedWays(edges)

    def publish(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        """Answer with executable memory as it is: (start, end, kind)."""
        asked = self["asked"]
        table = to_array(ranges, self._full.blob.types["range"])[: self._header["ranges"].shape[1]]
        self._header["range_count"] = len(table)
        self._header["ranges"][0, : len(table)] = table
        self._header["answered"] = asked

    def close(self) -> None:
        """Unmap."""
        self._header = None
        del self._ring, self._ways
        with contextlib.suppress(BufferError):
            self._memory.close()
