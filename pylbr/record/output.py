"""Files that a recording makes: perf.data of samples, or the container of a full trace."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from pylbr.errors import TraceError
from pylbr.files.module import Module
from pylbr.perf.abi import AttrFlag, BranchSample, SampleType
from pylbr.perf.batch import SampleBatch
from pylbr.perf.data_writer import PerfDataWriter
from pylbr.perf.entries import perf_samples
from pylbr.perf.stacks import Comm, Event, Exit, Fork, Lost, Mmap, Record, StacksMetadata
from pylbr.record.constants import Counted
from pylbr.record.engine import Engine, Request
from pylbr.record.events import declared_event
from pylbr.trace.metadata import Metadata
from pylbr.trace.metadata import Task as TraceTask
from pylbr.trace.schema import column_dtype
from pylbr.trace.writer import BATCH_ROWS, GROUP_ROWS, Writer

__all__ = ["PerfDataOutput", "TraceOutput", "describe"]

_NS: Final = 1_000_000_000
#: Share of a disk's free space that the rows of a trace may take: digests and tables come on top.
_FILL: Final = 0.95
#: Branches that take seconds to write, of which the user is to hear.
_MANY: Final = 50_000_000
#: Size of a Parquet file beside that of the spool that it is made of: gzip 3.2, python3 3.9.
_PARQUET_RATIO: Final = 3.5


def describe(request: Request, engine: Engine) -> dict[str, str]:
    """Where the numbers come from, for the head of a file."""
    timed = request.cycles or request.counted is Counted.CYCLES
    return {
        "engine": engine.name, "command": " ".join(request.command),
        "cycles": f"model: {engine.cycles}" if timed else "none",
        "mispredicts": f"model: {request.mispredicts}" if request.mispredicts else "none",
    }  # fmt: skip


def _event(request: Request, filter_: BranchSample) -> Event:
    flags = AttrFlag.EXCLUDE_KERNEL | AttrFlag.EXCLUDE_HV | AttrFlag.INHERIT
    period = request.period
    if request.counted is Counted.TIME:
        flags |= AttrFlag.FREQ
        period = _NS // period
    kind = (SampleType.IP | SampleType.TID | SampleType.TIME | SampleType.CPU
            | SampleType.PERIOD | SampleType.BRANCH_STACK)
    return replace(
        declared_event(request.counted), period=period, sample_type=int(kind),
        branch_sample_type=int(filter_), flags=int(flags))


class PerfDataOutput:
    """Samples as perf.data; appears when the ``with`` ends, however the program did.

    Attributes
    ----------
    count : int
        Samples written.
    remarks : list of str
        That the disk was full, if it was: the file then holds what came before.
    """

    def __init__(
        self, path: str, request: Request, engine: Engine, filter_: BranchSample,
        arguments: Sequence[str],
    ) -> None:  # fmt: skip
        self._filter = int(filter_)
        metadata = StacksMetadata(
            events=(_event(request, filter_),), hostname=platform.node(),
            os_release=platform.release(), arch="x86_64", command_line=tuple(arguments),
            cpus_online=os.cpu_count() or 1, cpus_available=os.cpu_count() or 1,
            cpu_description="; ".join(f"{k}: {v}" for k, v in describe(request, engine).items()),
        )  # fmt: skip
        self._writer = PerfDataWriter(path, metadata)
        self._reserve = _Reserve(self._writer.directory)
        self.remarks: list[str] = []

    def record(self, record: Mmap | Comm | Fork | Exit | Lost) -> None:
        """See `Sink`."""
        self._write(record)

    def samples(self, batch: SampleBatch) -> None:
        """See `Sink`."""
        self._write(perf_samples(batch, self._filter))

    def expect(self, count: int, kept: int, ended: bool) -> None:
        """See `Sink`; a file of samples takes no branches."""

    def branches(self, task: int, branches: np.ndarray) -> bool:
        """See `Sink`; a file of samples takes none."""
        raise TypeError("a perf.data file holds samples")

    @property
    def count(self) -> int:
        return self._writer.samples

    def _write(self, record: Record) -> None:
        if self.remarks:
            return
        try:
            self._writer.write(record)
        except OSError as error:
            self._reserve.release()
            self._writer.cut()
            self.remarks.append(f"{error.strerror}; the file holds what came before")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        where: TracebackType | None,
    ) -> None:  # fmt: skip
        self._reserve.release()
        self._writer.__exit__(kind, error, where)


class _Reserve:
    """Disk space reserved for the end of a file: tables that make it valid."""

    _BYTES: Final = 1 << 18

    def __init__(self, directory: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115
        with contextlib.suppress(OSError):  # the first write will say so
            os.posix_fallocate(self._file.fileno(), 0, self._BYTES)

    def release(self) -> None:
        """Release the space."""
        self._file.close()


def _row_bytes(columns: Sequence[str]) -> int:
    return sum(column_dtype(name).itemsize for name in columns)


class TraceOutput:
    """All branches as a container; conditional branches that fell through are among them.

    Parameters
    ----------
    path : str
        Ends in ``.arrow`` or ``.parquet``.
    request : Request
    engine : Engine
    announce : callable, optional
        Takes a line for the user: how much is there to write, where that is much.

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
    ) -> None:  # fmt: skip
        if not path.endswith((".arrow", ".parquet")):
            raise TraceError(path, "a full trace needs a name in .arrow or .parquet")
        self._path, self._request, self._engine = path, request, engine
        self._modules: dict[int, list[Module]] = {}
        self._tasks: dict[int, TraceTask] = {}
        self._announce, self._next = announce, _MANY
        self._row = 0
        self._writer: Writer | None = None
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
        if count < (_MANY if ended else self._next):
            return
        self._next = 2 * count
        size = kept * _PARQUET_RATIO if self._parquet else count * _row_bytes(self._columns())
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
        return not self.remarks

    def _room(self, writer: Writer) -> tuple[int, str]:
        """Rows that may follow, and what sets the limit.

        Rows that wait for their batch count as uncompressed on the disk; for the size of a
        Parquet file, as twice the average of those before, or 3 bytes each at first.
        """
        waiting = self.count % (GROUP_ROWS if self._parquet else BATCH_ROWS)
        written, most = self.count - waiting, self._request.most_bytes
        free = shutil.disk_usage(os.path.dirname(self._path) or ".").free * _FILL
        rows, reason = free / self._row, "the disk is full"
        if most:
            cost: float = self._row
            if self._parquet:
                cost = 2 * writer.size / written if written else 3
            fit = (most * _FILL - writer.size) / cost
            if fit < rows:
                rows, reason = fit, f"--max-size of {most:,} bytes is reached"
        return max(int(rows) - waiting, 0), reason

    @property
    def _parquet(self) -> bool:
        return self._path.endswith(".parquet")

    def _columns(self) -> tuple[str, ...]:
        columns: tuple[str, ...] = (
            "from", "to", "class", "instructions", "cpl_from", "cpl_to", "task",
        )  # fmt: skip
        if self._request.cycles:
            columns += ("cycles",)
        if self._request.mispredicts:
            columns += ("flags",)
        return columns

    def _open(self) -> Writer:
        modules = tuple(m for found in self._modules.values() for m in found)
        metadata = Metadata(
            self._engine.name, modules, tuple(self._tasks.values()),
            describe(self._request, self._engine),
        )
        columns = self._columns()
        self._row = _row_bytes(columns)
        self._writer = Writer(self._path, metadata, columns)
        return self._writer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        where: TracebackType | None,
    ) -> None:  # fmt: skip
        writer = self._writer or (self._open() if kind is None else None)
        if writer is not None:
            writer.__exit__(kind, error, where)
