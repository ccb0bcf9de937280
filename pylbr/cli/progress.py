"""What a command prints besides its result: a progress bar, and notes on standard error."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Self

from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from pylbr.printable import printable
from pylbr.tables import terminal
from pylbr.trace import Stacks, Trace

__all__ = ["ProgressBar", "Screen", "drawn_meanwhile", "lasting", "print_notes", "progress"]

_DELAY: Final = 1.0      # seconds until it appears
_INTERVAL: Final = 0.1   # between two refreshes
_TENTHS: Final = 10      # units of `lasting`, per second


class ProgressBar:
    """Bar on standard error, if that is a terminal.

    It is drawn by `update`, not by a thread: processes that are forked meanwhile inherit none.
    `drawn_meanwhile` draws it from one, where nothing is forked.

    Attributes
    ----------
    n : int
        Units done so far.
    """

    def __init__(self, total: int | None, unit: str, description: str) -> None:
        self.n = 0
        self._total, self._unit = total, unit
        columns = [TextColumn("{task.description}", markup=False), BarColumn()]
        if total:
            columns.append(TaskProgressColumn())
        columns += [TextColumn("{task.fields[rate]}", markup=False), TimeElapsedColumn()]
        self._bar = Progress(
            *columns, console=terminal(sys.stderr), auto_refresh=False, transient=True,
            redirect_stdout=False, redirect_stderr=False, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task(printable(description), total=total, rate="")
        self._begun = time.monotonic()
        self._next = self._begun + _DELAY
        self._started = self._held = False
        self._lock = threading.Lock()

    def update(self, n: int) -> None:
        """`n` further units are done."""
        self.n += n
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _INTERVAL
        with self._lock:
            if self._held:
                return
            if not self._started:
                self._bar.start()
                self._started = True
            self._bar.update(self._task, completed=self.n, rate=self._rate(now), refresh=True)

    def _rate(self, now: float) -> str:
        """Units done, units per second and, with a total, the time left."""
        rate = self.n / (now - self._begun)
        text = f"{self.n:,} {self._unit}, {rate:,.0f} {self._unit}/s"
        if self._total and rate:
            left = max(0, round((self._total - self.n) / rate))
            text += f", {left // 60}:{left % 60:02} left"
        return text

    def reach(self, done: int, total: int) -> None:
        """`done` units of about `total` are done."""
        if total and total != self._total:
            self._total = total
            self._bar.update(self._task, total=total)
        self.update(done - self.n)

    def clear(self, *, held: bool = False) -> None:
        """Take it off the terminal: something else is to be printed.

        `update` draws it again, if it is not `held`: while half a line is printed.
        """
        with self._lock:
            self._held = held
            if self._started:
                self._bar.stop()
                self._started = False

    def set_description(self, text: str) -> None:
        """Text before the bar."""
        self._bar.update(self._task, description=printable(text))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        where: TracebackType | None,
    ) -> None:  # fmt: skip
        self.clear()


def progress(total: int | None, unit: str, description: str = "") -> ProgressBar:
    """Bar that appears after one second; ``bar.update(n)`` moves it, ``with`` closes it.

    Silent when standard error is no terminal.
    """
    return ProgressBar(total, unit, description)


class Screen:
    """What a guest prints on standard output, and a bar below it while it prints nothing.

    Parameters
    ----------
    bar : ProgressBar
    """

    def __init__(self, bar: ProgressBar) -> None:
        self.bar = bar

    def __call__(self, data: bytes) -> None:
        """Print a byte of the guest."""
        ended = data == b"\n"
        self.bar.clear(held=not ended)
        sys.stdout.write(data.decode("latin-1"))
        if ended:
            sys.stdout.flush()


@contextlib.contextmanager
def drawn_meanwhile(bar: ProgressBar, done: Callable[[], int]) -> Iterator[None]:
    """Draw `bar` several times per second from a thread.

    Parameters
    ----------
    bar : ProgressBar
    done : callable
        Units done so far.
    """
    ended = threading.Event()

    def draw() -> None:
        while not ended.wait(_INTERVAL):
            bar.update(done() - bar.n)

    thread = threading.Thread(target=draw, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Clock(ProgressBar):
    """The time that passed, and what is left of what was expected."""

    def _rate(self, now: float) -> str:
        if not self._total:
            return ""
        left = round((self._total - self.n) / _TENTHS)
        return f"about {left // 60}:{left % 60:02} left" if left > 0 else "longer than expected"


@contextlib.contextmanager
def lasting(description: str, expected: float | None = None) -> Iterator[None]:
    """Draw a bar beside a step that reports nothing itself, such as another program.

    Parameters
    ----------
    description : str
    expected : float, optional
        Seconds that it will take; None: unknown.
    """
    begun = time.monotonic()
    bar = _Clock(None if expected is None else max(1, round(expected * _TENTHS)), "", description)
    with bar, drawn_meanwhile(bar, lambda: int((time.monotonic() - begun) * _TENTHS)):
        yield


def print_notes(command: str, source: Trace | Stacks) -> None:
    """Print what a reader left out, once the source has been read."""
    for note in getattr(source, "notes", ()):
        print(f"pylbr {command}: {printable(source.path)}: {printable(note)}", file=sys.stderr)
