"""The file of samples that a recording makes: perf.data."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from pylbr.perf.abi import AttrFlag, BranchSample, SampleType
from pylbr.perf.batch import SampleBatch
from pylbr.perf.data_writer import PerfDataWriter
from pylbr.perf.entries import perf_samples
from pylbr.perf.stacks import Comm, Event, Exit, Fork, Lost, Mmap, Record, StacksMetadata
from pylbr.record.engine import Engine, Request
from pylbr.record.events import declared_event
from pylbr.record.native.bursts import described
from pylbr.record.wire_numbers import Counted

__all__ = ["PerfDataOutput", "describe"]

_NS: Final = 1_000_000_000


def describe(request: Request, engine: Engine) -> dict[str, str]:
    """Where the numbers come from, for the head of a file."""
    timed = request.cycles or request.counted is Counted.CYCLES
    windows = {"windows": described(request)} if engine.name == "native" else {}
    return {
        "engine": engine.name, "command": " ".join(request.command),
        "cycles": f"model: {engine.cycles}" if timed else "none",
        "mispredicts": f"model: {request.mispredicts}" if request.mispredicts else "none",
        **windows,
    }  # fmt: skip


def _event(request: Request, filter_: BranchSample) -> Event:
    flags = AttrFlag.EXCLUDE_HV | AttrFlag.INHERIT
    if not request.privileges & 1:
        flags |= AttrFlag.EXCLUDE_USER
    if not request.privileges & 2:
        flags |= AttrFlag.EXCLUDE_KERNEL
    period = request.period
    if request.counted is Counted.TIME:
        flags |= AttrFlag.FREQ
        period = _NS // period
    kind = (SampleType.IP | SampleType.TID | SampleType.TIME | SampleType.CPU
            | SampleType.PERIOD | SampleType.BRANCH_STACK)
    return replace(
        declared_event(request.counted, request.privileges), period=period, sample_type=int(kind),
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
            os_release=platform.release(), arch=request.target.name, command_line=tuple(arguments),
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
        with contextlib.suppress(OSError):  # the first write will report it
            os.posix_fallocate(self._file.fileno(), 0, self._BYTES)

    def release(self) -> None:
        """Release the space."""
        self._file.close()
