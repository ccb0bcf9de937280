"""The engine `native`: the program runs as it is, and some stretches of it are recorded."""

from __future__ import annotations

import os
import platform
import select
import shutil
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from lbrcore import ENTRY_DTYPE
from pylbr.arch.bits import INFO_BR_TYPE
from pylbr.errors import CommandError, UnsupportedFeature
from pylbr.perf.batch import SampleBatch
from pylbr.perf.stacks import Lost
from pylbr.record.engine import Outcome, Request, Sink
from pylbr.record.filters import accepted_classes
from pylbr.record.native.blob import END_NAMES, SKIP_NAMES, blob
from pylbr.record.native.bursts import GAP, TICK_SECONDS, Pace
from pylbr.record.native.clock import Clock
from pylbr.record.native.image import RING, Limits
from pylbr.record.native.launched import Launched
from pylbr.record.native.ptrace import Tracee, TraceeGone
from pylbr.record.native.session import Session, Stacks
from pylbr.record.native.target import Attached, check_target, refused
from pylbr.record.native.ticks import make_ticks
from pylbr.record.process import exit_code
from pylbr.record.program import resolve
from pylbr.record.toolchain import launcher
from pylbr.record.wire_numbers import Counted

__all__ = ["NativeEngine", "usable"]

#: Shortest and longest time between two readings of the ring, and the part of it that fills.
_POLL_SECONDS: Final = 0.01, 0.05
_FILLED: Final = 0.25
_IDLE_SECONDS: Final = 0.1
_LOADER_SECONDS: Final = 60.0
_BLOCKS: Final = 4096
_WINDOW_SECONDS: Final = 0.001
_TYPE_SHIFT: Final = 56
_SHORTEST: Final = 20_000
_REST_MAX: Final = 1 << 24
_SECOND: Final = 1_000_000_000


class NativeEngine:
    """Runs x86-64 programs natively; each tick of a thread's CPU time makes a stack."""

    name = "native"
    cycles = "none"

    def run(self, request: Request, sink: Sink, idle: Callable[[], None]) -> Outcome:
        """See `Engine.run`."""
        if request.full:
            from pylbr.record.native.full.engine import record_full  # samples do without it

            return record_full(request, sink, idle)
        _check(request)
        usable()
        if request.pid:
            return self._join(request, sink, idle)
        resolve(request.command)
        path = request.command[0]
        path = path if "/" in path else shutil.which(path) or path
        run = _Run(request, sink)
        try:
            with Launched(launcher(), path, request.command) as process:
                run.start(process)
                run.follow(process, idle)
            return run.finish(process)
        finally:
            run.close()

    @staticmethod
    def _join(request: Request, sink: Sink, idle: Callable[[], None]) -> Outcome:
        """Record a process that runs already."""
        check_target(request.pid)
        run = _Run(request, sink)
        try:
            with Attached(request.pid, request.seconds) as process:
                run.join(request)
                run.follow(process, idle)
                return run.finish(process)
        except TraceeGone as error:
            raise CommandError(f"process {request.pid}: has ended") from error
        finally:
            run.close()


def usable() -> str:
    """Check that this machine can record natively.

    Returns
    -------
    str
        Why ticks are a timer's; empty: they are perf's.

    Raises
    ------
    UnsupportedFeature
        It cannot; the message gives the reason.
    """
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        raise UnsupportedFeature("the native engine needs Linux on x86-64")
    ticks, why = make_ticks()
    ticks.close()
    blob()
    launcher()
    return why


def _rest(overhead: float) -> int:
    """`Limits.rest` for windows to take at most so many percent of a thread's time."""
    return min(int(256 * (100 / overhead - 1)), _REST_MAX) if overhead < 100 else 0


def _pause(period: int) -> float:
    """Seconds between readings of the ring: each wakes pylbr, which takes CPU time, too."""
    shortest, longest = _POLL_SECONDS
    filled = RING * _FILLED * period / _SECOND / (os.cpu_count() or 1)
    return min(max(filled, shortest), longest)


def _check(request: Request) -> None:
    if request.counted is not Counted.TIME:
        raise CommandError("-c, -e: the native engine samples by time: -F HZ, or --engine qemu")
    if request.period < _SHORTEST:
        raise CommandError("-F: the native engine takes at most 50,000 stacks per second")
    if request.cycles:
        raise CommandError("--cycles: the native engine has no model of cycles; use --engine qemu")


class _Run:
    """One run of a program: from its memory to the sink."""

    def __init__(self, request: Request, sink: Sink) -> None:
        self._clock = Clock()
        rate = self._clock.rate
        limits = Limits(
            depth=request.depth, accept=accepted_classes(request.control), blocks=_BLOCKS,
            cycles=int(rate * _WINDOW_SECONDS), rest=_rest(request.overhead),
            tick_cost=int(rate * TICK_SECONDS), gap=GAP,
        )  # fmt: skip
        self._request, self._sink = request, sink
        self._ticks, self._why = make_ticks()
        pace = Pace(request, _SECOND // self._ticks.most)
        self._session = Session(blob(), limits, self._ticks, pace, sink)
        self._pause = _pause(request.period) if self._ticks.exact else _POLL_SECONDS[0]
        self._outcome = Outcome()
        self._stacks = 0
        self._started = time.monotonic()

    def start(self, process: Launched) -> None:
        """Bring the program to its first instruction, the recorder in it."""
        pid = process.wait_for_pid()
        if pid is None:
            return
        try:
            self._session.watch(pid)
            with Tracee(pid) as tracee:
                process.open_gate()
                if tracee.run_to_exec():
                    tracee.run_to(tracee.entry, _LOADER_SECONDS)
                    self._session.enter(tracee)
        except TraceeGone:
            pass
        except OSError as error:
            raise UnsupportedFeature(
                f"the native engine cannot work: {error.strerror}; --engine qemu needs no ptrace"
            ) from error

    def join(self, request: Request) -> None:
        """Put the recorder into a process that runs already."""
        try:
            self._session.join(request.pid, request.tid)
        except PermissionError as error:
            raise refused(request.pid) from error
        except OSError as error:
            raise CommandError(
                f"process {request.pid}: cannot be recorded: {error.strerror}"
            ) from error

    def follow(self, process: Launched | Attached, idle: Callable[[], None]) -> None:
        """Read along until the program has ended."""
        poll = select.poll()
        for fd in (*self._session.descriptors, process.descriptor):
            poll.register(fd, select.POLLIN)
        next_idle = time.monotonic() + _IDLE_SECONDS
        while process.running():
            poll.poll(self._pause * 1000)
            self._sweep()
            now = time.monotonic()
            if now >= next_idle:
                next_idle = now + _IDLE_SECONDS
                self._clock.update()
                self._session.keep_pace()
                idle()
        self._outcome.seconds = time.monotonic() - self._started

    def finish(self, process: Launched | Attached) -> Outcome:
        """Read what is left, close the books."""
        self._session.stop()
        self._clock.update()
        self._sweep()
        self._session.leave()
        self._outcome.remarks += process.remarks + self._session.remarks + self._counts()
        self._outcome.exit_code = exit_code(process.status or 0)
        if self._why:
            self._outcome.remarks.append(
                f"{self._why}: stacks by a timer, at most {self._ticks.most:,} per second, "
                "weighed by the CPU time of their threads"
            )
        elif self._session.pace.each > self._request.period:
            self._outcome.remarks.append(
                f"at the end a stack per {self._session.pace.each / 1e6:.3g} ms, to cost at "
                f"most {self._request.overhead:g} % of the time (--max-overhead)"
            )
        if not self._stacks:
            self._outcome.nothing = (
                "no tick found the program in user mode; it takes one per "
                f"{self._request.period / 1e6:g} ms of CPU time"
            )
        return self._outcome

    def close(self) -> None:
        self._session.close()

    def _sweep(self) -> None:
        for stacks in self._session.follow():
            self._stacks += len(stacks[0])
            self._sink.samples(self._batch(stacks))

    def _batch(self, stacks: Stacks) -> SampleBatch:
        records, pid, tid, weights = stacks
        depth = self._request.depth
        # Oldest first there, newest first here.
        place = records["count"].astype(np.intp)[:, None] - 1 - np.arange(depth)
        filled, place = place >= 0, np.maximum(place, 0)
        entries = np.zeros((len(records), depth), ENTRY_DTYPE)
        classes = np.where(filled, np.take_along_axis(records["classes"], place, 1), 0)
        for name in ("from", "to"):
            entries[name] = np.where(filled, np.take_along_axis(records[name], place, 1), 0)
        entries["info"] = classes.astype(np.uint64) << np.uint64(_TYPE_SHIFT)
        return SampleBatch.build(
            ip=records["ip"], entries=entries, nr=records["count"].astype(np.uint32),
            classes=classes.astype(np.uint8), pid=pid, tid=tid, cpu=records["cpu"],
            time=self._clock.nanoseconds(records["tsc"]),
            period=weights,
            info_mask=INFO_BR_TYPE,
        )  # fmt: skip

    def _counts(self) -> list[str]:
        """What is missing, and why."""
        total = self._session.total
        ended, skipped = total("ended"), total("skipped")
        result = []
        ticks, left_out = int(total("ticks").sum()), int(total("left_out").sum())
        lost = int(skipped.sum()) + int(total("full").sum()) + left_out
        if lost:
            self._sink.record(Lost(lost, time.monotonic_ns()))
        if int(ended.sum()) > ticks:
            result.append(
                f"{int(ended.sum()):,} windows of {ticks:,} ticks: those of one tick follow each "
                "other closely, and tell less than as many ticks would"
            )
        cut = _listed(ended[1:], END_NAMES[1:])
        if cut:
            result.append(f"{int(ended.sum()):,} windows, of which cut: {cut}")
        if skipped.any():
            result.append(f"ticks without a window: {_listed(skipped, SKIP_NAMES)}")
        for count, what in (
            (left_out, "windows left out: their tick ended before them"),
            (int(total("full").sum()), "stacks found no room"),
            (int(total("damaged").sum()), "stacks were damaged"),
            (self._session.unreached, "processes ended before they were reached"),
        ):
            if count:
                result.append(f"{count:,} {what}")
        return result


def _listed(counts: np.ndarray, names: tuple[str, ...]) -> str:
    return ", ".join(f"{n:,} {name}" for n, name in zip(counts, names, strict=False) if n)
