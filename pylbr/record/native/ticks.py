"""What makes threads tick, and reports what happens to tasks and mappings."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Final, Protocol

from pylbr.record.native.perf import SIGNAL, PerfTicks, SideRecord
from pylbr.record.native.timer import TICK_CODE, TimerTicks

__all__ = ["Side", "Ticks", "is_tick", "make_ticks"]

_TIMER: Final = "timer"
_POLL_IN: Final = 1
#: For tests, and machines whose perf events do not tick: ``timer``.
_CHOICE: Final = "PYLBR_TICKS"


class Side(Protocol):
    """What happens to processes: records as perf writes them."""

    @property
    def descriptors(self) -> list[int]:
        """To poll for POLLIN."""

    def records(self) -> list[SideRecord]:
        """What has happened since the last call, by time."""

    def entered(self, pid: int) -> None:
        """The recorder has just been put into the program that the process runs now."""

    def close(self) -> None:
        """Give everything back."""


class Ticks(Protocol):
    """Signals to threads by their time in user mode.

    Attributes
    ----------
    exact : bool
        Each stands for the period; else the thread's CPU time is to be shared among its stacks.
    most : int
        Ticks per second that are not too many.
    """

    exact: bool
    most: int

    def add(self, pid: int, tid: int, period: int) -> int:
        """A key for a thread that is to tick each `period` ns, once it is enabled.

        Raises
        ------
        OSError
        """

    def enable(self, key: int) -> None:
        """Let a thread tick."""

    def change(self, key: int, period: int) -> None:
        """Let a thread tick each `period` ns."""

    def spent(self, key: int) -> int:
        """CPU time of a thread, ns, from any beginning."""

    def remove(self, key: int) -> None:
        """Let a thread tick no more."""

    def watch(self, tids: Iterable[int]) -> Side:
        """What happens to these threads of one process, and to what they make.

        Raises
        ------
        OSError
        """

    def close(self) -> None:
        """Give everything back."""


def make_ticks() -> tuple[Ticks, str]:
    """perf's ticks, or a timer's where perf events are refused; and why the timer's."""
    if os.environ.get(_CHOICE) == _TIMER:
        return TimerTicks(), f"{_CHOICE} asks for a timer"
    try:
        PerfTicks.check()
    except OSError as error:
        return TimerTicks(), f"perf_event_open is refused: {error.strerror}"
    return PerfTicks(), ""


def is_tick(info: bytes) -> bool:
    """Whether a ``siginfo_t`` is a tick's."""
    number, _, code = struct.unpack_from("<iii", info)
    return number == SIGNAL and code in (_POLL_IN, TICK_CODE)
