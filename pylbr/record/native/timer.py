"""Ticks where perf events are refused, as in containers: a timer of pylbr's own.

At each tick of the wall clock, threads that run are sent the signal; what runs is read in /proc.
A thread may have begun a system call since then, which the signal then ends with EINTR: the blob
restarts it (window.c).  Stacks are weighed by the CPU time that their thread has used.
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pylbr.record.native.perf import SIGNAL
from pylbr.record.native.polled import Polled

__all__ = ["TICK_CODE", "TimerTicks", "tick"]

#: si_code of these ticks: abi.h.
TICK_CODE: Final = -0x504C
_TGSIGQUEUEINFO: Final = 297
_KEYS: Final = 1024
_IDLE: Final = 0.005
#: Part of the period by which ticks vary: else what the program does in step with them is missed.
_JITTER: Final = 0.25

_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class _Thread:
    pid: int
    tid: int
    stat: int  # descriptor of /proc/PID/task/TID/stat
    enabled: bool = False


class TimerTicks:
    """See `pylbr.record.native.ticks.Ticks`."""

    exact = False
    most = 2000

    def __init__(self) -> None:
        self._threads: dict[int, _Thread] = {}
        self._period = 0.001
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._sender: threading.Thread | None = None

    def add(self, pid: int, tid: int, period: int) -> int:
        """See `Ticks.add`."""
        self.change(0, period)
        key = next((key for key in range(_KEYS) if key not in self._threads), -1)
        if key < 0:
            raise ProcessLookupError
        try:
            stat = os.open(f"/proc/{pid}/task/{tid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise ProcessLookupError from error
        with self._lock:
            self._threads[key] = _Thread(pid, tid, stat)
        if self._sender is None:
            self._sender = threading.Thread(target=self._send, daemon=True)
            self._sender.start()
        return key

    def enable(self, key: int) -> None:
        """See `Ticks.enable`."""
        self._threads[key].enabled = True

    def change(self, key: int, period: int) -> None:
        """See `Ticks.change`; all threads have one period."""
        self._period = max(period / 1e9, 1 / self.most)

    def spent(self, key: int) -> int:
        """See `Ticks.spent`."""
        thread = self._threads[key]
        try:
            with open(f"/proc/{thread.pid}/task/{thread.tid}/schedstat") as file:
                return int(file.read().split()[0])
        except (OSError, IndexError, ValueError):
            return 0

    def remove(self, key: int) -> None:
        """See `Ticks.remove`."""
        with self._lock:
            thread = self._threads.pop(key)
        os.close(thread.stat)

    def watch(self, tids: Iterable[int]) -> Polled:
        """See `Ticks.watch`."""
        return Polled(tids)

    def close(self) -> None:
        """See `Ticks.close`."""
        self._ended.set()
        if self._sender is not None:
            self._sender.join()
        for key in list(self._threads):
            self.remove(key)

    def _send(self) -> None:
        while not self._ended.wait(self._next()):
            with self._lock:
                for key, thread in self._threads.items():
                    if thread.enabled and _runs(thread.stat):
                        tick(thread.pid, thread.tid, key)

    def _next(self) -> float:
        if not self._threads:
            return _IDLE
        return self._period * (1 + _JITTER * (2 * random.random() - 1))


def _runs(stat: int) -> bool:
    """Whether a thread is running or waits for a processor."""
    with suppress(OSError):
        return b") R " in os.pread(stat, 512, 0)
    return False


def tick(pid: int, tid: int, key: int) -> None:
    """The signal with the key where perf's has si_fd."""
    # signo, errno, code; pid, uid, value
    info = struct.pack("<iii4xIIq", SIGNAL, 0, TICK_CODE, os.getpid(), os.getuid(), key)
    buffer = ctypes.create_string_buffer(info, 128)
    _libc.syscall(_TGSIGQUEUEINFO, pid, tid, SIGNAL, buffer)
