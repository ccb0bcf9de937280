"""Puts the blob into a stopped process."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import numpy as np

from pylbr.record.native.blob import HANDLER_SIZE, NATIVE_SLOTS, Blob
from pylbr.record.native.image import RING, Image, Limits
from pylbr.record.native.patches import CALL, THUNK_SIZE, calls, jump, thunk
from pylbr.record.native.perf import SIGNAL
from pylbr.record.native.ptrace import Registers, Tracee
from pylbr.record.native.ranges import Mapping, mappings, place, vacant

__all__ = ["GUARDED", "Injection", "give_stack", "inject"]

_FAULTS: Final = (4, 5, 7, 8, 11, 31)  # never blocked: the kernel would kill
GUARDED: Final = (4, 7, 8, 11)  # SIGILL, SIGBUS, SIGFPE, SIGSEGV: the blob sees them first

_MMAP, _MUNMAP, _CLOSE, _SIGACTION = 9, 11, 3, 13
_MADVISE, _SIGALTSTACK, _MEMFD = 28, 131, 319
_READ, _WRITE, _EXEC = 1, 2, 4
_SHARED, _PRIVATE, _FIXED, _ANONYMOUS, _NORESERVE, _NOREPLACE = 1, 2, 0x10, 0x20, 0x4000, 0x100000
_WIPEONFORK: Final = 18
_MFD_CLOEXEC: Final = 1
_SA_SIGINFO, _SA_RESTORER, _SA_ONSTACK, _SA_RESTART = 4, 0x04000000, 0x08000000, 0x10000000
_SS_DISABLE: Final = 2
_SA_FLAGS: Final = _SA_SIGINFO | _SA_RESTORER | _SA_ONSTACK | _SA_RESTART
_PAGE: Final = 4096
_NEAR: Final = 0x7FF00000

#: Descriptors of ticks, and with them threads of all processes, that have room.
_THREADS: Final = (1024, 128, 32)
SLICE: Final = 1 << 20


@dataclass(slots=True)
class Injection:
    """A process with the blob in it.

    Attributes
    ----------
    image : Image
    own : list of (int, int)
        Address ranges of the recorder.
    base : int
        Of the blob.
    threads : (int, int, int)
        Address of the areas of threads, size of one, number.
    patched : list of int
        Where its code has been changed: `patches.CALL`.
    """

    image: Image
    base: int
    threads: tuple[int, int, int]
    own: list[tuple[int, int]] = field(default_factory=list)
    patched: list[int] = field(default_factory=list)

    def moved(self, registers: Registers) -> Registers:
        """A thread between the two instructions that were replaced executes both."""
        for site in self.patched:
            if site < registers.rip < site + len(CALL):
                registers.rip = site
        return registers


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


class _Injector:
    def __init__(self, tracee: Tracee, blob: Blob) -> None:
        self.tracee, self.blob = tracee, blob
        self.own: list[tuple[int, int]] = []
        self._next = 0

    def _vacant(self, size: int) -> int:
        """Where the next `size` bytes go: the kernel would fill the holes that a program has made,
        and which it may map again at their fixed addresses."""
        self._next = self._next or vacant(mappings(self.tracee.tid))
        at, self._next = self._next, self._next + _pages(size) + _PAGE
        return at

    def map(
        self, size: int, protection: int, flags: int, fd: int = -1, offset: int = 0, at: int = 0
    ) -> int:
        """mmap in the process; remembered as the recorder's own."""
        at = at or self._vacant(size)
        address = self.tracee.call(_MMAP, at, _pages(size), protection, flags, fd, offset)
        self.own.append((address, address + _pages(size)))
        return address

    def anonymous(self, size: int) -> int:
        return self.map(size, _READ | _WRITE, _PRIVATE | _ANONYMOUS | _NORESERVE)

    def code(self, fd: int, offset: int) -> int:
        """The blob, data after its code; its address."""
        size, data = len(self.blob.image), self.blob.data
        base = self.map(size, _READ | _EXEC, _PRIVATE, fd, offset)
        self.map(size - data, _READ | _WRITE, _PRIVATE | _FIXED, fd, offset + data, base + data)
        return base

    def regions(self, size: int) -> list[int]:
        """Memory for copied code near all code there is, if it is not too far apart."""
        result = []
        room = self.blob.types["state"]["regions"].shape[0]
        for at in place(mappings(self.tracee.tid), size)[:room]:
            flags = _PRIVATE | _ANONYMOUS | _NORESERVE | _NOREPLACE
            result.append(self.map(size, _READ | _WRITE | _EXEC, flags, at=at))
        return result

    def write(self, base: int, symbol: str, data: bytes) -> None:
        self.tracee.write(base + self.blob.symbols[symbol], data)


def inject(tracee: Tracee, blob: Blob, limits: Limits, lanes: int, key: int) -> Injection:
    """Map the blob and install its handler; `tracee` is stopped.

    Parameters
    ----------
    lanes : int
        Threads that can be in a window at a time.
    key : int
        Descriptor of the thread's tick event: names its area.

    Raises
    ------
    OSError
        A system call is refused: limits, seccomp, memory protection.
    """
    if _has_shadow_stack(tracee.tid):
        raise OSError(errno.ENOTSUP, "shadow stacks are enabled, which a window would break")
    before = tracee.swap_mask((1 << 64) - 1)
    injector = _Injector(tracee, blob)
    try:
        return _inject(injector, limits, lanes, key)
    except OSError:
        for low, high in injector.own:
            tracee.call(_MUNMAP, low, high - low)
        raise
    finally:
        tracee.swap_mask(before)


def _inject(i: _Injector, limits: Limits, lanes: int, key: int) -> Injection:
    tracee, blob = i.tracee, i.blob
    # The name is an empty string: padding of the vDSO's or a program's ELF header would do; so
    # does a fresh page.
    found = mappings(tracee.tid)
    page = i.anonymous(_PAGE)
    fd = tracee.call(_MEMFD, page, _MFD_CLOEXEC)
    try:
        own = os.open(f"/proc/{tracee.tid}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            image = Image(own, blob, limits)
        finally:
            os.close(own)
        shared = i.map(image.shared_size, _READ | _WRITE, _SHARED, fd)
        ring = i.map(image.ring_size, _READ | _WRITE, _SHARED, fd, image.shared_size)
        base = i.code(fd, image.shared_size + image.ring_size)
    finally:
        tracee.call(_CLOSE, fd)
    tracee.call(_MADVISE, page, _PAGE, _WIPEONFORK)
    thread_size = -(-(blob.thread_head + tracee.frame_size) // 64) * 64
    count, threads = _thread_areas(i, thread_size)
    values = {
        "shared": shared, "ring": ring, "ring_mask": RING - 1, "threads": threads,
        "thread_count": count, "thread_size": thread_size,
        "lanes": i.anonymous(lanes * blob.lane_size), "lane_count": lanes,
        "pkeys": int(_has_pkeys()), "fork_page": page, "slice": SLICE,
    }  # fmt: skip
    regions = i.regions(lanes * SLICE + _PAGE)
    _write_state(i, base, values, regions)
    _install(i, base)
    patched = _patch(i, base, found, [at + lanes * SLICE for at in regions])
    if 0 <= key < count:
        _give_stack(i, base, threads + key * thread_size)
    return Injection(image, base, (threads, thread_size, count), i.own, patched)


def _thread_areas(i: _Injector, size: int) -> tuple[int, int]:
    """(number, address): fewer where the address space is limited."""
    for count in _THREADS[:-1]:
        with contextlib.suppress(OSError):
            return count, i.anonymous(count * size)
    return _THREADS[-1], i.anonymous(_THREADS[-1] * size)


def _write_state(i: _Injector, base: int, values: dict[str, int], regions: Sequence[int]) -> None:
    state = np.zeros(1, i.blob.types["state"])
    for name, value in values.items():
        state[name] = value
    state["code_start"], state["code_end"] = base, base + i.blob.data
    state["region_count"] = len(regions)
    state["regions"]["start"][0, : len(regions)] = regions
    i.write(base, "state", state.tobytes())


def _install(i: _Injector, base: int) -> None:
    """Put the blob's handlers before those of the program: the tick's, and those of faults."""
    scratch = base + i.blob.symbols["scratch"]
    handlers = base + i.blob.symbols["handlers"]
    mask = (1 << 64) - 1
    for number in _FAULTS:
        mask &= ~(1 << number - 1)
    slots = np.zeros(NATIVE_SLOTS, i.blob.types["slot"])
    count = 0
    for number in (SIGNAL, *GUARDED):
        i.tracee.call(_SIGACTION, number, 0, scratch, 8)
        handler, flags, restorer, blocked = struct.unpack("<4Q", i.tracee.read(scratch, 32))
        if handler <= 1 and number != SIGNAL:
            continue
        slots[count] = (handler, flags, restorer, blocked, number, 1)
        action = struct.pack(
            "<4Q", handlers + count * HANDLER_SIZE, flags | _SA_SIGINFO, restorer, blocked
        )
        if number == SIGNAL:
            action = struct.pack(
                "<4Q", handlers, _SA_FLAGS, base + i.blob.symbols["restorer"], mask
            )
        i.tracee.write(scratch, action)
        count += 1
        _write_slots(i, base, slots, count)
        i.tracee.call(_SIGACTION, number, scratch, 0, 8)


def _write_slots(i: _Injector, base: int, slots: np.ndarray, count: int) -> None:
    fields = i.blob.types["state"].fields
    assert fields is not None
    at = base + i.blob.symbols["state"]
    i.tracee.write(at + fields["slots"][1], slots[:count].tobytes())
    i.tracee.write(at + fields["slot_count"][1], struct.pack("<Q", count))


def _patch(i: _Injector, base: int, found: Sequence[Mapping], thunks: Sequence[int]) -> list[int]:
    """Lead the program's calls of rt_sigaction through the blob."""
    entry = base + i.blob.symbols["sigaction_entry"]
    free = {at: at for at in thunks}
    result = []
    for site in calls(found):
        near = next((at for at in free if abs(at - site) < _NEAR), None)
        if near is None or free[near] + THUNK_SIZE > near + _PAGE or i.tracee.read(
            site, len(CALL)
        ) != CALL:
            continue
        at = free[near]
        free[near] += THUNK_SIZE
        i.tracee.write(at, thunk(at, site + len(CALL), entry))
        i.tracee.write(site, jump(site, at))
        result.append(site)
    return result


def _give_stack(i: _Injector, base: int, stack: int) -> None:
    """Set the alternate stack of a thread that has none."""
    scratch = base + i.blob.symbols["scratch"]
    i.tracee.call(_SIGALTSTACK, 0, scratch)
    _, flags, _ = struct.unpack("<QQQ", i.tracee.read(scratch, 24))
    if flags & _SS_DISABLE:
        i.tracee.write(scratch, struct.pack("<QQQ", stack, 0, i.blob.stack_size))
        i.tracee.call(_SIGALTSTACK, scratch, 0)


def give_stack(tracee: Tracee, blob: Blob, injection: Injection, key: int) -> None:
    """Set the alternate stack of another thread of the process."""
    threads, size, count = injection.threads
    if 0 <= key < count:
        before = tracee.swap_mask((1 << 64) - 1)
        _give_stack(_Injector(tracee, blob), injection.base, threads + key * size)
        tracee.swap_mask(before)


def _has_shadow_stack(tid: int) -> bool:
    """Linux 6.6 and later report it (arch/x86/kernel/cpu/proc.c)."""
    with open(f"/proc/{tid}/status") as file:
        lines = [line for line in file if line.startswith("x86_Thread_features:")]
    return any("shstk" in line.split() for line in lines)


@cache
def _has_pkeys() -> bool:
    with open("/proc/cpuinfo") as file:
        flags = next((line for line in file if line.startswith("flags")), "")
    return "ospke" in flags.split()
