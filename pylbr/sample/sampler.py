"""Traces in, samples out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lbrcore import Flavour
from lbrcore.events import Unit
from lbrcore.replay import Replay, SampleBuffer
from lbrcore.rows import Rows
from lbrcore.summary import Summary
from pylbr.arch.bits import INFO_CYC_CNT, INFO_CYC_CNT_VALID, INFO_MISPRED
from pylbr.errors import ConfigurationError
from pylbr.perf.abi import BranchSample
from pylbr.perf.batch import SampleBatch
from pylbr.sample.architectural import ProcessorReplay
from pylbr.sample.counters import assign, logged
from pylbr.sample.parallel import run_parallel
from pylbr.sample.quirks import double_newest
from pylbr.sample.sample_setup import SampleSetup
from pylbr.sample.streams import Stream, Streams
from pylbr.trace import Chunk, Metadata, Trace

__all__ = ["Columns", "Sampler", "SamplerState", "branch_columns", "sample"]

#: Samples handled at once: 3 MiB of records at depth 32.
_CAPACITY = 4096
#: splitmix64's step: streams of one seed differ.
_STREAM_STEP = 0x9E3779B97F4A7C15

#: Bits of INFO that only a column of the trace can provide.
_MEASURED = {"flags": INFO_MISPRED, "cycles": INFO_CYC_CNT | INFO_CYC_CNT_VALID}

Columns = Mapping[str, NDArray[np.generic] | int | str]


class SamplerState(NamedTuple):
    """What a sampler's next samples follow from, besides the branches.

    Attributes
    ----------
    last_task, last_cpu : dict of int to int
        The last task on each CPU, and the last CPU of each task.
    keys : dict of int to tuple
        `Replay.key` of each facility, by task or CPU.
    """

    last_task: dict[int, int]
    last_cpu: dict[int, int]
    keys: dict[int, tuple[Any, ...]]


class Sampler:
    """One sampling session: takes a trace piece by piece.

    Parameters
    ----------
    setup : SampleSetup
    metadata : Metadata, optional
        Of the trace: which process a task belongs to.
    threads : int
        Pieces of a long stretch are replayed by as many threads, with the lazy engine; the
        samples are the same.

    Notes
    -----
    Used by one thread at a time.
    """

    def __init__(
        self, setup: SampleSetup, metadata: Metadata | None = None, *, threads: int = 1
    ) -> None:
        if not setup.events:
            raise ConfigurationError("no event to sample")
        self.setup, self.threads = setup, threads
        self.streams = Streams(setup.scope)
        self._replays: dict[int, Replay | ProcessorReplay] = {}
        self._places = assign(setup.events, setup.processor)
        config = setup.config()
        self._info_mask = self._measured = config.info_mask
        self._hw_idx = (config.flavour == Flavour.LEGACY
                        and bool(setup.branch_sample_type & BranchSample.HW_INDEX))
        metadata = metadata or Metadata()
        self._process = {task.tid: task.pid for task in metadata.tasks}
        self._task = _only_task(metadata)

    def take(
        self, columns: Columns, start: int = 0, task: NDArray[np.uint32] | None = None,
        cpu: NDArray[np.uint32] | None = None,
    ) -> Iterator[SampleBatch]:
        """Sample the next branches, oldest first.

        Parameters
        ----------
        columns : mapping of str to ndarray or int
            As `lbrcore.rows.Rows` takes them.
        start : int
            Index of the first of them in the trace; the sample after branch i has time i.
        task, cpu : ndarray of u4, optional

        Returns
        -------
        iterator of SampleBatch
            In the order of time; it must be used up before the next call.  Their `info_mask` has
        neither MISPRED nor the cycles if the trace has no such column: the facility's zeros
        would mean that every branch was predicted, and that no time passed.
        """
        self.measure(columns)
        count = len(columns["from"])  # type: ignore[arg-type]
        streams = self.streams.split(count, task, cpu)
        if len(streams) == 1:
            yield from self._take_stream(streams[0], columns, start, task, cpu)
            return
        batches = [
            batch for stream in streams
            for batch in self._take_stream(stream, columns, start, task, cpu)
        ]
        if batches:
            joined = SampleBatch.concat(batches)
            yield joined.select(np.argsort(joined.time, kind="stable"))

    def measure(self, columns: Columns) -> None:
        """Note what the trace has for INFO."""
        self._measured = self._info_mask
        for name, bits in _MEASURED.items():
            if name not in columns:
                self._measured &= ~bits

    def state(self) -> SamplerState:
        """What the next samples follow from; of the lazy engine alone."""
        return SamplerState(
            dict(self.streams.last_task), dict(self.streams.last_cpu),
            {key: replay.key for key, replay in sorted(self._replays.items())
             if isinstance(replay, Replay)})

    def restore(self, state: SamplerState) -> None:
        """Continue from where a sampler of the same setup had this state."""
        self.streams.last_task = dict(state.last_task)
        self.streams.last_cpu = dict(state.last_cpu)
        self._replays = {}
        for key, value in state.keys.items():
            replay = self.replay_of(key)
            assert isinstance(replay, Replay)
            replay.restore(value)

    @property
    def looks_at_all(self) -> bool:
        """The samples depend on more than the branches before them: no row can be left out."""
        return self._hw_idx

    def replay_of(self, key: int) -> Replay | ProcessorReplay:
        """What replays the branches of a task or CPU."""
        if key not in self._replays:
            events = [
                replace(event.counted, seed=(event.counted.seed + key * _STREAM_STEP) % (1 << 64))
                for event in self.setup.events
            ]
            if self.setup.engine == "architectural":
                self._replays[key] = ProcessorReplay(self.setup, events)
            else:
                self._replays[key] = Replay(
                    self.setup.facility(classes=True), events, freeze=bool(self.setup.freeze),
                    whole=self._hw_idx)
        return self._replays[key]

    def stream_rows(
        self, stream: Stream, columns: Columns
    ) -> tuple[Replay | ProcessorReplay, Rows, NDArray[np.int64] | None]:
        """The replay of a stream, its rows, and their places in the columns (None: all)."""
        replay = self.replay_of(stream.key)
        places = stream.rows
        if places is not None:
            columns = {
                name: column[places] if isinstance(column, np.ndarray) else column
                for name, column in columns.items()
            }
        if self.setup.logs and isinstance(replay, Replay):
            columns = {**columns, "events": logged(columns, replay.events, self._places)}
        return replay, Rows(columns), places

    def _take_stream(
        self, stream: Stream, columns: Columns, start: int,
        task: NDArray[np.uint32] | None, cpu: NDArray[np.uint32] | None,
    ) -> Iterator[SampleBatch]:
        """Sample the rows of one facility."""
        replay, rows, places = self.stream_rows(stream, columns)
        to = np.asarray(columns["to"])
        first = 0
        for last in [*stream.switches.tolist(), len(rows)]:
            for out in self.run(replay, rows, first, last):
                row = out.row[:out.count]
                where = row if places is None else places[row]
                yield self.batch(out, to[where], where + start, *(
                    None if column is None else column[where] for column in (task, cpu)))
            if last < len(rows):
                self.switch_in(replay)
            first = last

    def run(
        self, replay: Replay | ProcessorReplay, rows: Rows, first: int, last: int
    ) -> Iterator[SampleBuffer]:
        """Samples of rows of one facility, between which its task is not switched."""
        if self.threads > 1 and isinstance(replay, Replay):
            yield from run_parallel(replay, rows, first, last, self.threads)
            return
        room = _CAPACITY + replay.count
        while first < last:
            out = SampleBuffer(room, replay.lbr.depth)
            first = replay.run(rows, out, first, last)
            if out.count:
                yield out

    def switched_in(self, replay: Replay) -> Summary:
        """What `switch_in` does, as a summary."""
        restart = Summary.restart(replay.lbr)
        return restart if self._keeps else Summary.clear(replay.lbr).then(restart)

    @property
    def _keeps(self) -> bool:
        """Records outlive a switch of tasks."""
        return self.setup.call_stack and self.setup.scope == "task"

    def switch_in(self, replay: Replay | ProcessorReplay) -> None:
        """The LBRs were off; they come back as they were, or reset."""
        reset = not self._keeps
        if isinstance(replay, ProcessorReplay):
            replay.switch_in(reset)
            return
        if reset:
            replay.lbr.clear()
        if not replay.lbr.frozen:
            replay.lbr.frozen = True
            replay.lbr.frozen = False

    def batch(
        self, out: SampleBuffer, to: NDArray[np.uint64], time: NDArray[np.int64],
        task: NDArray[np.uint32] | None, cpu: NDArray[np.uint32] | None,
    ) -> SampleBatch:
        """A buffer's samples, of branches `time` of the trace, to whose targets, tasks and CPUs
        the others are."""
        n = out.count
        pid, tid = (np.full(n, number, "i4") for number in self._task)
        if task is not None:
            tid = task.astype("i4")
            pid = np.array([self._process.get(t, t) for t in tid.tolist()], "i4")
        if self.setup.quirks:
            seed = self.setup.events[0].counted.seed
            double_newest(out, time.astype(np.uint64), seed)
        return SampleBatch.build(
            to, out.entries[:n], nr=out.nr[:n], pid=pid, tid=tid,
            cpu=0 if cpu is None else cpu, time=time, period=out.period[:n],
            event=out.event[:n], hw_idx=out.hw_idx[:n] if self._hw_idx else None,
            classes=out.classes[:n], info_mask=self._measured,
        )


def _only_task(metadata: Metadata) -> tuple[int, int]:
    """(pid, tid) of a trace that does not name tasks."""
    if metadata.tasks:
        return metadata.tasks[0].pid, metadata.tasks[0].tid
    pids = [module.pid for module in metadata.modules if module.pid is not None]
    return (pids[0], pids[0]) if pids else (1, 1)


def branch_columns(chunk: Chunk, setup: SampleSetup) -> dict[str, NDArray[np.generic] | int | str]:
    """Columns of a chunk that decide the samples.

    CPLs that the trace does not carry go by the address, as in `Chunk.column`.

    Raises
    ------
    ConfigurationError
        The trace lacks what an event counts.
    """
    columns: dict[str, NDArray[np.generic] | int | str] = {}
    for name in setup.columns():
        if name in chunk.columns or name == "class":
            columns[name] = chunk.column(name)
        elif name in ("cpl_from", "cpl_to"):
            columns[name] = "address"
    for event in setup.events:
        needed = {Unit.CYCLES: "cycles", Unit.INSTRUCTIONS: "instructions"}.get(event.counted.unit)
        if needed is not None and needed not in columns:
            raise ConfigurationError(f"event {event.name!r}: the trace has no column {needed!r}")
    return columns


def sample(
    trace: Trace, setup: SampleSetup, *, threads: int = 1,
    update: Callable[[int], object] | None = None,
) -> Iterator[SampleBatch]:
    """Samples of a whole trace, in the order of time.

    Parameters
    ----------
    trace : Trace
    setup : SampleSetup
    threads : int
    update : callable, optional
        Called with the number of branches done, chunk by chunk.

    Notes
    -----
    Holds one chunk of the trace at a time, and one facility a task or CPU.

    >>> from pylbr import trace
    >>> setup = SampleSetup.of("branches:u", 10007, branches="any,u")
    >>> with trace.open("program.arrow") as source:  # doctest: +SKIP
    ...     for batch in sample(source, setup):
    ...         print(len(batch), batch.stack(0)["from"][0])
    """
    sampler = Sampler(setup, trace.metadata, threads=threads)
    for chunk in trace.chunks(columns=setup.columns()):
        yield from sampler.take(
            branch_columns(chunk, setup), chunk.start, chunk.task, chunk.cpu)
        if update is not None:
            update(len(chunk))
