"""The slow, obvious twin of ``lbrcore.replay``, ``scan`` and ``summary``: branch by branch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lbrcore.events import CountedEvent, Unit
from lbrcore.lbr import LbrState
from lbrcore.reference import ReferenceLbr

__all__ = ["ReferenceReplay", "Sample", "weight"]


class Sample(NamedTuple):
    """A sample: the row before the PMI, the event's index, its period, valid records, all."""

    row: int
    event: int
    period: int
    nr: int
    records: list[tuple[int, int, int]]


def weight(event: CountedEvent, branch: Any) -> int:
    """What one row of BRANCH_DTYPE adds to the count of an event."""
    counts = (
        event.classes >> int(branch["class"]) & 1
        and event.flags >> int(branch["flags"]) & 1
        and event.cpls >> int(branch["cpl_from"]) & 1
    )
    if not counts:
        return 0
    if event.unit == Unit.INSTRUCTIONS:
        return int(branch["instructions"])
    return int(branch["cycles"]) if event.unit == Unit.CYCLES else 1


@dataclass
class _Counter:
    event: CountedEvent
    left: int = 0
    ordinal: int = -1
    period: int = 0
    overflowed: bool = False

    def reload(self) -> None:
        self.ordinal += 1
        self.period = self.event.period_at(self.ordinal)
        self.left = self.period if self.left <= -self.period else self.left + self.period
        self.overflowed = False


@dataclass
class ReferenceReplay:
    """`lbrcore.replay.Replay`, one branch after the other.

    Parameters
    ----------
    lbr : LbrState or ReferenceLbr
        Set up, and recording.
    events : sequence of CountedEvent
    freeze : bool
        FREEZE_LBRS_ON_PMI.
    """

    lbr: LbrState | ReferenceLbr
    events: Sequence[CountedEvent]
    freeze: bool = False
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._counters = [_Counter(event) for event in self.events]
        for counter in self._counters:
            counter.reload()
        self._pending: int | None = None
        self._row = 0

    def run(self, branches: Iterable[Any]) -> None:
        """Take rows of BRANCH_DTYPE, oldest first; add to `samples`."""
        for branch in branches:
            self.lbr.record(branch.reshape(1))
            for counter in self._counters:
                counter.left -= weight(counter.event, branch)
                if counter.left <= 0 and not counter.overflowed:
                    self._overflow(counter)
            if self._pending == 0:
                self._pmi()
            elif self._pending is not None:
                self._pending -= 1
            self._row += 1

    def _overflow(self, counter: _Counter) -> None:
        counter.overflowed = True
        skid = counter.event.skid
        self._pending = skid if self._pending is None else min(self._pending, skid)
        if self.freeze:
            self._set_frozen(True)

    def _set_frozen(self, frozen: bool) -> None:
        if isinstance(self.lbr, ReferenceLbr):
            self.lbr.set_frozen(frozen)
        else:
            self.lbr.frozen = frozen

    def _pmi(self) -> None:
        for index, counter in enumerate(self._counters):
            if not counter.overflowed:
                continue
            records = [(int(e[0]), int(e[1]), int(e[2])) for e in self.lbr.records()]
            nr = next((i for i, entry in enumerate(records) if not entry[0]), len(records))
            self.samples.append(Sample(self._row, index, counter.period, nr, records))
            counter.reload()
        self._pending = None
        if self.freeze:
            self._set_frozen(False)
