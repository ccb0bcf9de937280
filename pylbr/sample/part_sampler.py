"""Samples of one part of a trace, from the state before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lbrcore.replay import Replay, SampleBuffer
from lbrcore.rows import Rows
from pylbr.perf.batch import SampleBatch
from pylbr.sample.description import Description, advanced, columns_between, switched_rows
from pylbr.sample.sample_setup import SampleSetup
from pylbr.sample.sampler import Columns, Sampler, SamplerState
from pylbr.sample.streams import Stream
from pylbr.trace import Trace

__all__ = ["sample_part"]

#: Rows that are looked back over at first, for the records of a sample.
_FIRST_WINDOW = 256
_LARGEST_WINDOW = 1 << 20
#: Rows per overflow above which rows are left out: a container is read from a restart on, half a
#: piece on average.
_RARE = 3 << 14
#: Samples handled at once.
_CAPACITY = 256


def sample_part(
    trace: Trace, setup: SampleSetup, begin: int, end: int, state: SamplerState,
    known: Description | None = None,
) -> tuple[list[SampleBatch], SamplerState]:
    """Samples of branches `begin` to `end`, and the state after them.

    Parameters
    ----------
    trace : Trace
    setup : SampleSetup
    begin, end : int
    state : SamplerState
        Before `begin`.
    known : Description, optional
        Of this part: of branches in which it shows no overflow only those are read that a later
        sample may have records of.

    Raises
    ------
    ConfigurationError
        The trace lacks what an event counts.
    TraceError
        It is damaged.
    """
    sampler = Sampler(setup, trace.metadata)
    sampler.restore(state)
    if known is not None and known.cells is not None and not sampler.looks_at_all and (
            _rare(setup, known)):
        return _Selective(sampler, trace, known).run(state)
    batches = [
        batch for start, columns, task, cpu in columns_between(trace, setup, begin, end)
        for batch in sampler.take(columns, start, task, cpu)]
    return batches, sampler.state()


def _rare(setup: SampleSetup, known: Description) -> bool:
    """Whether there are so few overflows that going from one to the next is quicker."""
    assert known.cells is not None
    overflows = sum(int(cells.sum()) / event.counted.period
                    for cells, event in zip(known.cells, setup.events, strict=True))
    return overflows * _RARE < known.end - known.begin


class _Selective:
    """Goes from one cell in which a counter overflows to the next."""

    def __init__(self, sampler: Sampler, trace: Trace, known: Description) -> None:
        assert known.cells is not None
        self._sampler, self._trace, self._known = sampler, trace, known
        (self._key, (segment,)), = known.streams.items()
        self._row = segment.row
        self._sums = np.zeros((len(known.cells), known.cells.shape[1] + 1), np.int64)
        np.cumsum(known.cells, axis=1, dtype=np.int64, out=self._sums[:, 1:])
        self._at = known.begin
        self._batches: list[SampleBatch] = []
        self._out: SampleBuffer
        self._to: list[NDArray[np.uint64]] = []
        self._time: list[NDArray[np.int64]] = []

    def run(self, state: SamplerState) -> tuple[list[SampleBatch], SamplerState]:
        """All of the part."""
        known, sampler = self._known, self._sampler
        replay = sampler.replay_of(self._key)
        assert isinstance(replay, Replay)
        # Streams and counts after the part, and whether its task is switched in at its begin.
        after = advanced(sampler.setup, state, known)
        if self._row in switched_rows(state, known):
            sampler.switch_in(replay)
        self._out = SampleBuffer(_CAPACITY + replay.count, replay.lbr.depth)
        while self._at < known.end:
            cell = self._next_cell(replay)
            start = min(known.begin + cell * known.cell_rows, known.end)
            stop = min(start + known.cell_rows, known.end)
            rows = self._skip(replay, start, stop)
            if rows is not None:
                self._sample(replay, start, rows)
            self._at = stop
        self._flush()
        return self._batches, SamplerState(after.last_task, after.last_cpu,
                                     {**after.keys, self._key: replay.key})

    def _next_cell(self, replay: Replay) -> int:
        """The cell in which the next overflow is, or the present one while a PMI is pending."""
        known = self._known
        cell = (self._at - known.begin) // known.cell_rows
        counters, pending = replay.key[:2]
        if pending >= 0 or any(overflowed for _, _, overflowed in counters):
            return cell
        return min((int(np.searchsorted(sums, sums[cell] + left)) - 1
                    for sums, (left, _, _) in zip(self._sums, counters, strict=True)),
                   default=len(self._sums[0]) - 1)

    def _skip(self, replay: Replay, start: int, stop: int) -> Columns | None:
        """Bring the replay to before `start`; the columns from there to `stop`, if any."""
        window = _FIRST_WINDOW
        while start > self._at:
            low = max(self._at, start - window)
            columns = self._read(low, stop)
            summary, _ = replay.describe(self._rows(replay, columns), 0, start - low)
            if low == self._at or summary.complete:
                replay.skip(summary, self._counts(start))
                self._at = start
                return None if start == stop else {
                    name: column[start - low:] if isinstance(column, np.ndarray) else column
                    for name, column in columns.items()}
            window *= 8
            if window > _LARGEST_WINDOW:
                self._pass(replay, start)
        return self._read(start, stop) if start < stop else None

    def _pass(self, replay: Replay, start: int) -> None:
        """Bring the replay nearer to `start` than the largest window, through every row."""
        step = max(_LARGEST_WINDOW, self._known.cell_rows)
        while start - self._at > step:
            columns = self._read(self._at, self._at + step)
            summary, _ = replay.describe(self._rows(replay, columns), 0, step)
            replay.skip(summary, self._counts(self._at + step))
            self._at += step

    def _counts(self, row: int) -> list[int]:
        """What each event counts from the present row to another; both begin cells."""
        first, last = (-(-(at - self._known.begin) // self._known.cell_rows)
                       for at in (self._at, row))
        return [int(sums[last] - sums[first]) for sums in self._sums]

    def _read(self, low: int, high: int) -> Columns:
        """Columns of some rows."""
        names = self._sampler.setup.columns()
        rows = self._trace.read(low, high)
        columns: dict[str, NDArray[np.generic] | int | str] = {}
        for name in names:
            if name in self._trace.columns or name == "class":
                columns[name] = rows[name]
            elif name in ("cpl_from", "cpl_to"):
                columns[name] = "address"
        return columns

    def _rows(self, replay: Replay, columns: Columns) -> Rows:
        stream = Stream(self._key, None, np.empty(0, np.int64))
        return self._sampler.stream_rows(stream, columns)[1]

    def _sample(self, replay: Replay, start: int, columns: Columns) -> None:
        """Replay the rows of a cell."""
        self._sampler.measure(columns)
        rows, to = self._rows(replay, columns), np.asarray(columns["to"])
        first = 0
        while first < len(rows):
            if self._out.count + replay.count > self._out.capacity:
                self._flush()
            before = self._out.count
            first = replay.run(rows, self._out, first)
            row = self._out.row[before:self._out.count]
            self._to.append(to[row])
            self._time.append(row + start)

    def _flush(self) -> None:
        """Make a batch of the samples so far."""
        if not self._out.count:
            return
        n = self._out.count
        task, cpu = (None if value is None else np.full(n, value, np.uint32)
                     for value in (self._known.task, self._known.cpu))
        self._batches.append(self._sampler.batch(
            self._out, np.concatenate(self._to), np.concatenate(self._time), task, cpu))
        self._out = SampleBuffer(self._out.capacity, self._out.depth)
        self._to, self._time = [], []
