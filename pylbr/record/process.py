"""The recorded program as a child process: started, watched, and always ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
import subprocess
import time
from types import FrameType, TracebackType
from typing import Any, Self

from pylbr.record.program import Program
from pylbr.record.toolchain import Tools

__all__ = ["Process", "exit_code"]

#: <linux/wait.h>: of threads and traced processes, too.
_WALL = 0x40000000


def exit_code(status: int) -> int:
    """Exit code of a wait status, as a shell gives it: 128 + N for signal N."""
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def qemu_command(tools: Tools, program: Program, wire: str, environment: dict[str, str]) -> list:
    """Arguments of QEMU.  Loader variables act on the program alone, not on QEMU: they are
    taken out of `environment` and passed on with ``-E``."""
    option = ",".join(
        f"{key}{value.replace(',', ',,')}"
        for key, value in (("", tools.plugin), ("wire=", wire), ("plugin=", tools.plugin),
                           ("comm=", _comm(program.name)))
    )
    if program.target.prefix and os.path.isdir(program.target.prefix):
        environment.setdefault("QEMU_LD_PREFIX", program.target.prefix)  # of children, too
    loader = [name for name in environment if name.startswith("LD_")]
    passed = [word for name in loader for word in ("-E", f"{name}={environment.pop(name)}")]
    return [
        tools.qemu, "-plugin", option, *passed, "-0", program.arguments[0], program.path,
        *program.arguments[1:],
    ]  # fmt: skip


def _comm(name: str) -> str:
    """A name as the kernel cuts it (TASK_COMM_LEN, with its NUL)."""
    return os.fsdecode(os.fsencode(name)[:15])


class Process:
    """The program, under QEMU, under the launcher.

    While it runs, SIGINT and SIGQUIT of the terminal are the program's affair; sent to pylbr
    alone they are passed on to it, as SIGTERM and SIGHUP are.  A program in the background
    ignores SIGINT and SIGQUIT: it gets SIGTERM for them.

    Attributes
    ----------
    pid : int or None
        Of the program; None before the launcher has reported it.
    status : int or None
        Wait status, once it has ended.
    remarks : list of str
        That it did not end by itself.
    """

    def __init__(self, tools: Tools, program: Program, wire: str) -> None:
        environment = dict(os.environ)
        self._start(tools.launch, qemu_command(tools, program, wire, environment), environment)

    def _start(
        self, launch: str, command: list[str], environment: dict[str, str], gate: int | None = None
    ) -> None:
        """Run the command below the launcher; it waits for a byte of `gate` if there is one."""
        self.pid: int | None = None
        self.status: int | None = None
        self.remarks: list[str] = []
        self._data = b""
        self._reader, writer = os.pipe()
        descriptors = str(writer) if gate is None else f"{writer},{gate}"
        try:
            # The program gets what pylbr was given: `pylbr record -- cat <(date)`.
            os.set_inheritable(writer, True)
            self._launcher = subprocess.Popen(
                [launch, descriptors, *command], close_fds=False, env=environment
            )
        except BaseException:
            os.close(self._reader)
            raise
        finally:
            os.close(writer)
        os.set_blocking(self._reader, False)
        self._handlers: dict[int, Any] = {}
        self._early: list[int] = []  # signals that came before the program's pid

    def _forward(self, number: int, frame: FrameType | None) -> None:
        if self.pid is None:
            self._early.append(number)
        elif self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _forward_typed(self, number: int, frame: FrameType | None) -> None:
        if not _in_foreground():
            ignored = self._handlers[number] is signal.SIG_IGN
            self._forward(signal.SIGTERM if ignored else number, frame)

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGQUIT):
            self._handlers[number] = signal.signal(number, self._forward_typed)
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._forward)
        return self

    def running(self) -> bool:
        """Whether the program has not ended."""
        if self.status is not None:
            return False
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._reader, 8 - len(self._data))
            self._data += data
            if not data:  # the launcher is gone, and the kernel has killed the program with it
                self.status = signal.SIGKILL
                self.remarks.append("the program's launcher was killed, and the program with it")
                self._launcher.wait()
                return False
        if len(self._data) >= 4:
            (self.pid,) = struct.unpack_from("<i", self._data)
        if len(self._data) == 8:
            (self.status,) = struct.unpack_from("<i", self._data, 4)
            self._launcher.wait()
        while self.pid is not None and self._early:
            self._forward(self._early.pop(), None)
        return self.status is None

    @property
    def descriptor(self) -> int:
        """To poll: readable when the program has started or ended."""
        return self._reader

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond the program's end."""
        poll = select.poll()  # select() takes no number above 1023
        poll.register(self._reader, select.POLLIN)
        poll.poll(seconds * 1000)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        where: TracebackType | None,
    ) -> None:  # fmt: skip
        if self.status is None:
            self._launcher.terminate()  # it kills all that it runs
            # It waits for the program's end, which a tracer, here this process, has to see first.
            while self._launcher.poll() is None:
                if self.pid is not None:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(self.pid, os.WNOHANG | _WALL)
                time.sleep(0.002)
        os.close(self._reader)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Whether what is typed on the terminal reaches the program by itself."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def is_gone(pid: int) -> bool:
    """Whether a process runs no more; one that waits to be reaped does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return True
