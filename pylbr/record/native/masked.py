"""Threads that block the tick signal: libraries start theirs with every signal blocked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from pylbr.record.native.perf import SIGNAL
from pylbr.record.native.ptrace import Tracee, TraceeGone

__all__ = ["Masked"]

_LOOK_SECONDS: Final = 0.05
_TICKS: Final = 4
_BIT: Final = 1 << SIGNAL - 1


class Masked:
    """Finds threads that run, make no stacks and block the tick signal, and unblocks it.

    The rest of their mask stays.  A thread that blocks the signal again is found again.  A thread
    that is met in a tick blocks the signal for the recorder: a second tick in the first would take
    the lane that the first works with.

    Parameters
    ----------
    period : int
        Nanoseconds between ticks.
    spent : callable
        CPU time of a thread, by the key of its ticks.
    in_tick : callable
        Whether a stopped thread of a process, by its number, executes code of the recorder.

    Attributes
    ----------
    refused : set of int
        Threads that may not be traced: they stay without stacks.
    unblocked : set of int
        Threads that blocked the signal.
    """

    def __init__(
        self, period: int, spent: Callable[[int], int], in_tick: Callable[[int, Tracee], bool]
    ) -> None:
        self._least = _TICKS * period
        self._spent_by = spent
        self._in_tick = in_tick
        self._heard: set[int] = set()
        self._spent: dict[int, int] = {}
        self._next = 0.0
        self.refused: set[int] = set()
        self.unblocked: set[int] = set()

    def heard(self, keys: Iterable[int]) -> None:
        """These keys' threads have made stacks."""
        self._heard.update(keys)

    def look(self, threads: Iterable[tuple[int, int, int]]) -> None:
        """Look at threads: (pid, tid, key of the ticks) of each."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LOOK_SECONDS
        spent = {}
        for pid, tid, fd in threads:
            count = self._spent_by(fd)
            before = self._spent.get(fd, count)
            silent = count - before >= self._least and fd not in self._heard
            # A thread with few ticks is watched until it has had enough of them.
            spent[fd] = before if before <= count < before + self._least else count
            if silent and tid not in self.refused and _blocks(pid, tid):
                self._unblock(pid, tid)
        self._spent, self._heard = spent, set()

    def _unblock(self, pid: int, tid: int) -> None:
        try:
            with Tracee(tid) as tracee:
                tracee.interrupt()
                if self._in_tick(pid, tracee):
                    return
                before = tracee.swap_mask(0xFFFF_FFFF_FFFF_FFFF)
                tracee.swap_mask(before & ~_BIT)
                self.unblocked.add(tid)
        except TraceeGone:
            pass
        except OSError:
            self.refused.add(tid)


def _blocks(pid: int, tid: int) -> bool:
    try:
        with open(f"/proc/{pid}/task/{tid}/status") as file:
            line = next(line for line in file if line.startswith("SigBlk:"))
    except (OSError, StopIteration):
        return False
    return bool(int(line.split()[1], 16) & _BIT)
