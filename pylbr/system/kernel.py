"""The kernel that runs in a guest: its code and symbols, and by how much it was moved.

A kernel with address space randomisation (KASLR) runs elsewhere than it was linked.  Where, the
blocks that ran tell: a direct branch contains its displacement, and only at the right place does
the kernel's code hold those of all of them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from lbrcore import BranchClass
from pylbr.embed.image import Image
from pylbr.linux.kallsyms import named
from pylbr.linux.kernel import load

__all__ = ["MODULES", "GuestKernel", "read_kernel"]

#: Where Linux puts the kernel, and in which steps it moves it (CONFIG_PHYSICAL_ALIGN).
_LOWEST: Final = 0xFFFFFFFF80000000
_RANGE: Final = 1 << 30
#: Modules lie from here on (Linux, Documentation/x86/x86_64/mm.rst).
MODULES: Final = _LOWEST + _RANGE
_STEP: Final = 1 << 21
_ENOUGH: Final = 200
_MOST: Final = 1000
_SHARE: Final = 0.9
_DIRECT: Final = (BranchClass.COND, BranchClass.NEAR_REL_JMP, BranchClass.NEAR_REL_CALL)
_NT_GNU_BUILD_ID: Final = 3


@dataclass(frozen=True)
class GuestKernel:
    """A kernel's code and symbols, by the addresses that it was linked for.

    Attributes
    ----------
    start : int
        Of its code, ``_text``.
    code : bytes
        From there to ``_etext``.
    symbols : dict of str to int
    image : Image
    """

    start: int
    code: bytes
    symbols: dict[str, int]
    image: Image

    def moved(self, blocks: np.ndarray) -> int | None:
        """By how many bytes the kernel was moved; None where that many blocks do not tell.

        Parameters
        ----------
        blocks : array of `BLOCK_DTYPE`
            That ran.
        """
        end = blocks["start"] + blocks["size"]
        chosen = (np.isin(blocks["class"], _DIRECT) & (blocks["start"] >= _LOWEST)
                  & (blocks["start"] - np.uint64(_LOWEST) < _RANGE)
                  & (blocks["size"] - blocks["last"] >= 5))  # with a displacement of 32 bits
        step = 1 + int(chosen.sum()) // _MOST
        ends, targets = end[chosen][::step], blocks["target"][chosen][::step]
        if len(ends) < _ENOUGH:
            return None
        wanted = (targets - ends).astype("<u4")
        fields = np.lib.stride_tricks.sliding_window_view(np.frombuffer(self.code, "u1"), 4)
        first = (ends - np.uint64(self.start) - np.uint64(4)).astype("i8")
        best, of, found = 0, 0, None
        for slide in range(_STEP * -(self.start - _LOWEST >> 21), _RANGE, _STEP):
            at = first - slide
            inside = (at >= 0) & (at < len(fields))
            held = fields[at[inside]].copy().view("<u4")[:, 0]
            same = int((held == wanted[inside]).sum())
            if same > best:
                best, of, found = same, int(inside.sum()), slide
        # Others lie outside: modules, and code that is only for the start.
        return found if best >= max(_ENOUGH, _SHARE * of) else None

    def contents(self, address: int, size: int) -> bytes:
        """What the file has at an address of `symbols`; empty if that lies outside."""
        for physical, _, data in self.image.segments:
            at = address - self.image.offset - physical
            if 0 <= at <= len(data) - size:
                return data[at:at + size]
        return b""

    def build_id(self) -> bytes:
        """That of its GNU note; empty if there is none."""
        start, end = self.symbols.get("__start_notes", 0), self.symbols.get("__stop_notes", 0)
        notes = self.contents(start, end - start) if 0 < end - start < 1 << 16 else b""
        at = 0
        while at + 12 <= len(notes):
            name, size, kind = struct.unpack_from("<III", notes, at)
            body = at + 12 + (name + 3 & ~3)
            if kind == _NT_GNU_BUILD_ID and notes[at + 12:at + 12 + name] == b"GNU\0":
                return notes[body:body + size]
            at = body + (size + 3 & ~3)
        return b""


def read_kernel(path: str) -> GuestKernel:
    """A kernel in a file: a bzImage, or vmlinux with or without symbols.

    Raises
    ------
    ImageError
        No such kernel, or one without a symbol ``_text``.
    OSError
    """
    from pylbr.embed.image import ImageError

    image = named(load(path).image)
    symbols: dict[str, int] = {}
    for address, name in image.symbols:
        symbols.setdefault(name, address)
    start, end = symbols.get("_text", 0), symbols.get("_etext", 0)
    kernel = GuestKernel(start, b"", symbols, image)
    code = kernel.contents(start, end - start) if end > start > 0 else b""
    if not code:
        raise ImageError(path, "its symbols _text and _etext are not found: give the vmlinux that "
                               "it was made of with --vmlinux")
    return GuestKernel(start, code, symbols, image)
