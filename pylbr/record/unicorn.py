"""The engine on Unicorn: bare code and single functions, without an operating system."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

import numpy as np
import numpy.typing as npt

from lbrcore import INFO_ALL, BranchClass, LbrConfig, LbrState
from lbrcore.events import ALL_CLASSES, CountedEvent, Unit
from lbrcore.predictor import Predictor
from lbrcore.replay import Replay, SampleBuffer
from pylbr.arch.bits import INFO_CYC_CNT, INFO_CYC_CNT_VALID, INFO_MISPRED
from pylbr.errors import CommandError
from pylbr.extras import needed
from pylbr.perf.batch import SampleBatch
from pylbr.perf.stacks import Comm
from pylbr.record.bare import PAGE, Code, load
from pylbr.record.engine import Outcome, Request, Sink
from pylbr.record.tasks import mapping
from pylbr.record.wire_numbers import Counted

__all__ = ["UnicornEngine"]

_IDLE_SECONDS: Final = 0.1
_SAMPLES: Final = 1024
_USER: Final = 1 << 3
_COMM_LENGTH: Final = 15  # TASK_COMM_LEN without the NUL
_SIGNALS: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)


class UnicornEngine:
    """Runs static programs that need no operating system, functions (``FILE:FUNCTION`` and
    arguments) and raw code."""

    name = "Unicorn"
    cycles = "one cycle per instruction"

    def run(self, request: Request, sink: Sink, idle: Callable[[], None]) -> Outcome:
        """See `Engine.run`."""
        needed("unicorn")
        if request.counted is Counted.TIME:
            raise CommandError("-F: engine unicorn has no clock of the program's; use -c")
        from pylbr.record.bare_machine import BareMachine

        code = load(request.command[0])
        _announce(code, sink)
        stream = _Stream(request, sink, idle)  # its first sample is later than the mappings
        machine = BareMachine(code, request.command[1:], stream.take)

        def stop(number: int, frame: FrameType | None) -> None:
            machine.stop(number)

        before = {number: signal.signal(number, stop) for number in _SIGNALS}
        started = time.monotonic()
        try:
            machine.run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return Outcome(machine.exit_code, 0, time.monotonic() - started, machine.remarks)


def _announce(code: Code, sink: Sink) -> None:
    pid, path, now = os.getpid(), os.path.realpath(code.path), time.monotonic_ns()
    sink.record(Comm(pid, pid, os.path.basename(code.path)[:_COMM_LENGTH], True, now))
    for segment in code.segments:
        if segment.flags & 1:
            skew = segment.start % PAGE
            size = -(-(segment.size + skew) // PAGE) * PAGE
            sink.record(mapping(pid, pid, segment.start - skew, size, segment.offset - skew, path,
                                now))


class _Stream:
    """From branches to the sink: all of them, or through counters and a facility."""

    def __init__(self, request: Request, sink: Sink, idle: Callable[[], None]) -> None:
        self._sink, self._idle, self._request = sink, idle, request
        self._pid = os.getpid()
        self._predictor = Predictor(request.mispredicts) if request.mispredicts else None
        self._told = time.monotonic_ns()
        self._next_idle = time.monotonic() + _IDLE_SECONDS
        self._info = INFO_ALL & ~INFO_MISPRED
        if not request.cycles:
            self._info &= ~(INFO_CYC_CNT | INFO_CYC_CNT_VALID)
        state = LbrState(LbrConfig(info_mask=self._info))
        state.depth, state.ctl = request.depth, request.control
        self._replay = Replay(state, [_event(request)])

    def take(self, branches: npt.NDArray[np.void]) -> None:
        """The next branches."""
        if self._request.full:
            if self._predictor is not None:
                branches = branches.copy()
                self._predictor.mark(branches)
            self._sink.branches(self._pid, branches)  # what it does not take is not written
        else:
            self._sample(branches)
        if time.monotonic() >= self._next_idle:
            self._idle()
            self._next_idle = time.monotonic() + _IDLE_SECONDS

    def _sample(self, branches: npt.NDArray[np.void]) -> None:
        first, cpu = 0, os.sched_getcpu() if hasattr(os, "sched_getcpu") else 0
        while first < len(branches):
            out = SampleBuffer(_SAMPLES, self._request.depth)
            first = self._replay.run(branches, out, first)
            n = out.count
            if not n:
                continue
            # No clock runs in the emulator: samples share the time that went by since the last.
            now = time.monotonic_ns()
            when = np.linspace(self._told, now, n + 1)[1:].astype("u8")
            self._told = now
            self._sink.samples(SampleBatch.build(
                branches["to"][out.row[:n]], out.entries[:n], nr=out.nr[:n], time=when,
                pid=self._pid, tid=self._pid, cpu=cpu, period=out.period[:n],
                info_mask=self._info))


def _event(request: Request) -> CountedEvent:
    classes, unit = ALL_CLASSES, Unit.BRANCHES
    if request.counted is Counted.TAKEN:
        classes &= ~(1 << BranchClass.NOT_TAKEN)
    elif request.counted is Counted.INSTRUCTIONS:
        unit = Unit.INSTRUCTIONS
    elif request.counted is Counted.CYCLES:
        unit = Unit.CYCLES
    return CountedEvent(request.period, classes=classes, cpls=_USER, unit=unit)
