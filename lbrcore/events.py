"""What a counter counts and when it asks for a sample."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from lbrcore.dtypes import BranchClass, BranchFlag

__all__ = ["ALL_CLASSES", "MAX_PERIOD", "CountedEvent", "Unit"]

ALL_CLASSES = (1 << len(BranchClass)) - 1
ALL_FLAGS = (1 << (max(BranchFlag) * 2)) - 1
ALL_CPLS = 0xF
#: A general counter has 48 bits; its reload value is at most half of that (SDM vol. 3, PMU).
MAX_PERIOD = (1 << 47) - 1
_MASK = (1 << 64) - 1


class Unit(IntEnum):
    """What a row of the trace that matches adds to the count."""

    BRANCHES = 0
    INSTRUCTIONS = 1
    CYCLES = 2


@dataclass(frozen=True)
class CountedEvent:
    """One counter in sampling mode.

    Parameters
    ----------
    period : int
        Events from one overflow to the next, at least 1.
    classes : int
        `BranchClass` values that count, one bit per class.
    flags : int
        Values of the `flags` field (0..7) that count, one bit per value.
    cpls : int
        Privilege levels in which it counts, one bit per level: of `cpl_from`, where the branch
        and what precedes it ran.
    unit : Unit
        What a row that matches adds.
    jitter : int
        Each period is `period` plus a number of -jitter..jitter, drawn by `period_at`.
    seed : int
        64 bits.
    skid : int
        Branches of the trace from the overflow until the PMI is taken.
    """

    period: int
    classes: int = ALL_CLASSES
    flags: int = ALL_FLAGS
    cpls: int = ALL_CPLS
    unit: Unit = Unit.BRANCHES
    jitter: int = 0
    seed: int = 0
    skid: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("period", 1, MAX_PERIOD), ("jitter", 0, self.period - 1),
            ("classes", 0, ALL_CLASSES), ("flags", 0, ALL_FLAGS), ("cpls", 0, ALL_CPLS),
            ("unit", 0, max(Unit)), ("seed", 0, _MASK), ("skid", 0, 1 << 20),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name}: must be {low} to {high}, not {value}")
        if self.period + self.jitter > MAX_PERIOD:
            raise ValueError(f"period and jitter: must not exceed {MAX_PERIOD} together")

    def period_at(self, ordinal: int) -> int:
        """The period number `ordinal`, from 0: splitmix64 of the seed at that place."""
        if not self.jitter:
            return self.period
        z = (self.seed + (ordinal + 1) * 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return self.period - self.jitter + (z ^ (z >> 31)) % (2 * self.jitter + 1)
