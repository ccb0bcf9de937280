"""What the machine itself can do: the clock, and copying memory.  Measured once per run."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

__all__ = ["Machine", "look"]

#: ``1: dec %rdi; jnz 1b; ret``: one round per cycle on the processors of the last 15 years.
_LOOP: Final = bytes.fromhex("48ffcf75fbc3")
_ROUNDS: Final = 50_000_000
_COPIED: Final = 1 << 27  # beyond every cache
_CACHED: Final = 1 << 15
_TURNS: Final = 5


@dataclass(frozen=True, slots=True)
class Machine:
    """The floor under all rows.

    Attributes
    ----------
    processor, system, python : str
    processors : int
    memory : float
        GB.
    clock : float or None
        GHz, of a loop of one cycle; None where no code may be made.
    copy, copy_cached : float
        GB per second that memcpy moves of 128 MB and of 32 KB; each byte is read and written.
    load : float
        Mean number of runnable tasks of the last minute when the run began.
    """

    processor: str
    system: str
    python: str
    processors: int
    memory: float
    clock: float | None
    copy: float
    copy_cached: float
    load: float


def look() -> Machine:
    """Measure the machine; about half a second."""
    load = os.getloadavg()[0]
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        _processor(), f"{platform.system()} {platform.release()}",
        f"{platform.python_implementation()} {platform.python_version()}, numpy {np.__version__}",
        len(os.sched_getaffinity(0)), pages / 1e9, _clock(), _copy(_COPIED), _copy(_CACHED), load)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def _clock() -> float | None:
    try:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except (OSError, ValueError):
        return None
    code.write(_LOOP)
    place = ctypes.c_char.from_buffer(code)
    call = ctypes.CFUNCTYPE(None, ctypes.c_uint64)(ctypes.addressof(place))
    best = float("inf")
    for _ in range(_TURNS):
        begin = time.perf_counter()
        call(_ROUNDS)
        best = min(best, time.perf_counter() - begin)
    del call, place
    return _ROUNDS / best / 1e9


def _copy(size: int) -> float:
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    calls, best = max(1, _COPIED // size // 8), float("inf")
    to, origin = (ctypes.c_void_p(array.ctypes.data) for array in (target, source))
    for _ in range(_TURNS):
        begin = time.perf_counter()
        for _ in range(calls):
            ctypes.memmove(to, origin, size)
        best = min(best, time.perf_counter() - begin)
    return size * calls / best / 1e9
