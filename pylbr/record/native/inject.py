"""Puts the blob into a stopped process."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import numpy as np

from pylbr.record.native.batch import STACK, Batch, Call, swap_stacks
from pylbr.record.native.blob import HANDLER_SIZE, NATIVE_SLOTS, Blob
from pylbr.record.native.image import RING, Image, Limits
from pylbr.record.native.patches import CALL, THUNK_SIZE, calls, jump, thunk
from pylbr.record.native.perf import SIGNAL
from pylbr.record.native.ptrace import Registers, Tracee
from pylbr.record.native.ranges import Mapping, mappings, place, vacant

__all__ = [
    "ACTION", "GUARDED", "Injection", "Injector", "Wanted", "anonymous", "give_stacks",
    "has_shadow_stack", "inject",
]

_FAULTS: Final = (4, 5, 7, 8, 11, 31)  # never blocked: the kernel would kill
GUARDED: Final = (4, 7, 8, 11)  # SIGILL, SIGBUS, SIGFPE, SIGSEGV: the blob sees them first

_MMAP, _MUNMAP, _CLOSE, _SIGACTION = 9, 11, 3, 13
_MADVISE, _MEMFD = 28, 319
_READ, _WRITE, _EXEC = 1, 2, 4
_SHARED, _PRIVATE, _ANONYMOUS, _NORESERVE, _NOREPLACE = 1, 2, 0x20, 0x4000, 0x100000
_WIPEONFORK: Final = 18
_MFD_CLOEXEC: Final = 1
_SA_SIGINFO, _SA_RESTORER, _SA_ONSTACK, _SA_RESTART = 4, 0x04000000, 0x08000000, 0x10000000
_SS_DISABLE: Final = 2
_SA_FLAGS: Final = _SA_SIGINFO | _SA_RESTORER | _SA_ONSTACK | _SA_RESTART
ACTION: Final = struct.Struct("<4Q")  # the kernel's struct sigaction
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
    batch : Batch
        To make system calls in its name.
    patched : list of int
        Where its code has been changed: `patches.CALL`.
    """

    image: Image
    base: int
    threads: tuple[int, int, int]
    batch: Batch
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """A mapping to be made; `at`: 0 for any place, else there or not at all."""

    size: int
    protection: int
    flags: int
    fd: int = -1
    offset: int = 0
    at: int = 0


def anonymous(size: int) -> Wanted:
    """Private memory at any place."""
    return Wanted(size, _READ | _WRITE, _PRIVATE | _ANONYMOUS | _NORESERVE)


class Injector:
    """Maps memory in a stopped process, and writes there."""

    def __init__(self, tracee: Tracee, blob: Blob) -> None:
        self.tracee, self.blob = tracee, blob
        self.found = mappings(tracee.tid)
        self.own: list[tuple[int, int]] = []
        self._next = vacant(self.found)
        page = self._vacant(_PAGE)
        self._keep(tracee.call(
            _MMAP, page, _PAGE, _READ | _WRITE | _EXEC, _PRIVATE | _ANONYMOUS, -1, 0), _PAGE)
        self.batch = Batch(tracee, self.own[0][0])

    def _vacant(self, size: int) -> int:
        """Where the next `size` bytes go: the kernel would fill the holes that a program has made,
        and which it may map again at their fixed addresses."""
        at, self._next = self._next, self._next + _pages(size) + _PAGE
        return at

    def _keep(self, address: int, size: int) -> None:
        self.own.append((address, address + _pages(size)))

    def map(self, *wanted: Wanted) -> list[int]:
        """Addresses of mappings in the process; remembered as the recorder's own.

        Raises
        ------
        OSError
            One could not be made; the others are remembered.
        """
        results = self.batch.run(self.tracee, [
            (_MMAP, w.at or self._vacant(w.size), _pages(w.size), w.protection,
             w.flags | (_NOREPLACE if w.at else 0), w.fd, w.offset) for w in wanted
        ])  # fmt: skip
        for address, w in zip(results, wanted, strict=True):
            if address >= 0:
                self._keep(address, w.size)
        failed = [-address for address in results if address < 0]
        if failed:
            raise OSError(failed[0], os.strerror(failed[0]))
        return results

    def code(self, fd: int, offset: int) -> list[Wanted]:
        """The blob: its code, and its data right after."""
        size, data = len(self.blob.image), self.blob.data
        base = self._vacant(size)
        return [
            Wanted(data, _READ | _EXEC, _PRIVATE, fd, offset, base),
            Wanted(size - data, _READ | _WRITE, _PRIVATE, fd, offset + data, base + data),
        ]

    def regions(self, size: int) -> list[Wanted]:
        """Memory for copied code near all code there is, if it is not too far apart."""
        room = self.blob.types["state"]["regions"].shape[0]
        flags = _PRIVATE | _ANONYMOUS | _NORESERVE
        return [Wanted(size, _READ | _WRITE | _EXEC, flags, at=at)
                for at in place(self._taken(), size)[:room]]

    def _taken(self) -> list[Mapping]:
        """What is mapped, and what is going to be."""
        start = self.own[0][0]
        return [*self.found, Mapping(start, self._next, "rw-p", 0, 0, "")]

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
    if has_shadow_stack(tracee.tid):
        raise OSError(errno.ENOTSUP, "shadow stacks are enabled, which a window would break")
    before = tracee.swap_mask((1 << 64) - 1)
    own: list[tuple[int, int]] = []
    try:
        injector = Injector(tracee, blob)
        own = injector.own
        injection = _inject(injector, limits, lanes)
        give_stacks([(tracee, key)], blob, injection)
        return injection
    except OSError:
        for low, high in reversed(own):  # the page with the code of the calls is the first
            tracee.call(_MUNMAP, low, high - low)
        raise
    finally:
        tracee.swap_mask(before)


def _inject(i: Injector, limits: Limits, lanes: int) -> Injection:
    tracee, blob, batch = i.tracee, i.blob, i.batch
    (fd,) = batch.checked(tracee, (_MEMFD, batch.empty, _MFD_CLOEXEC))
    try:
        own = os.open(f"/proc/{tracee.tid}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            image = Image(own, blob, limits)
        finally:
            os.close(own)
        regions = i.regions(lanes * SLICE + _PAGE)
        page, shared, ring, areas, base, _, *regions_at = i.map(
            anonymous(_PAGE),
            Wanted(image.shared_size, _READ | _WRITE, _SHARED, fd),
            Wanted(image.ring_size, _READ | _WRITE, _SHARED, fd, image.shared_size),
            anonymous(lanes * blob.lane_size),
            *i.code(fd, image.shared_size + image.ring_size), *regions,
        )  # fmt: skip
    finally:
        batch.run(tracee, [(_CLOSE, fd)])
    thread_size = -(-(blob.thread_head + tracee.frame_size) // 64) * 64
    count, threads = _thread_areas(i, thread_size)
    values = {
        "shared": shared, "ring": ring, "ring_mask": RING - 1, "threads": threads,
        "thread_count": count, "thread_size": thread_size,
        "lanes": areas, "lane_count": lanes,
        "pkeys": int(_has_pkeys()), "fork_page": page, "slice": SLICE,
    }  # fmt: skip
    _write_state(i, base, values, regions_at)
    _install(i, base, (_MADVISE, page, _PAGE, _WIPEONFORK))
    patched = _patch(i, base, i.found, [at + lanes * SLICE for at in regions_at])
    return Injection(image, base, (threads, thread_size, count), batch, i.own, patched)


def _thread_areas(i: Injector, size: int) -> tuple[int, int]:
    """(number, address): fewer where the address space is limited."""
    for count in _THREADS[:-1]:
        with contextlib.suppress(OSError):
            return count, i.map(anonymous(count * size))[0]
    return _THREADS[-1], i.map(anonymous(_THREADS[-1] * size))[0]


def _write_state(i: Injector, base: int, values: dict[str, int], regions: Sequence[int]) -> None:
    state = np.zeros(1, i.blob.types["state"])
    for name, value in values.items():
        state[name] = value
    state["code_start"], state["code_end"] = base, base + i.blob.data
    state["region_count"] = len(regions)
    state["regions"]["start"][0, : len(regions)] = regions
    i.write(base, "state", state.tobytes())


def _install(i: Injector, base: int, before: Call) -> None:
    """Put the blob's handlers before those of the program: the tick's, and those of faults;
    `before`: a call to make before that."""
    scratch, handlers = (base + i.blob.symbols[name] for name in ("scratch", "handlers"))
    mask = (1 << 64) - 1
    for number in _FAULTS:
        mask &= ~(1 << number - 1)
    numbers = (SIGNAL, *GUARDED)
    places = range(scratch, scratch + len(numbers) * ACTION.size, ACTION.size)
    i.batch.checked(i.tracee, before, *(
        (_SIGACTION, number, 0, at, 8) for number, at in zip(numbers, places, strict=True)))
    old = i.tracee.read(scratch, len(places) * ACTION.size)
    slots = np.zeros(NATIVE_SLOTS, i.blob.types["slot"])
    calls: list[Call] = []
    for number, at, words in zip(numbers, places, ACTION.iter_unpack(old), strict=True):
        handler, flags, restorer, blocked = words
        if handler <= 1 and number != SIGNAL:
            continue
        count = len(calls)
        slots[count] = (handler, flags, restorer, blocked, number, 1)
        action = (handlers + count * HANDLER_SIZE, flags | _SA_SIGINFO, restorer, blocked)
        if number == SIGNAL:
            action = (handlers, _SA_FLAGS, base + i.blob.symbols["restorer"], mask)
        i.tracee.write(at, ACTION.pack(*action))
        calls.append((_SIGACTION, number, at, 0, 8))
    fields = i.blob.types["state"].fields
    assert fields is not None
    state = base + i.blob.symbols["state"]
    i.tracee.write(state + fields["slots"][1], slots[:len(calls)].tobytes())
    i.tracee.write(state + fields["slot_count"][1], struct.pack("<Q", len(calls)))
    i.batch.checked(i.tracee, *calls)


def _patch(i: Injector, base: int, found: Sequence[Mapping], thunks: Sequence[int]) -> list[int]:
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


def give_stacks(
    threads: Iterable[tuple[Tracee, int]], blob: Blob, injection: Injection
) -> None:
    """Set the alternate stack of stopped threads that have none, each named by its key."""
    areas, size, count = injection.threads
    # Nothing is on those stacks yet: they take the calls that set them.
    stacks = ((tracee, areas + key * size) for tracee, key in threads if 0 <= key < count)
    swap_stacks(
        injection.batch,
        ((tracee, at, STACK.pack(at, 0, blob.stack_size)) for tracee, at in stacks),
        lambda old: not STACK.unpack(old)[1] & _SS_DISABLE,
    )


def has_shadow_stack(tid: int) -> bool:
    """Linux 6.6 and later report it (arch/x86/kernel/cpu/proc.c)."""
    with open(f"/proc/{tid}/status") as file:
        lines = [line for line in file if line.startswith("x86_Thread_features:")]
    return any("shstk" in line.split() for line in lines)


@cache
def _has_pkeys() -> bool:
    with open("/proc/cpuinfo") as file:
        flags = next((line for line in file if line.startswith("flags")), "")
    return "ospke" in flags.split()
