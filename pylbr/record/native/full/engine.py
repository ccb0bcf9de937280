"""Every branch of a program that runs natively, in copies of its code."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from pylbr.errors import CommandError, UnsupportedFeature
from pylbr.perf.stacks import Comm, Mmap
from pylbr.record.engine import Outcome, Request, Sink
from pylbr.record.native.full.enter import Entered, code_of, enter
from pylbr.record.native.full.memory import Memory, full_blob
from pylbr.record.native.launched import Launched
from pylbr.record.native.ptrace import Tracee, TraceeGone
from pylbr.record.process import exit_code
from pylbr.record.program import resolve
from pylbr.record.tasks import Task, mapping
from pylbr.record.toolchain import launcher
from pylbr.record.wire import DAMAGED

if TYPE_CHECKING:
    import numpy as np

    from pylbr.record.spool import Spool
    from pylbr.record.streamed import BlockSink, Streamed

__all__ = ["record_full"]

_POLL_SECONDS: Final = 0.0005
_IDLE_SECONDS: Final = 0.1
#: Words taken at a time, 256 KiB.
_CHUNK: Final = 1 << 16
#: ``enum stop`` of full.h.
_ASKED, _NOWHERE = 1, 9
_STOPS: Final = (
    "", "", "it starts a thread", "its code can be written while it runs",
    "it has a restartable sequence", "it has an instruction that is not copied",
    "its code is too far apart", "it makes a system call that would shut the recorder out",
    "it has more code than fits", "it has gone where no code is", "a trap was not understood",
)  # fmt: skip


def record_full(request: Request, sink: Sink, idle: Callable[[], None]) -> Outcome:
    """See `Engine.run`; `request.full`.

    Raises
    ------
    CommandError
    UnsupportedFeature
    """
    if request.cycles:
        raise CommandError("--cycles: the native engine has no model of cycles; use --engine qemu")
    full_blob()
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


class _Run:
    """One run of a program: from its memory to the sink."""

    def __init__(self, request: Request, sink: Sink) -> None:
        self._request, self._sink = request, sink
        self._streams = bool(getattr(sink, "streams", False))
        self._entered: Entered | None = None
        self._spool: Spool | Streamed | None = None
        self._task: Task | None = None
        self._known: set[tuple[int, int, int, str]] = set()
        self._outcome = Outcome()
        self._over = False
        self._started = time.monotonic()

    def start(self, process: Launched) -> None:
        """Bring the program to its first instruction, and the recorder into it."""
        pid = process.wait_for_pid()
        if pid is None:
            return
        try:
            with Tracee(pid) as tracee:
                process.open_gate()
                if tracee.run_to_exec():
                    before = tracee.swap_mask((1 << 64) - 1)
                    self._entered = entered = enter(tracee, full_blob())
                    tracee.swap_mask(before)
                    self._spool = _spool(entered.memory, self._request, self._sink)
                    self._task = Task(0, 0, pid, pid, 0, time.monotonic_ns(), 0)
                    self._named(pid)
                    self._answer()
        except TraceeGone:
            pass
        except OSError as error:
            raise UnsupportedFeature(
                f"the native engine cannot work: {error.strerror}; --engine qemu records this"
            ) from error

    def _named(self, pid: int) -> None:
        name = Path(f"/proc/{pid}/comm").read_text(errors="surrogateescape").rstrip("\n")
        self._sink.record(Comm(pid, pid, name, True, time.monotonic_ns()))

    def _answer(self) -> None:
        """Tell the blob what is executable, and the sink what is new."""
        entered, task = self._entered, self._task
        assert entered and task
        code, ranges = code_of(task.pid, entered.own)
        for m in code:
            key = m.start, m.end, m.offset, m.path
            if key not in self._known:
                self._known.add(key)
                self._sink.record(self._mapped(*key))
        entered.memory.publish(ranges)

    def _mapped(self, start: int, end: int, offset: int, path: str) -> Mmap:
        pid, now = self._task.pid if self._task else 0, time.monotonic_ns()
        return mapping(pid, pid, start, end - start, offset, path or "//anon", now)

    def follow(self, process: Launched, idle: Callable[[], None]) -> None:
        """Read along until the program has ended."""
        next_idle = time.monotonic() + _IDLE_SECONDS
        while process.running():
            busy = self._sweep()
            now = time.monotonic()
            if now >= next_idle:
                next_idle = now + _IDLE_SECONDS
                if self._spool is not None:
                    self._sink.expect(self._spool.words, self._spool.size, False)
                idle()
            if not busy:
                process.wait(_POLL_SECONDS)
        self._outcome.seconds = time.monotonic() - self._started

    def _sweep(self) -> bool:
        """Answer, and take a chunk; whether there was anything."""
        if self._entered is None or self._spool is None:
            return False
        memory = self._entered.memory
        if memory["asked"] != memory["answered"]:
            self._answer()
        if not self._spool.ready():
            return False
        return self._append(memory.take)

    def _append(self, take: Callable[[int], np.ndarray]) -> bool:
        """Pass on what there is; whether there was anything."""
        assert self._spool is not None and self._task is not None and self._entered is not None
        try:
            words = take(_CHUNK)
            if len(words) and not self._over and not self._taken(words):
                self._end()
        except ValueError:
            self._outcome.remarks += [] if self._over else [DAMAGED]
            self._end()
            return False
        return len(words) > 0

    def _taken(self, words: np.ndarray) -> bool:
        """Pass words on; the spool takes numbers of blocks, the encoder those of ways."""
        assert self._spool is not None and self._task is not None and self._entered is not None
        if not self._streams:
            words = self._entered.memory.expanded(words)
        return self._spool.append(self._task, words)

    def _end(self) -> None:
        """Take no more."""
        assert self._entered is not None
        self._over = True
        self._entered.memory.stop()

    def finish(self, process: Launched) -> Outcome:
        """Take what is left, close the books."""
        outcome = self._outcome
        outcome.exit_code = exit_code(process.status or 0)
        outcome.remarks += process.remarks
        if self._entered is None or self._spool is None:
            return outcome
        memory = self._entered.memory
        while self._append(memory.take):
            pass
        self._append(memory.rest)
        outcome.gaps += self._spool.finish(memory, self._request, self._sink)
        outcome.remarks += self._spool.remarks + _remarks(memory)
        return outcome

    def close(self) -> None:
        """Give everything back."""
        if self._spool is not None:
            self._spool.close()
        if self._entered is not None:
            self._entered.memory.close()


def _remarks(memory: Memory) -> list[str]:
    """What the file does not hold."""
    result = []
    why = memory["stopped"]
    if why not in (0, _ASKED):
        reason = _STOPS[why] if why < len(_STOPS) else "?"
        result.append(
            f"the file ends where {reason} ({memory['stopped_at']:#x}): the native engine does not "
            "follow that; --engine qemu records all"
        )
    if memory["forks"]:
        result.append(f"{memory['forks']} processes that it has forked are not in the file: "
                      "--engine qemu records them, too")
    if memory["executed"]:
        result.append("the file ends where it executes another program: record that one, or use "
                      "--engine qemu")
    return result


def _spool(memory: Memory, request: Request, sink: Sink) -> Spool | Streamed:
    """What takes the blocks."""
    if getattr(sink, "streams", False):
        from pylbr.record.streamed import Streamed

        return Streamed(memory, request, cast("BlockSink", sink), memory)
    from pylbr.record.spool import Spool

    return Spool(request.most_bytes)
