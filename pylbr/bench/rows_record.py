"""Rows of the recorder: programs at full speed and under QEMU."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from pylbr.bench.child import first_of, tool, used
from pylbr.bench.contest import Contender, Contest, Row, Setting
from pylbr.bench.programs import commands, record
from pylbr.errors import UnsupportedFeature
from pylbr.perf.batch import SampleBatch
from pylbr.record.engine import Request, engine
from pylbr.record.native.engine import usable
from pylbr.record.toolchain import find_qemu
from pylbr.record.trace_output import TraceOutput
from pylbr.record.wire_numbers import Counted

__all__ = ["ROWS", "Counting"]


class Counting:
    """A sink that counts."""

    def __init__(self) -> None:
        self.count = 0

    def record(self, record: object) -> None:
        """Of a task or a mapping: not counted."""

    def samples(self, batch: SampleBatch) -> None:
        """Count them."""
        self.count += len(batch)

    def expect(self, count: int, kept: int, ended: bool) -> None:
        """Nothing is prepared."""

    def branches(self, task: int, branches: np.ndarray[Any, Any]) -> bool:
        """Count those that were taken."""
        self.count += int((branches["class"] != 6).sum())
        return True


class Discarding:
    """Takes the blocks of a full recording, and drops them."""

    streams, size, count = True, 0, 0

    def record(self, record: object) -> None:
        """Drop it."""

    def expect(self, count: int, kept: int, ended: bool) -> None:
        """Nothing is prepared."""

    def blocks(self, task: int, walk: object, words: object) -> bool:
        """Drop them."""
        return True


def _program(setting: Setting, scale: int) -> list[str]:
    found = commands(setting.directory, scale)
    for name in ("python3", "gzip", "sqlite3"):
        if shutil.which(found[name][0]):
            return found[name]
    raise UnsupportedFeature("no python3, gzip or sqlite3 in the system")


def _alone(command: list[str]) -> Callable[[], float]:
    def run() -> float:
        before = used()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return used() - before
    return run


def native(setting: Setting) -> Contest:
    """CPU time of a program at 1,000 stacks per second, beside the program alone."""
    usable()
    command = _program(setting, 6 if setting.quick else 16)
    request = Request(command, counted=Counted.TIME, period=1_000_000)

    def ours() -> float:
        before = used()
        record(request, Counting(), "native")
        return used() - before

    return Contest("runs", Contender(ours), {
        "the program alone": Contender(_alone(command)),
        "valgrind --tool=none": Contender(first_of(
            lambda: tool("valgrind", "valgrind"),
            lambda path: _alone([path, "--tool=none", *command])), once=True)})


def qemu(setting: Setting) -> Contest:
    """CPU time of a program whose every branch is recorded, beside plain QEMU."""
    command, plain = _program(setting, 2 if setting.quick else 8), find_qemu()
    request = Request(command, full=True)

    def ours() -> float:
        before = used()
        record(request, Discarding())  # type: ignore[arg-type]
        return used() - before

    return Contest("runs", Contender(ours), {
        "QEMU alone": Contender(_alone([plain, *command])),
        "valgrind --tool=lackey": Contender(
            "only with --full" if setting.quick else first_of(
                lambda: tool("valgrind", "valgrind"),
                lambda path: _alone([path, "--tool=lackey", *command])), once=True)})


def trace_file(setting: Setting) -> Contest:
    """Every branch into a .lbrt, from start to end, beside the same without output."""
    command = _program(setting, 1 if setting.quick else 8)
    request = Request(command, full=True)
    find_qemu()

    def ours() -> float:
        begin = time.perf_counter()
        with TraceOutput(os.fspath(setting.directory / "x.lbrt"), request, engine("qemu")) as out:
            record(request, out)
        return time.perf_counter() - begin

    def dropped() -> float:
        begin = time.perf_counter()
        record(request, Discarding())  # type: ignore[arg-type]
        return time.perf_counter() - begin

    return Contest("runs", Contender(ours), {"without output": Contender(dropped)})


ROWS: Final = (
    Row("record.native", "a program at 1,000 stacks per second, CPU time", native),
    Row("record.qemu", "every branch of a program under QEMU, CPU time", qemu),
    Row("record.trace", "every branch into .lbrt, elapsed", trace_file),
)
