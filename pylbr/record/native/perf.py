"""perf_event_open as far as the recorder uses it: ticks, and perf's records of tasks."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["SIGNAL", "PerfTicks", "SideBand", "SideRecord"]

_PERF_EVENT_OPEN: Final = 298
_SOFTWARE, _CPU_CLOCK, _DUMMY = 1, 0, 9
_CLOEXEC: Final = 8
_ENABLE, _PERIOD, _SET_OUTPUT = 0x2400, 0x40082404, 0x2405
_F_SETOWN_EX, _F_OWNER_TID, _F_SETSIG = 15, 0, 10
_PAGES: Final = 64
_TID, _TIME, _CPU = 1 << 1, 1 << 2, 1 << 7
# Bits of perf_event_attr after `read_format`.
_DISABLED, _INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HV = 1 << 0, 1 << 1, 1 << 5, 1 << 6
_MMAP, _COMM, _TASK, _WATERMARK = 1 << 8, 1 << 9, 1 << 13, 1 << 14
_SAMPLE_ID_ALL, _MMAP2, _COMM_EXEC, _USE_CLOCKID = 1 << 18, 1 << 23, 1 << 24, 1 << 25
_SIDE_FLAGS: Final = (
    _INHERIT | _EXCLUDE_KERNEL | _EXCLUDE_HV | _MMAP | _MMAP2 | _COMM | _COMM_EXEC | _TASK
    | _WATERMARK | _SAMPLE_ID_ALL | _USE_CLOCKID
)  # fmt: skip
_HIGH: Final = 2048
_CLOCK_MONOTONIC: Final = 1
_ATTR_SIZE: Final = 112  # PERF_ATTR_SIZE_VER5
#: What a tick sends: ignored by default, so that a program that resets it lives on.
SIGNAL: Final = 23  # SIGURG

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _open(
    config: int, flags: int, pid: int, cpu: int, period: int = 0, sample_type: int = 0,
    watermark: int = 0,
) -> int:  # fmt: skip
    attr = struct.pack(
        "<IIQQQQQII4QII", _SOFTWARE, _ATTR_SIZE, config, period, sample_type, 0, flags, watermark,
        0, 0, 0, 0, 0, 0, _CLOCK_MONOTONIC,
    ).ljust(_ATTR_SIZE, b"\0")  # fmt: skip
    buffer = ctypes.create_string_buffer(attr, _ATTR_SIZE)
    fd = int(_libc.syscall(_PERF_EVENT_OPEN, buffer, pid, cpu, -1, _CLOEXEC))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


class PerfTicks:
    """See `pylbr.record.native.ticks.Ticks`: keys are descriptors, and the signals' ``si_fd``."""

    exact = True
    most = 50_000

    @staticmethod
    def check() -> None:
        """Raise OSError where there are no perf events to be had."""
        SideBand([os.getpid()]).close()
        ticks = PerfTicks()
        ticks.remove(ticks.add(os.getpid(), os.getpid(), 1_000_000_000))

    def add(self, pid: int, tid: int, period: int) -> int:
        """See `Ticks.add`."""
        fd = _open(_CPU_CLOCK, _DISABLED | _EXCLUDE_KERNEL | _EXCLUDE_HV, tid, -1, period)
        try:
            fcntl.fcntl(fd, _F_SETOWN_EX, struct.pack("<ii", _F_OWNER_TID, tid))
            fcntl.fcntl(fd, _F_SETSIG, SIGNAL)
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def enable(self, key: int) -> None:
        """See `Ticks.enable`."""
        fcntl.ioctl(key, _ENABLE, 0)

    def change(self, key: int, period: int) -> None:
        """See `Ticks.change`."""
        fcntl.ioctl(key, _PERIOD, struct.pack("<Q", period))

    def spent(self, key: int) -> int:
        """See `Ticks.spent`; in user mode."""
        return int.from_bytes(os.read(key, 8), "little")

    def remove(self, key: int) -> None:
        """See `Ticks.remove`."""
        os.close(key)

    def watch(self, tids: Iterable[int]) -> SideBand:
        """See `Ticks.watch`."""
        return SideBand(tids)

    def close(self) -> None:
        """See `Ticks.close`: the keys are all there is."""


@dataclass(frozen=True, slots=True)
class SideRecord:
    """A record of perf: `kind` is ``perf_event_type``, `misc` its flags, `body` what follows
    the header, `time` CLOCK_MONOTONIC."""

    kind: int
    misc: int
    body: bytes
    time: int


class SideBand:
    """perf's records of a process, its threads and its descendants: COMM, FORK, EXIT, MMAP2, LOST.

    Parameters
    ----------
    tids : iterable of int
        Threads; what they make is followed, too.

    Raises
    ------
    OSError
    """

    def __init__(self, tids: Iterable[int]) -> None:
        self._events: list[int] = []
        self._rings: dict[int, tuple[int, mmap.mmap]] = {}  # by processor: its event, memory
        try:
            for tid in tids:
                for cpu in sorted(_online()):
                    self._add(tid, cpu)
        except BaseException:
            self.close()
            raise

    def _add(self, tid: int, cpu: int) -> None:
        try:
            fd = _high(_open(_DUMMY, _SIDE_FLAGS, tid, cpu, 0, _TID | _TIME | _CPU, 1))
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.ESRCH):  # went offline; has ended
                return
            raise
        self._events.append(fd)
        if cpu in self._rings:
            fcntl.ioctl(fd, _SET_OUTPUT, self._rings[cpu][0])
        else:
            self._rings[cpu] = fd, mmap.mmap(fd, (1 + _PAGES) * mmap.PAGESIZE)

    @property
    def descriptors(self) -> list[int]:
        """To poll for POLLIN."""
        return [fd for fd, _ in self._rings.values()]

    def records(self) -> list[SideRecord]:
        """What has been written since the last call, by time."""
        found = [record for _, ring in self._rings.values() for record in _drain(ring)]
        return sorted(found, key=lambda record: record.time)

    def entered(self, pid: int) -> None:
        """See `pylbr.record.native.ticks.Side`: perf needs no telling."""

    def close(self) -> None:
        for _, ring in self._rings.values():
            ring.close()
        for fd in self._events:
            os.close(fd)
        self._rings, self._events = {}, []


def _high(fd: int) -> int:
    """The descriptor under a high number: low ones name threads."""
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    except OSError:  # beyond the limit
        return fd
    os.close(fd)
    return moved


def _online() -> set[int]:
    with open("/sys/devices/system/cpu/online") as file:
        parts = [part.split("-") for part in file.read().strip().split(",")]
    return {cpu for part in parts for cpu in range(int(part[0]), int(part[-1]) + 1)}


def _drain(ring: mmap.mmap) -> Iterator[SideRecord]:
    """struct perf_event_mmap_page: data_head at 1024, data_tail at 1032."""
    head, tail = struct.unpack_from("<QQ", ring, 1024)
    size = _PAGES * mmap.PAGESIZE
    data = ring[mmap.PAGESIZE :] if head != tail else b""
    doubled = data + data
    while tail < head:
        at = tail % size
        kind, misc, length = struct.unpack_from("<IHH", doubled, at)
        if length < 8:
            break
        body = doubled[at + 8 : at + length]
        # sample_id: pid and tid, time, cpu
        time = int.from_bytes(body[-16:-8], "little")
        yield SideRecord(kind, misc, body[:-24], time)
        tail += length
    struct.pack_into("<Q", ring, 1032, tail)
