"""A replay as tasks: each is a part of the trace, and can be done anywhere and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from pylbr.errors import TraceError
from pylbr.files.module import Module
from pylbr.perf.batch import SampleBatch
from pylbr.sample.description import CELL_ROWS, Description, describe
from pylbr.sample.part_sampler import sample_part
from pylbr.sample.sample_setup import SampleSetup
from pylbr.sample.sampler import SamplerState
from pylbr.sample.store import PartStore
from pylbr.trace import Trace, open_any

__all__ = ["PART_ROWS", "PartSamples", "ReplayJob", "describe_task", "sample_task"]

#: Branches of a task: enough that what a task costs besides does not show.
PART_ROWS: Final = 100_000_000
#: Cells of all parts together: their counts are at one place.
_MOST_CELLS: Final = 1 << 22
_LARGEST_CELL: Final = 1 << 20


@dataclass(frozen=True)
class ReplayJob:
    """What is replayed.

    Parameters
    ----------
    path : str
        The trace, as each worker sees it.
    setup : SampleSetup
        With the lazy engine.
    count : int
        Branches of the trace.
    part_rows : int
        Branches of a task.
    format : str, optional
    modules : sequence of Module
    verify : bool
        As those of `pylbr.trace.open_any`.
    directory : str, optional
        Keep what each task makes there, and use what is there.
    """

    path: str
    setup: SampleSetup
    count: int
    part_rows: int = PART_ROWS
    format: str | None = None
    modules: Sequence[Module] = ()
    verify: bool = True
    directory: str | None = None

    @property
    def parts(self) -> int:
        """How many."""
        return -(-self.count // self.part_rows)

    def range(self, number: int) -> tuple[int, int]:
        """Branches of a part: from, to."""
        return number * self.part_rows, min((number + 1) * self.part_rows, self.count)

    @property
    def cell_rows(self) -> int:
        """Rows between two places whose counts descriptions have."""
        rows = CELL_ROWS
        while rows < _LARGEST_CELL and self.count // rows > _MOST_CELLS:
            rows *= 2
        return rows

    def open(self) -> Trace:
        """The trace, as it was when the job was made.

        Raises
        ------
        TraceError
            It cannot be read, or has another length.
        """
        found = open_any(self.path, self.format, modules=self.modules, verify=self.verify)
        if not isinstance(found, Trace) or found.count != self.count:
            found.close()
            raise TraceError(self.path, f"is not the trace of {self.count:,} branches that it was; "
                             "start again when it is complete")
        return found

    def store(self) -> PartStore | None:
        """Where parts are kept."""
        if self.directory is None:
            return None
        return PartStore(self.directory, [
            identity(self.path), repr(self.setup), self.count, self.part_rows, self.format,
            repr(self.modules), self.verify])


def identity(path: str) -> list[list[object]]:
    """What changes when a file, or a directory of files, is another one.

    Raises
    ------
    TraceError
        It cannot be read.
    """
    here = Path(path)
    try:
        files = sorted(here.iterdir()) if here.is_dir() else [here]
        return [[str(file.resolve()), state.st_size, state.st_mtime_ns]
                for file in files for state in [file.stat()]]
    except OSError as error:
        raise TraceError(path, f"cannot be read: {error.strerror}") from error


class PartSamples(NamedTuple):
    """What is sampled in a part, and the state after it.

    `batches` is None where they are in the store.
    """

    batches: list[SampleBatch] | None
    after: SamplerState


def describe_task(job: ReplayJob, number: int) -> Description:
    """Describe a part.

    Raises
    ------
    TraceError
        It cannot be read; or the directory cannot be written.
    """
    store = job.store()
    found = store.description(number) if store else None
    if found is None:
        with job.open() as trace:
            found = describe(trace, job.setup, *job.range(number), job.cell_rows)
        if store:
            store.keep_description(number, found)
    return found


def sample_task(
    job: ReplayJob, number: int, before: SamplerState, known: Description | None = None
) -> PartSamples:
    """Sample a part, of the state before it.

    Raises
    ------
    TraceError
        As `describe_task`.
    """
    store = job.store()
    after = store.after(number, before) if store else None
    if after is not None:
        return PartSamples(None, after)
    with job.open() as trace:
        batches, after = sample_part(trace, job.setup, *job.range(number), before, known)
    if store is None:
        return PartSamples(batches, after)
    store.keep_samples(number, before, after, batches)
    return PartSamples(None, after)
