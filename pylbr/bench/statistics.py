"""Medians, quartiles, and whether two samples differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from statistics import median
from typing import Final

import numpy as np

__all__ = ["Spread", "holm", "permutation_p", "ratios", "spread"]

#: Up to so many ways of dividing the values all are tried, beyond them so many at random.
_MOST_WAYS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, and the quartiles around it."""

    median: float
    low: float
    high: float
    number: int


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    low, middle, high = np.percentile(values, [25, 50, 75]).tolist()
    return Spread(middle, low, high, len(values))


def ratios(ours: Sequence[float], others: Sequence[float]) -> Spread:
    """Of pairs of the same round; of one that was measured once, with the median of ours."""
    if len(others) < len(ours):
        return spread([median(ours) / other for other in others])
    return spread([one / other for one, other in zip(ours, others, strict=True)])


def permutation_p(one: Sequence[float], other: Sequence[float]) -> float:
    """Chance that two samples of one kind differ in their mean ranks as much as these do.

    Exact where the ways to divide the values are few (a two-sided Mann-Whitney test, ties at their
    mean rank), else of 20,000 ways drawn with a fixed seed.
    """
    values = np.array([*one, *other], float)
    ranks = _ranks(values)
    size, total = len(one), len(values)
    expected = ranks.sum() * size / total
    seen = abs(ranks[:size].sum() - expected)
    if comb(total, size) <= _MOST_WAYS:
        sums = np.array([ranks[list(chosen)].sum() for chosen in combinations(range(total), size)])
        return float(np.mean(np.abs(sums - expected) >= seen - 1e-9))
    rng = np.random.default_rng(1)
    sums = np.array([rng.permutation(ranks)[:size].sum() for _ in range(_MOST_WAYS)])
    return float((np.count_nonzero(np.abs(sums - expected) >= seen - 1e-9) + 1) / (_MOST_WAYS + 1))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[where]


def holm(chances: Sequence[float]) -> list[float]:
    """Chances of several tests at once, by Holm: what remains of each beside the others."""
    found, highest = [0.0] * len(chances), 0.0
    for done, index in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        highest = max(highest, min(1.0, chances[index] * (len(chances) - done)))
        found[index] = highest
    return found
