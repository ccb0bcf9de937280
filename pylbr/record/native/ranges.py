"""Executable memory of a process, and where to put code so that it can reach it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

__all__ = [
    "CLOSED", "CODE", "PATCHED", "Mapping", "code_ranges", "mappings", "place", "to_array",
    "vacant",
]

#: ``enum range_kind`` of abi.h.
CODE, PATCHED, CLOSED = 1, 2, 3
#: Displacements are 32 bits, signed; code and data of a program need some of that themselves.
_REACH: Final = 0x78000000
_LOWEST: Final = 0x10000
_HIGHEST: Final = 0x7FFF_FFFF_F000
_STEP: Final = 1 << 16
#: From libraries, which are loaded one below the other.
_APART: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Mapping:
    """A line of ``/proc/PID/maps``."""

    start: int
    end: int
    permissions: str
    offset: int
    inode: int
    path: str


def mappings(pid: int) -> list[Mapping]:
    """All mappings of a process; empty when it is gone."""
    result = []
    try:
        with open(f"/proc/{pid}/maps", errors="surrogateescape") as file:
            for line in file:
                words = line.rstrip("\n").split(None, 5)
                start, end = (int(word, 16) for word in words[0].split("-"))
                path = words[5] if len(words) > 5 else ""
                result.append(
                    Mapping(start, end, words[1], int(words[2], 16), int(words[4]), path)
                )
    except (FileNotFoundError, ProcessLookupError):
        return []
    return result


def code_ranges(
    found: Iterable[Mapping], own: Sequence[tuple[int, int]]
) -> list[tuple[int, int, int]]:
    """(start, end, kind) of the code that may be copied; `own` are the recorder's mappings.

    The vsyscall page, which the kernel emulates, and that of uprobes are left out.
    """
    result = []
    for m in found:
        if "x" not in m.permissions or m.path in ("[vsyscall]", "[uprobes]"):
            continue
        if any(m.start < end and start < m.end for start, end in own):
            continue
        fixed = (m.inode or m.path == "[vdso]") and "w" not in m.permissions
        result.append((m.start, m.end, CODE if fixed else PATCHED))
    return result


def to_array(ranges: Iterable[tuple[int, int, int]], dtype: np.dtype) -> np.ndarray:
    """Sorted, without overlap; where ranges overlap, the kind with the higher number wins."""
    edges = sorted({edge for start, end, _ in ranges for edge in (start, end)})
    rows: list[tuple[int, int, int]] = []
    ordered = sorted(ranges)
    for low, high in zip(edges, edges[1:], strict=False):
        kind = max((k for start, end, k in ordered if start <= low and high <= end), default=0)
        if not kind:
            continue
        if rows and rows[-1][1] == low and rows[-1][2] == kind:
            rows[-1] = (rows[-1][0], high, kind)
        else:
            rows.append((low, high, kind))
    return np.array(rows, dtype)


def place(found: Sequence[Mapping], size: int) -> list[int]:
    """Addresses for regions of `size` bytes so that each piece of code is near one of them.

    A region for the highest piece lies as far below it as may be, so that it is near the pieces
    between, too.
    """
    code = [m for m in found if "x" in m.permissions and m.path != "[vsyscall]"]
    code.sort(key=lambda m: m.start, reverse=True)
    taken = [(m.start, m.end) for m in found]
    result: list[int] = []
    for m in code:
        if any(_near(at, size, m) for at in result):
            continue
        at = _gap(taken, size, m)
        if at:
            result.append(at)
            taken.append((at, at + size))
    return result


def vacant(found: Sequence[Mapping]) -> int:
    """An address amid memory that the program has not mapped yet: below its libraries."""
    edges = sorted([*((m.start, m.end) for m in found), (0, _LOWEST), (_HIGHEST, 1 << 64)])
    gaps = [(end, start) for (_, end), (start, _) in zip(edges, edges[1:], strict=False)]
    wide = [gap for gap in gaps if gap[1] - gap[0] >= 4 * _APART]
    low, high = wide[-1] if wide else max(gaps, key=lambda gap: gap[1] - gap[0])
    return max(high - _APART, (low + high) // 2) // _STEP * _STEP


def _near(at: int, size: int, m: Mapping) -> bool:
    return max(at + size, m.end) - min(at, m.start) < _REACH


def _gap(taken: Sequence[tuple[int, int]], size: int, m: Mapping) -> int:
    """A free address near a mapping, as far below it as may be, else above: right after a
    program begins its heap, and right below the libraries come those that are loaded later."""
    edges = sorted([*taken, (0, _LOWEST), (_HIGHEST, 1 << 64)])
    lowest, highest = m.end - _REACH + size, m.start + _REACH - size
    gaps = [(end, start) for (_, end), (start, _) in zip(edges, edges[1:], strict=False)]
    for low, high in gaps:
        low = max(low + _STEP, lowest)
        if high <= m.start and low + size + _STEP <= high:
            return -(-low // _STEP) * _STEP
    for low, high in reversed(gaps):
        high = min(high - _STEP, highest + size)
        if low >= m.end and high - size - _STEP >= low:
            return (high - size) // _STEP * _STEP
    return 0
