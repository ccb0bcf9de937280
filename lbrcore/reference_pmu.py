"""The slow, obvious twin of ``lbrcore.pmu``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Bank"]


class Bank:
    """As ``lbrcore.pmu.Bank``, one branch after the other."""

    def __init__(self, places: Sequence[int], selectors: Sequence[tuple[int, int, int]],
                 widths: Sequence[int]) -> None:
        self._counters = list(zip(places, selectors, widths, strict=True))

    def count(self, branches: npt.NDArray[np.void], general: list[int], fixed: list[int],
              start: int = 0, stop: int | None = None) -> tuple[int, int]:
        """As the method of that name."""
        stop = len(branches) if stop is None else stop
        for at in range(start, stop):
            b = branches[at]
            overflowed = self.add(general, fixed, int(b["class"]), int(b["cpl_from"]),
                                  int(b["flags"]), True, int(b["instructions"]),
                                  int(b["cycles"]))
            if overflowed:
                return at + 1, overflowed
        return stop, 0

    def add(self, general: list[int], fixed: list[int], cls: int, cpl: int, flags: int,
            branch: bool, instructions: int, cycles: int) -> int:
        """As the method of that name."""
        overflowed = 0
        amounts = (int(branch), instructions, cycles)
        for place, (table, need, unit), width in self._counters:
            if table >> (cls + (16 if cpl > 0 else 0)) & 1 and flags & need == need:
                values, n = (general, place) if place < 32 else (fixed, place - 32)
                values[n] += amounts[unit]
                if values[n] >> width:
                    values[n] %= 1 << width
                    overflowed |= 1 << place
        return overflowed
