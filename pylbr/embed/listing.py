"""Records as text: addresses, symbols, class."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from pylbr.arch.bits import INFO_CYC_CNT, INFO_MISPRED

__all__ = ["listing"]


def _namer(symbols: Mapping[str, int]) -> Callable[[int], str]:
    """Address to ``name+0xOFFSET`` of the nearest symbol below; empty if there is none."""
    rows = sorted((address, name) for name, address in symbols.items())
    starts = [address for address, _ in rows]

    def named(address: int) -> str:
        at = bisect_right(starts, address) - 1
        if at < 0:
            return ""
        start, name = rows[at]
        return name if start == address else f"{name}+{address - start:#x}"

    return named


def listing(records: npt.NDArray[np.void], class_of: Callable[[int, int], str],
            symbols: Mapping[str, int]) -> str:
    """A line per record, newest first.

    Parameters
    ----------
    records : array of ENTRY_DTYPE
    class_of : callable
        ``class_of(from, info)`` names the branch class.
    symbols : mapping of str to int
        Address of each symbol.
    """
    named = _namer(symbols)

    def cells() -> Iterator[list[str]]:
        for number, record in enumerate(records):
            source, target, info = (int(record[name]) for name in ("from", "to", "info"))
            if source or target:
                yield [str(number), f"{source:#x}", named(source), "->", f"{target:#x}",
                       named(target), class_of(source, info),
                       f"cycles {info & INFO_CYC_CNT}" if info & INFO_CYC_CNT else "",
                       "mispredicted" if info & INFO_MISPRED else ""]

    rows = list(cells())
    if not rows:
        return "no branch is recorded"
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    used = [i for i, width in enumerate(widths) if width]
    return "\n".join(
        " ".join(row[i].rjust(widths[i]) if i == 0 else row[i].ljust(widths[i])
                 for i in used).rstrip() for row in rows)
