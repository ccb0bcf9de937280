"""A replayed trace as a stream of stacks, for every writer and aggregation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from pylbr.errors import TraceError
from pylbr.perf.abi import MISC_KERNEL, MISC_USER
from pylbr.perf.batch import SampleBatch
from pylbr.perf.entries import perf_batches
from pylbr.perf.stacks import Comm, Mmap, Record, Stacks, StacksMetadata
from pylbr.sample import SampleSetup, sample
from pylbr.trace import Metadata, Module, Trace

__all__ = ["replayed"]

_UPPER_HALF = 1 << 63


def replayed(
    trace: Trace, setup: SampleSetup, *, threads: int = 1, command_line: Sequence[str] = (),
    update: Callable[[int], object] | None = None,
    batches: Iterable[SampleBatch] | None = None,
) -> Stacks:
    """Replay a trace as the stream is read.

    Parameters
    ----------
    trace : Trace
        Stays open until the stream has been read.
    setup : SampleSetup
    threads : int
    command_line : sequence of str
        For the head of a file.
    update : callable, optional
        Called with the number of branches done, chunk by chunk.
    batches : iterable of SampleBatch, optional
        The samples, where others take them: `pylbr.sample.schedule.sample_parts`.

    Returns
    -------
    Stacks
        Names of the tasks, mappings of all modules, samples in the order of time.

    Raises
    ------
    TraceError
        While the stream is read: no event occurred as often as its period requires, or no branch
        passed the filter.
    """
    metadata = StacksMetadata(
        events=tuple(event.attributes(setup.branch_sample_type) for event in setup.events),
        arch="x86_64", cpu_description=f"{setup.processor.name}, replayed",
        command_line=tuple(command_line), cpus_online=os.cpu_count() or 1,
        cpus_available=os.cpu_count() or 1, provenance=dict(trace.metadata.provenance),
    )

    def records() -> Iterator[Record]:
        spaces = _Spaces(trace.metadata)
        yield from spaces.beginnings()
        samples = entries = 0
        found = sample(trace, setup, threads=threads, update=update)
        for batch in found if batches is None else batches:
            for piece, new in spaces.newcomers(batch):
                yield from new
                for part in perf_batches([piece], setup.branch_sample_type):
                    samples, entries = samples + len(part), entries + len(part.entries)
                    yield part
        if not samples:
            periods = ", ".join(f"{event.name} {event.counted.period:,}" for event in setup.events)
            raise TraceError(trace.path, "no sample: no event came as often as its period asks "
                             f"({periods}); a smaller -c gives some")
        if not entries:
            raise TraceError(trace.path, f"none of {samples:,} samples has a branch: the filter "
                             "lets none through")

    return Stacks(metadata, records(), trace.path)


class _Spaces:
    """Tasks and mappings, as if all had begun before their first sample."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._tasks: set[int] = set()
        self._processes: set[int] = set()

    def beginnings(self) -> Iterator[Record]:
        """What the head of the trace names."""
        for module in self._metadata.modules:
            if module.start >= _UPPER_HALF:
                yield _mapping(module, -1, MISC_KERNEL)
        for task in self._metadata.tasks:
            yield from self._add(task.pid, task.tid, task.name)

    def newcomers(self, batch: SampleBatch) -> Iterator[tuple[SampleBatch, list[Record]]]:
        """Pieces of a batch, each with the tasks that only its first branch shows."""
        tids, firsts = np.unique(batch.tid, return_index=True)
        cuts = sorted(int(row) for tid, row in zip(tids.tolist(), firsts.tolist(), strict=True)
                      if tid not in self._tasks)
        new: list[Record] = []
        for first, last in pairwise([0, *cuts, len(batch)]):
            if first < last:
                yield batch.select(slice(first, last)), new
            if last < len(batch):
                new = list(self._add(int(batch.pid[last]), int(batch.tid[last]), ""))

    def _add(self, pid: int, tid: int, name: str) -> Iterator[Record]:
        self._tasks.add(tid)
        new = pid not in self._processes  # an exec ends what was mapped before it
        yield Comm(pid, tid, name or f"task-{tid}", exec_=new and pid == tid)
        if not new:
            return
        self._processes.add(pid)
        for module in self._metadata.modules:
            if module.start < _UPPER_HALF and module.pid in (None, pid):
                yield _mapping(module, pid, MISC_USER)


def _mapping(module: Module, pid: int, misc: int) -> Mmap:
    return Mmap(
        pid, pid, module.start, module.size, module.file_offset, module.path,
        bytes.fromhex(module.build_id), misc=misc)
