"""What a command line process owes its surroundings: standard streams and signals."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Ended", "ended_by_signals", "flush", "open_standard_streams"]


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP has come: to be cleaned up after as after SIGINT."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[list[int]]:
    """Raise `Ended` at SIGTERM and SIGHUP, once; gives the list of those that came.

    A signal that is ignored, as under nohup, or that already has a handler keeps it.  Where a C
    library's callback swallows the exception, as ctypes does at the entry of one, it is raised
    again; SIGINT's too.
    """
    came: list[int] = []
    swallowed = sys.unraisablehook

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        error = unraisable.exc_value
        if not isinstance(error, KeyboardInterrupt):
            swallowed(unraisable)
            return

        def end_now(number: int, frame: FrameType | None) -> None:
            raise error

        signal.signal(signal.SIGALRM, end_now)
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        for each in before:  # what follows must not cut the cleaning up short
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    before = [number for number in (signal.SIGTERM, signal.SIGHUP)
              if threading.current_thread() is threading.main_thread()
              and signal.getsignal(number) is signal.SIG_DFL]
    for number in before:
        signal.signal(number, end)
    if threading.current_thread() is threading.main_thread():
        sys.unraisablehook = again
    try:
        yield came
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = swallowed
        for number in before:
            signal.signal(number, signal.SIG_DFL)


def open_standard_streams() -> None:
    """Occupy the standard streams that are closed, so that no file of ours gets their number.

    Standard input and output fail when they are used, as closed ones should; messages are lost.
    Programs that are started find them closed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_WRONLY)
        if getattr(sys, name) is None and number < 2:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    # With PYTHONUNBUFFERED, what a disk that fills up takes no more of is lost without an error.
    if isinstance(getattr(sys.stdout, "buffer", None), io.RawIOBase):
        sys.stdout = io.TextIOWrapper(
            open(1, "wb", closefd=False),  # noqa: SIM115
            encoding=sys.stdout.encoding, errors=sys.stdout.errors, line_buffering=True)
    if sys.stderr is sys.__stderr__:
        binary = open(2, "wb", closefd=False)  # noqa: SIM115
        sys.stderr = _Messages(binary, errors="backslashreplace", line_buffering=True)


class _Messages(io.TextIOWrapper):
    """Standard error: messages that it does not take are lost, and change no exit code."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            _forget(self)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            _forget(self)


def flush() -> str:
    """Why standard output did not take all that was written; empty if it did."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _forget(sys.stdout)
        return f"standard output cannot be written: {error.strerror}"
    return ""


def _forget(stream: object) -> None:
    """Keep Python from trying again, and from complaining, at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[attr-defined]
