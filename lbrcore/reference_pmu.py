"""The slow, obvious twin of ``lbrcore.pmu``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["count"]


def count(
    branches: npt.NDArray[np.void], selectors: Sequence[tuple[int, int, int]],
    limits: Sequence[int], *, start: int = 0,
) -> tuple[int, tuple[int, ...]]:
    """As ``lbrcore.pmu.count``, one branch after the other."""
    totals = [0] * len(selectors)
    for at in range(start, len(branches)):
        b = branches[at]
        amounts = (1, int(b["instructions"]), int(b["cycles"]))
        for c, (table, need, weight) in enumerate(selectors):
            place = int(b["class"]) + (16 if b["cpl_from"] > 0 else 0)
            if table >> place & 1 and int(b["flags"]) & need == need:
                totals[c] += amounts[weight]
        if any(total >= limit for total, limit in zip(totals, limits, strict=True)):
            return at + 1, tuple(totals)
    return len(branches), tuple(totals)
