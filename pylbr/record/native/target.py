"""A process that runs already: whether it can be recorded, and its threads, stopped together."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

from pylbr.errors import CommandError
from pylbr.record.native.ptrace import Tracee, TraceeGone
from pylbr.record.process import is_gone
from pylbr.record.program import check_elf

__all__ = [
    "Attached", "ahead", "check_target", "facts", "let_go", "refused", "stopped_threads",
    "threads_of",
]

_YAMA: Final = Path("/proc/sys/kernel/yama/ptrace_scope")


def facts(pid: int) -> dict[str, str]:
    """``/proc/PID/status`` as a table; empty when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def threads_of(pid: int) -> list[int]:
    """Its threads, the leader first; empty when it is gone."""
    try:
        return sorted(map(int, os.listdir(f"/proc/{pid}/task")), key=lambda tid: (tid != pid, tid))
    except (FileNotFoundError, ProcessLookupError):
        return []


def check_target(pid: int) -> None:
    """Check that a process can be attached to.

    Raises
    ------
    CommandError
        It cannot; the message gives the reason, and what helps.
    """
    known = facts(pid)
    state = known.get("State", "X")[0]
    if pid in (os.getpid(), os.getppid()) or pid == 1:
        raise CommandError(f"process {pid}: pylbr, its parent and init are not recorded")
    if state in "XZ":
        raise CommandError(f"process {pid}: there is no such process")
    if known["Tgid"] != str(pid):
        raise CommandError(f"process {pid}: is a thread of process {known['Tgid']}; use -t {pid}")
    if int(known.get("TracerPid", "0")):
        raise CommandError(
            f"process {pid}: is traced by process {known['TracerPid']}, a debugger perhaps"
        )
    if state in "Tt":
        raise CommandError(f"process {pid}: is stopped; continue it with kill -CONT {pid}")
    try:
        with open(f"/proc/{pid}/exe", "rb") as file:
            check_elf(f"process {pid}", file.read(256))
    except FileNotFoundError as error:
        raise CommandError(f"process {pid}: has no program, a thread of the kernel") from error
    except PermissionError as error:
        raise refused(pid) from error


def refused(pid: int) -> CommandError:
    """What is missing to trace a process."""
    scope = _YAMA.read_text().strip() if _YAMA.exists() else "0"
    if scope != "0" and os.geteuid():
        return CommandError(
            f"process {pid}: may not be traced: kernel.yama.ptrace_scope is {scope}; as root: "
            "sysctl kernel.yama.ptrace_scope=0, or run pylbr as root"
        )
    return CommandError(
        f"process {pid}: may not be traced: run pylbr as its user or as root (CAP_SYS_PTRACE); "
        "in a container: --cap-add SYS_PTRACE"
    )


@contextmanager
def ahead() -> Iterator[None]:
    """Before all usual work, where that is allowed: threads that are let go would take the
    processor before the others are let go."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def stopped_threads(pid: int) -> list[Tracee]:
    """All threads of a process, stopped; the caller lets each go.

    Raises
    ------
    OSError
        They may not be traced.
    TraceeGone
        The process has ended.
    """
    found: dict[int, Tracee] = {}
    try:
        while new := [tid for tid in threads_of(pid) if tid not in found]:
            for tid in new:  # all are asked before any is waited for: each has to get a processor
                with suppress(TraceeGone):
                    found[tid] = Tracee(tid)
                    found[tid].ask()
            for tid in new:
                if tid in found:
                    with suppress(TraceeGone):
                        found[tid].wait_for_stop()
            if all(tid not in found for tid in new):
                break
    except BaseException:
        let_go(found.values())
        raise
    alive = [tracee for tracee in found.values() if tracee.stopped]
    if not alive:
        raise TraceeGone
    return alive


def let_go(tracees: Any) -> None:
    """Let threads continue."""
    for tracee in tracees:
        with suppress(TraceeGone, OSError):
            tracee.detach()


class Attached:
    """A process that was there before: watched until it ends, a time is over, or Ctrl-C.

    Parameters
    ----------
    pid : int
    seconds : float
        0: no limit.

    Attributes
    ----------
    status : int
        0: how it ends is its parent's affair.
    remarks : list of str
        Empty.
    """

    status = 0

    def __init__(self, pid: int, seconds: float) -> None:
        self.pid = pid
        self.remarks: list[str] = []
        self.descriptor = os.pidfd_open(pid)
        self._seconds, self._deadline = seconds, 0.0
        self._ended = False
        self._handlers: dict[int, Any] = {}

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ended = True

    def running(self) -> bool:
        """Whether to continue; its time begins with the first question."""
        if self._seconds and not self._deadline:
            self._deadline = time.monotonic() + self._seconds
        if self._deadline and time.monotonic() >= self._deadline:
            return False
        return not self._ended and not is_gone(self.pid)

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond the process's end."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        poll.poll(seconds * 1000)

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
