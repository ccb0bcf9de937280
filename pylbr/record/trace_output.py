"""The file of every branch that a recording makes: the container of a full trace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

import numpy as np

from pylbr.files.module import Module
from pylbr.perf.batch import SampleBatch
from pylbr.perf.stacks import Comm, Exit, Fork, Lost, Mmap
from pylbr.record._blocks import BlockWalk
from pylbr.record._numbered import BRANCHES_PER_WORD, Numbered
from pylbr.record.engine import Engine, Request
from pylbr.record.output import describe
from pylbr.record.streamed import WayTable
from pylbr.trace.lbrt_writer import GROUP_ROWS as LBRT_ROWS
from pylbr.trace.lbrt_writer import LbrtWriter
from pylbr.trace.metadata import Metadata
from pylbr.trace.metadata import Task as TraceTask
from pylbr.trace.output import trace_suffix, trace_writer
from pylbr.trace.schema import column_dtype
from pylbr.trace.writer import BATCH_ROWS, GROUP_ROWS, Writer

__all__ = ["TraceOutput"]

#: Share of a disk's free space that the rows of a trace may take: digests and tables come on top.
_FILL: Final = 0.95
#: Branches that take seconds to write, of which the user is to hear.
_MANY: Final = 50_000_000
#: Size of a file beside that of the spool that it is made of: .parquet 3.2 for gzip, 3.9 for
#: python3; .lbrt a fourteenth of that or less.
_RATIOS: Final = {".parquet": 3.5, ".lbrt": 0.25}
#: Rows that wait in memory for their batch.
_WAITING: Final = {".arrow": BATCH_ROWS, ".parquet": GROUP_ROWS, ".lbrt": LBRT_ROWS}


#: (walk, words, first of them, array for numbers, last): see `Numbered.number`.
_Number = Callable[
    [BlockWalk, np.ndarray, int, np.ndarray, int], tuple[int, int, int, np.ndarray, np.ndarray]
]


def _numbering(writer: LbrtWriter, ways: WayTable | None) -> _Number:
    """What numbers a writer's edges."""
    if ways is None:
        blocks = Numbered(writer.edges)
        writer.renumbered = blocks.forget
        return blocks.number
    numbered, table = ways.numbered(writer.edges), ways.ways
    writer.counting, writer.renumbered = numbered.count_uses, numbered.forget

    def number(
        walk: BlockWalk, words: np.ndarray, first: int, out: np.ndarray, last: int
    ) -> tuple[int, int, int, np.ndarray, np.ndarray]:
        return numbered.number(walk, words, table(), first, out, last)

    return number


def _row_bytes(columns: Sequence[str]) -> int:
    return sum(column_dtype(name).itemsize for name in columns)


class TraceOutput:
    """All branches as a container; conditional branches that fell through are among them.

    Parameters
    ----------
    path : str
        Ends in ``.arrow``, ``.parquet`` or ``.lbrt``.
    request : Request
    engine : Engine
    announce : callable, optional
        Takes a line for the user: how much is there to write, where that is much.
    progress : callable, optional
        Takes the branches written and about how many there are, once the program has ended.

    Attributes
    ----------
    count : int
        Branches written.
    remarks : list of str
        Why the file does not hold all of them.
    """

    def __init__(
        self, path: str, request: Request, engine: Engine,
        announce: Callable[[str], object] = lambda line: None,
        progress: Callable[[int, int], object] = lambda done, total: None,
    ) -> None:  # fmt: skip
        self._path, self._request, self._engine = path, request, engine
        self._suffix = trace_suffix(path)
        self.streams = self._suffix == ".lbrt"
        self._number: _Number | None = None
        self._modules: dict[int, list[Module]] = {}
        self._tasks: dict[int, TraceTask] = {}
        self._announce, self._next = announce, _MANY
        self._progress, self._total = progress, 0
        self._row = 0
        self._writer: Writer | LbrtWriter | None = None
        self.count = 0
        self.remarks: list[str] = []

    def record(self, record: Mmap | Comm | Fork | Exit | Lost) -> None:
        """See `Sink`."""
        if isinstance(record, Lost):
            raise TypeError("a trace loses no samples")
        pid, tid = record.pid, record.tid
        if isinstance(record, Mmap):
            module = Module(
                record.path, record.start, record.length, record.file_offset,
                record.build_id.hex(), pid,
            )  # fmt: skip
            self._modules.setdefault(pid, []).append(module)
        elif isinstance(record, Comm):
            self._tasks[tid] = TraceTask(tid, pid, record.name)
        elif isinstance(record, Fork):
            known = self._tasks.get(record.ptid)
            self._tasks[tid] = TraceTask(tid, pid, known.name if known else "")

    def samples(self, batch: SampleBatch) -> None:
        """See `Sink`; a trace takes none."""
        raise TypeError("a trace holds branches")

    def expect(self, count: int, kept: int, ended: bool) -> None:
        """See `Sink`; reports the expected file size at each doubling, and at the end."""
        if ended:
            self._total = count
        if count < (_MANY if ended else self._next):
            return
        self._next = 2 * count
        ratio = _RATIOS.get(self._suffix)
        size: float = self.size
        if not self.streams:
            size = kept * ratio if ratio else count * _row_bytes(self._columns())
        about = f"about {count:,} branches, {size / 1e6:,.0f} MB in {self._path}"
        how = "writing {}; SIGTERM or Ctrl-C ends the file early" if ended else "{} so far"
        self._announce(how.format(about))

    def branches(self, task: int, branches: np.ndarray) -> bool:
        """See `Sink`."""
        writer = self._writer or self._open()
        if self.remarks:
            return False
        room, reason = self._room(writer)
        if len(branches) > room:
            branches = branches[:room]
            self.remarks.append(f"{self._path}: {reason}; the file holds what came before")
        writer.write(branches, task=task)
        self.count += len(branches)
        if self._total:
            self._progress(self.count, self._total)
        return not self.remarks

    @property
    def size(self) -> int:
        """Bytes in the file so far."""
        return self._writer.size if self._writer is not None else 0

    def blocks(
        self, task: int, walk: BlockWalk, words: np.ndarray, ways: WayTable | None = None
    ) -> bool:
        """See `BlockSink`; for .lbrt, whose edges need no branches in between."""
        writer = self._writer or self._open()
        if self.remarks:
            return False
        assert isinstance(writer, LbrtWriter)
        room = self._room(writer)[0]
        if room < (ways.branches_per_word if ways else BRANCHES_PER_WORD) * len(words):
            ran = ways.expanded(words) if ways else words
            if room < BRANCHES_PER_WORD * len(ran):  # the last rows, one by one
                return self.branches(task, walk.feed(ran))
        if self._number is None:
            self._number = _numbering(writer, ways)
        number, done = self._number, 0

        def steps(out: np.ndarray, last: int) -> tuple[int, int, np.ndarray, np.ndarray]:
            nonlocal done
            taken, count, last, where, branches = number(walk, words, done, out, last)
            done += taken
            return count, last, where, branches

        while done < len(words):
            before = done
            count = writer.write_steps(task, steps)
            self.count += count
            if self._total:  # the terminal is the program's until it has ended
                self._progress(self.count, self._total)
            if done == before and not count:
                raise ValueError(f"word {done}: no block has the number {words[done]}")
        return True

    def _room(self, writer: Writer | LbrtWriter) -> tuple[int, str]:
        """Rows that may follow, and what sets the limit.

        Rows that wait for their batch count as uncompressed on the disk; for the size of a
        compressed file, as twice the average of those before, or 3 bytes each at first.
        """
        waiting = self.count % _WAITING[self._suffix]
        written, most = self.count - waiting, self._request.most_bytes
        free = shutil.disk_usage(os.path.dirname(self._path) or ".").free * _FILL
        rows, reason = free / self._row, "the disk is full"
        if most:
            cost: float = self._row
            if self._suffix in _RATIOS:
                cost = 2 * writer.size / written if written else 3
            fit = (most * _FILL - writer.size) / cost
            if fit < rows:
                rows, reason = fit, f"--max-size of {most:,} bytes is reached"
        return max(int(rows) - waiting, 0), reason

    def _columns(self) -> tuple[str, ...]:
        columns: tuple[str, ...] = (
            "from", "to", "class", "instructions", "cpl_from", "cpl_to", "task",
        )  # fmt: skip
        if self._request.cycles:
            columns += ("cycles",)
        if self._request.mispredicts:
            columns += ("flags",)
        return columns

    def _metadata(self) -> Metadata:
        """What is known so far: an engine that streams finds more while it runs."""
        modules = tuple(m for found in list(self._modules.values()) for m in list(found))
        return Metadata(
            self._engine.name, modules, tuple(self._tasks.values()),
            describe(self._request, self._engine),
        )

    def _open(self) -> Writer | LbrtWriter:
        columns = self._columns()
        self._row = _row_bytes(columns)
        self._writer = trace_writer(self._path, self._metadata(), columns)
        return self._writer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        where: TracebackType | None,
    ) -> None:  # fmt: skip
        writer = self._writer or (self._open() if kind is None else None)
        if writer is not None:
            if isinstance(writer, LbrtWriter):
                writer.metadata = self._metadata()
            writer.__exit__(kind, error, where)
