"""Puts the blob of full recordings into a program that stands before its first instruction."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from pylbr.record.native.full.memory import FullBlob, Memory
from pylbr.record.native.inject import Injector, Wanted, anonymous, has_shadow_stack
from pylbr.record.native.patches import sequences
from pylbr.record.native.ptrace import Tracee
from pylbr.record.native.ranges import Mapping, code_ranges, mappings

__all__ = ["Entered", "code_of", "enter"]

_CLOSE, _MEMFD = 3, 319
_READ, _WRITE = 1, 2
_SHARED: Final = 1
_PAGE: Final = 4096
_STEP: Final = 1 << 16
#: Of copied code near each piece of the program's.
_SLICE: Final = 1 << 26
#: Copied code has 32 bits for addresses of its own slots and tables.
_HIGHEST: Final = 0x7FF00000


@dataclass(frozen=True, slots=True)
class Entered:
    """A program with the blob in it.

    Attributes
    ----------
    memory : Memory
    own : list of (int, int)
        Address ranges of the recorder.
    """

    memory: Memory
    own: list[tuple[int, int]]


def enter(tracee: Tracee, full: FullBlob) -> Entered:
    """Map the blob, and let the thread begin there.

    Raises
    ------
    OSError
        A system call is refused, or there is no room where it has to be.
    """
    if has_shadow_stack(tracee.tid):
        raise OSError(errno.ENOTSUP, "shadow stacks are enabled")
    i = Injector(tracee, full.blob)
    (fd,) = i.batch.checked(tracee, (_MEMFD, i.batch.empty, 1))
    try:
        own = os.open(f"/proc/{tracee.tid}/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        try:
            memory = Memory(own, full)
        finally:
            os.close(own)
        log, log_size = memory.places["log"]
        table = full.near * 8
        at = _low(i.found, log_size + 2 * table)
        parts = [name for name in memory.places if name not in ("log", "image")]
        mapped = i.map(
            Wanted(log_size, _READ | _WRITE, _SHARED, fd, log, at),
            replace(anonymous(2 * table), at=at + log_size),
            anonymous(full.private),
            *(Wanted(memory.places[name][1], _READ | _WRITE, _SHARED, fd, memory.places[name][0])
              for name in parts),
        )  # fmt: skip
        base, _ = i.map(*i.code(fd, memory.places["image"][0]))
        regions = i.map(*i.regions(_SLICE))
    finally:
        i.batch.run(tracee, [(_CLOSE, fd)])
    registers = tracee.registers()
    values = {
        "low": at + full.log * 4, "near": at + log_size, "code": at + log_size + table,
        "private": mapped[2], "pc": registers.rip, "slice": _SLICE,
        "code_start": base, "code_end": base + full.blob.data, "region_count": len(regions),
        **dict(zip(parts, mapped[3:], strict=True)),
    }  # fmt: skip
    state = np.zeros(1, full.blob.types["state"])
    for name, value in values.items():
        state[name] = value
    state["regions"][0, : len(regions)] = regions
    i.write(base, "full", state.tobytes())
    registers.rip = base + full.blob.symbols["begin"]
    tracee.set_registers(registers)
    return Entered(memory, i.own)


def _low(found: list[Mapping], size: int) -> int:
    """A free place as high as may be below 2 GiB: low are the heaps of programs that are not
    position-independent."""
    high = _HIGHEST
    for m in sorted(found, key=lambda m: m.start, reverse=True):
        if m.start >= _HIGHEST:
            continue
        if high - max(m.end, _STEP) >= size + 2 * _STEP:
            break
        high = min(high, m.start)
    at = (high - size - _STEP) // _STEP * _STEP
    if at < _STEP:
        raise OSError(errno.ENOMEM, "no room below 2 GiB")
    return at


def _own_code(m: Mapping) -> Mapping:
    """Shared memory may be written under another address: it counts as of no file."""
    shared = m.permissions[3:] == "s" or m.path.startswith("/memfd:")
    return replace(m, inode=0) if shared else m


def code_of(pid: int, own: list[tuple[int, int]]) -> tuple[
    list[Mapping], list[tuple[int, int, int]]
]:
    """Mappings of executable memory of a process, and what may be copied of it."""
    found = mappings(pid)
    code = [m for m in found if "x" in m.permissions
            and not any(m.start < high and low < m.end for low, high in own)]
    return code, code_ranges(map(_own_code, found), own) + sequences(found)
