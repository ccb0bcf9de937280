"""What a part of a trace does to facilities and counters, before their state is known.

A `Sampler`'s state after the part follows from its state before and this: summaries compose, counts
add up.  Which tasks were switched in at the begin of the part depends on the parts before; a
description has the summaries between those rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lbrcore.replay import Replay
from lbrcore.rows import Rows
from lbrcore.summary import Summary
from pylbr.sample.sample_setup import SampleSetup
from pylbr.sample.sampler import Columns, Sampler, SamplerState, branch_columns
from pylbr.trace import Trace

__all__ = ["CELL_ROWS", "Description", "Segment", "advanced", "columns_between", "describe",
           "switched_rows"]

#: Rows between two places whose event counts a description has.
CELL_ROWS: Final = 1 << 12


class Segment(NamedTuple):
    """Rows of one facility.

    Attributes
    ----------
    row : int
        The first of them, if its task may have been switched in before; else -1.
    summary : Summary
    counts : tuple of int
        What each event counts.
    """

    row: int
    summary: Summary
    counts: tuple[int, ...]


@dataclass
class Description:
    """One part.

    Attributes
    ----------
    begin, end : int
        Its branches.
    streams : dict of int to list of Segment
        By task or CPU.
    first_task, last_task : dict of int to (row, task), dict of int to task
        The first and the last task on each CPU.
    first_cpu, last_cpu : dict of int to (row, CPU), dict of int to CPU
        The first and the last CPU of each task.
    cells : ndarray of i8, shape (events, cells), or None
        What each event counts in every `cell_rows` rows; None if there is more than one facility,
        or a task was switched in.
    cell_rows : int
    task, cpu : int or None
        Of all rows, if `cells` is there and the trace has that column.
    """

    begin: int
    end: int
    streams: dict[int, list[Segment]] = field(default_factory=dict)
    first_task: dict[int, tuple[int, int]] = field(default_factory=dict)
    first_cpu: dict[int, tuple[int, int]] = field(default_factory=dict)
    last_task: dict[int, int] = field(default_factory=dict)
    last_cpu: dict[int, int] = field(default_factory=dict)
    cells: NDArray[np.int64] | None = None
    cell_rows: int = CELL_ROWS
    task: int | None = None
    cpu: int | None = None


def columns_between(
    trace: Trace, setup: SampleSetup, begin: int, end: int
) -> Iterator[tuple[int, Columns, NDArray[np.uint32] | None, NDArray[np.uint32] | None]]:
    """(first branch, columns, task, CPU) of each chunk of some branches of a trace."""
    for chunk in trace.chunks(columns=setup.columns(), start=begin):
        n = min(len(chunk), end - chunk.start)
        if n <= 0:
            return
        columns = {name: column[:n] if isinstance(column, np.ndarray) else column
                   for name, column in branch_columns(chunk, setup).items()}
        task, cpu = (None if column is None else column[:n] for column in (chunk.task, chunk.cpu))
        yield chunk.start, columns, task, cpu


def describe(
    trace: Trace, setup: SampleSetup, begin: int, end: int, cell_rows: int = CELL_ROWS
) -> Description:
    """Describe branches `begin` to `end` of a trace.

    Raises
    ------
    ConfigurationError
        The trace lacks what an event counts.
    TraceError
        It is damaged.
    """
    found = _Describing(setup, trace, begin, end, cell_rows)
    for start, columns, task, cpu in columns_between(trace, setup, begin, end):
        found.take(start, columns, task, cpu)
    return found.result()


class _Describing:
    def __init__(
        self, setup: SampleSetup, trace: Trace, begin: int, end: int, cell_rows: int
    ) -> None:
        self._sampler = Sampler(setup, trace.metadata)
        self._description = Description(begin, end, cell_rows=cell_rows)
        cells = -(-(end - begin) // cell_rows)
        self._cells = np.zeros((len(setup.events), cells), np.int64)
        self._values: set[tuple[int | None, int | None]] = set()
        self._plain = True

    def take(
        self, start: int, columns: Columns, task: NDArray[np.uint32] | None,
        cpu: NDArray[np.uint32] | None,
    ) -> None:
        """The next rows."""
        count = len(columns["from"])  # type: ignore[arg-type]
        maybe = self._note_firsts(start, count, task, cpu)
        streams = self._sampler.streams.split(count, task, cpu)
        self._plain &= len(streams) == 1 and all(
            column is None or bool((column[0] == column).all()) for column in (task, cpu))
        if self._plain:
            self._values.add((None if task is None else int(task[0]),
                              None if cpu is None else int(cpu[0])))
            self._plain = len(self._values) == 1
        for stream in streams:
            replay, rows, places = self._sampler.stream_rows(stream, columns)
            assert isinstance(replay, Replay)
            cuts = dict.fromkeys(stream.switches.tolist(), -1)
            for row in maybe:
                place = row if places is None else int(np.searchsorted(places, row))
                found = places is None or (place < len(places) and int(places[place]) == row)
                if found and place not in cuts:
                    cuts[place] = start + row
            self._plain &= not any(cut == -1 or cut > self._description.begin
                                   for cut in cuts.values())
            self._describe(replay, stream.key, rows, cuts, start)

    def _note_firsts(
        self, start: int, count: int, task: NDArray[np.uint32] | None,
        cpu: NDArray[np.uint32] | None,
    ) -> list[int]:
        """Rows that are the first of their task or CPU in the part."""
        found = self._description
        if task is None or (cpu is None and self._sampler.setup.scope == "task"):
            return []
        if cpu is None:
            cpu = np.zeros(count, np.uint32)
        rows = []
        for keys, values, firsts, lasts in (
                (cpu, task, found.first_task, found.last_task),
                (task, cpu, found.first_cpu, found.last_cpu)):
            here, first = np.unique(keys, return_index=True)
            for key, row in zip(here.tolist(), first.tolist(), strict=True):
                if key not in firsts:
                    firsts[key] = (start + row, int(values[row]))
                    rows.append(row)
            here, last = np.unique(keys[::-1], return_index=True)
            lasts.update(zip(here.tolist(), values[::-1][last].tolist(), strict=True))
        return sorted(set(rows))

    def _describe(
        self, replay: Replay, key: int, rows: Rows, cuts: dict[int, int], start: int
    ) -> None:
        """Rows of one facility; before the row of a cut its task is or may be switched in."""
        segments = self._description.streams.setdefault(key, [])
        first = 0
        for last in [*sorted(cuts), len(rows)]:
            self._extend(replay, segments, rows, first, last, start)
            if last < len(rows):
                if cuts[last] >= 0:
                    segments.append(Segment(cuts[last], Summary(replay.lbr), (0,) * replay.count))
                else:
                    self._add(replay, segments, self._sampler.switched_in(replay),
                              (0,) * replay.count)
            first = last

    def _extend(
        self, replay: Replay, segments: list[Segment], rows: Rows, first: int, last: int,
        start: int,
    ) -> None:
        """Add rows, cell by cell."""
        base = start - self._description.begin
        while first < last:
            cell = (base + first) // self._description.cell_rows
            stop = min(last, (cell + 1) * self._description.cell_rows - base)
            if not self._plain:
                stop = last
            summary, counts = replay.describe(rows, first, stop)
            if self._plain:
                self._cells[:, cell] += np.array(counts, np.int64)
            self._add(replay, segments, summary, counts)
            first = stop

    def _add(
        self, replay: Replay, segments: list[Segment], summary: Summary, counts: tuple[int, ...]
    ) -> None:
        if not segments:
            segments.append(Segment(-1, Summary(replay.lbr), (0,) * replay.count))
        before = segments[-1]
        segments[-1] = Segment(before.row, before.summary.then(summary), tuple(
            a + b for a, b in zip(before.counts, counts, strict=True)))

    def result(self) -> Description:
        """All of it."""
        if self._plain and self._description.streams:
            self._description.cells = self._cells
            (self._description.task, self._description.cpu), = self._values
        return self._description


def switched_rows(state: SamplerState, part: Description) -> set[int]:
    """Rows of `part` before which their task is switched in, of those that show it by `state`."""
    return {
        row for firsts, lasts in ((part.first_task, state.last_task),
                                  (part.first_cpu, state.last_cpu))
        for key, (row, value) in firsts.items() if lasts.get(key, value) != value}


def advanced(setup: SampleSetup, state: SamplerState, part: Description) -> SamplerState:
    """State after a part, of the state before it.

    Exact unless a facility was frozen over the end of the part, or a PMI shortly before it left
    its mark: whether it was, shows when the part is sampled.
    """
    sampler = Sampler(setup)
    sampler.restore(state)
    switched = switched_rows(state, part)
    for key, segments in part.streams.items():
        replay = sampler.replay_of(key)
        assert isinstance(replay, Replay)
        if replay.lbr.frozen:  # until a PMI, which will be somewhere in the part
            replay.lbr.frozen = False
        for segment in segments:
            if segment.row in switched:
                sampler.switch_in(replay)
            replay.skip(segment.summary, segment.counts)
    after = sampler.state()
    return SamplerState(state.last_task | part.last_task, state.last_cpu | part.last_cpu,
                        after.keys)
