"""The engine on QEMU user mode: exact, and followed through threads, fork and exec."""

from __future__ import annotations

import time
from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Final, cast

from lbrcore import INFO_ALL, LbrConfig, LbrState
from pylbr.arch.bits import INFO_CYC_CNT, INFO_CYC_CNT_VALID, INFO_MISPRED
from pylbr.errors import CommandError
from pylbr.perf.batch import SampleBatch
from pylbr.record._drain import Drain
from pylbr.record.engine import Outcome, Request, Sink
from pylbr.record.filters import accepted_classes
from pylbr.record.process import Process, exit_code, is_gone
from pylbr.record.program import resolve
from pylbr.record.targets import TARGETS, X86_64, Target, facility
from pylbr.record.tasks import Task, Tasks
from pylbr.record.toolchain import tools
from pylbr.record.wire import Wire, WireOptions
from pylbr.record.wire_numbers import Counted

if TYPE_CHECKING:
    from pylbr.record.spool import Spool
    from pylbr.record.streamed import BlockSink, Streamed
    from pylbr.sister.facility import BranchFacility

__all__ = ["QemuEngine"]

_POLL_SECONDS: Final = 0.001
_IDLE_SECONDS: Final = 0.1
_STARTED: Final = itemgetter(5)


class QemuEngine:
    """Runs programs under QEMU's user mode with the plugin of this package: x86-64, and samples of
    AArch64 and RISC-V."""

    name = "QEMU user mode"
    cycles = "a price per instruction class"

    def run(self, request: Request, sink: Sink, idle: Callable[[], None]) -> Outcome:
        """See `Engine.run`."""
        program = resolve(request.command, tuple(TARGETS.values()))
        _check_target(request, program.target)
        needed = tools(program.target)
        options = WireOptions(
            full=request.full, counted=request.counted, period=request.period,
            accept=accepted_classes(request.control), depth=request.depth,
        )  # fmt: skip
        with Wire(options) as wire:
            run = _Run(wire, request, sink, program.target)
            try:
                with Process(needed, program, wire.path) as process:
                    run.follow(process, idle)
                wire.stop()
                return run.finish(process)
            finally:
                wire.stop()
                run.close()


class _Run:
    """One run of a program: from the shared memory to the sink."""

    def __init__(self, wire: Wire, request: Request, sink: Sink, target: Target) -> None:
        self._wire, self._sink, self._full = wire, sink, request.full
        self._request = request
        #: A model of cycles fills in the fields of timed LBR, and only then are they valid.
        self._info = INFO_ALL & ~INFO_MISPRED
        if not request.cycles:
            self._info &= ~(INFO_CYC_CNT | INFO_CYC_CNT_VALID)
        state: LbrState | BranchFacility
        if target is X86_64:
            state = lbr = LbrState(LbrConfig(info_mask=self._info))
            lbr.depth, lbr.ctl = request.depth, request.control
        else:
            state = facility(target, request.control, request.depth)
        self._drain = Drain(wire.memory, state, request.cycles)
        self._tasks = Tasks()
        self._spool = _spool(wire, request, sink) if request.full else None
        self._outcome = Outcome()
        self._started = time.monotonic()

    def follow(self, process: Process, idle: Callable[[], None]) -> None:
        """Read along until the program has ended."""
        next_idle = next_check = time.monotonic() + _IDLE_SECONDS
        while process.running():
            busy = self._sweep()
            now = time.monotonic()
            if now >= next_check:
                next_check = now + _IDLE_SECONDS
                self._collect_dead()
            if now >= next_idle:
                next_idle = now + _IDLE_SECONDS
                self._flush()
                if self._spool is not None:
                    self._sink.expect(self._spool.words, self._spool.size, False)
                idle()
            if not busy:
                process.wait(_POLL_SECONDS)
        self._outcome.seconds = time.monotonic() - self._started

    def close(self) -> None:
        """Drop what is kept on disk."""
        if self._spool is not None:
            self._spool.close()

    def finish(self, process: Process) -> Outcome:
        """Read what is left, close the books."""
        self._sweep()
        for task in self._tasks.live():
            self._end(task)
        self._flush()
        if self._spool is not None:
            gaps = self._spool.finish(self._wire, self._request, self._sink)
            self._outcome.gaps += gaps
            self._outcome.remarks += self._spool.remarks
        self._outcome.gaps += self._drain.gaps
        self._outcome.remarks += process.remarks + self._tasks.remarks
        self._outcome.exit_code = exit_code(process.status or 0)
        for count, what in (
            (self._wire.lost_threads, "threads or blocks did not fit and are missing"),
            (self._drain.damaged, "messages were damaged and are missing"),
        ):
            if count:
                self._outcome.remarks.append(f"{count} {what}")
        return self._outcome

    def _sweep(self) -> bool:
        """Read every slot once; whether there was anything."""
        busy = False
        # In the order of their starts: an execve's new slot comes after the one it replaces.
        for slot, done, pid, tid, parent, started in sorted(self._drain.slots(), key=_STARTED):
            task, said = self._tasks.at(slot, pid, tid, parent, started)
            for record in said:
                self._sink.record(record)
            busy |= self._messages(task)
            busy |= self._chunks(task)
            if done:
                self._end(task)
        return busy

    def _messages(self, task: Task) -> bool:
        any_message, complete = False, False
        while not complete:
            messages, complete = self._drain.poll(task.slot, task.shift)
            if not complete:
                self._flush()
            for kind, when, body in messages:
                any_message = True
                record = self._tasks.message(task, kind, when, body)
                if record is None:
                    continue
                if getattr(record, "exec_", False):
                    for other in self._tasks.others(task):
                        self._end(other, replaced_at=record.time)
                self._sink.record(record)
        return any_message

    def _chunks(self, task: Task, unfinished: bool = False) -> bool:
        any_chunk = False
        while self._spool is not None and (unfinished or self._spool.ready()):
            words = self._drain.chunk(task.slot, unfinished)
            if words is None:
                break
            any_chunk = True
            if not self._spool.append(task, words):
                self._wire.stop()
        return any_chunk

    def _collect_dead(self) -> None:
        """End the tasks of processes that were killed."""
        gone: dict[int, bool] = {}
        for task in self._tasks.live():
            if gone.setdefault(task.pid, is_gone(task.pid)):
                self._end(task)

    def _end(self, task: Task, replaced_at: int | None = None) -> None:
        self._messages(task)
        self._chunks(task, unfinished=True)
        when = time.monotonic_ns() if replaced_at is None else replaced_at
        self._sink.record(self._tasks.end(task, when, replaced_at is not None))
        self._wire.forget(task.slot)
        self._drain.free(task.slot)

    def _flush(self) -> None:
        columns = self._drain.take()
        if len(columns["ip"]) and not self._full:  # the program may forge samples, too
            self._sink.samples(SampleBatch.build(**columns, info_mask=self._info))


def _check_target(request: Request, target: Target) -> None:
    """Refuse what is there for x86-64 alone."""
    if target is X86_64:
        return
    for asked, word in (
        (request.full, "--full"), (request.cycles, "--cycles"),
        (request.counted is Counted.CYCLES, "-e cycles"), (request.mispredicts, "--mispredicts"),
    ):  # fmt: skip
        if asked:
            raise CommandError(f"{word}: only of x86-64 programs; of {target.title} ones there are "
                               "samples: -c N or -F HZ")
    if request.depth not in target.depths:
        words = ", ".join(map(str, target.depths))
        raise CommandError(f"--depth {request.depth}: {target.title} has {words}")


def _spool(wire: Wire, request: Request, sink: Sink) -> Spool | Streamed:
    """What takes the blocks of a full recording."""
    # Samples do without zstandard.
    if getattr(sink, "streams", False):
        from pylbr.record.streamed import Streamed

        return Streamed(wire, request, cast("BlockSink", sink))
    from pylbr.record.spool import Spool

    return Spool(request.most_bytes)
