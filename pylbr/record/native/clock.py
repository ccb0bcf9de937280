"""From the time-stamp counter to CLOCK_MONOTONIC."""

from __future__ import annotations

import ctypes
import mmap
import time
from typing import Final

import numpy as np

__all__ = ["Clock"]

#: rdtsc; shl $32, %rdx; or %rdx, %rax; ret
_CODE: Final = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_TRIES: Final = 5


class Clock:
    """Two readings of both clocks: one at the start, one now.

    Attributes
    ----------
    rate : float
        TSC cycles per second; 0 before `update`.
    """

    def __init__(self) -> None:
        executable = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        self._memory = mmap.mmap(-1, mmap.PAGESIZE, prot=executable)
        self._memory.write(_CODE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._tsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(address)
        self._first = self._last = self._read()
        time.sleep(0.002)
        self.update()

    def _read(self) -> tuple[int, int]:
        """(cycles, nanoseconds) at one moment: of some tries the one that took least."""
        found = []
        for _ in range(_TRIES):
            before = time.monotonic_ns()
            cycles = self._tsc()
            after = time.monotonic_ns()
            found.append((after - before, cycles, (before + after) // 2))
        _, cycles, when = min(found)
        return cycles, when

    def update(self) -> None:
        """Read both clocks again."""
        self._last = self._read()

    @property
    def rate(self) -> float:
        cycles, when = (b - a for a, b in zip(self._first, self._last, strict=True))
        return cycles * 1e9 / when

    def nanoseconds(self, cycles: np.ndarray) -> np.ndarray:
        """CLOCK_MONOTONIC of readings of the counter, u8."""
        last_cycles, last_when = self._last
        distance = cycles.astype(np.int64) - np.int64(last_cycles)
        return (last_when + (distance * (1e9 / self.rate)).astype(np.int64)).astype(np.uint64)
