"""What happens to processes, read in /proc again and again: where perf may not report it."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from pylbr.record.native.perf import SideRecord
from pylbr.record.native.ranges import mappings

__all__ = ["Polled"]

_COMM, _EXIT, _FORK, _MMAP2 = 3, 4, 7, 10
_COMM_EXEC: Final = 1 << 13
_LOOK_SECONDS: Final = 0.01
#: Mappings are looked at once in so many times.
_MAPS: Final = 4


@dataclass(slots=True)
class _Seen:
    """A process as it was when it was last looked at."""

    program: tuple[str, bytes]
    threads: dict[int, str] = field(default_factory=dict)  # tid: name
    code: set[tuple[int, int, int, str]] = field(default_factory=set)


class Polled:
    """See `pylbr.record.native.ticks.Side`; what begins and ends between two looks is not seen.

    Parameters
    ----------
    tids : iterable of int
        Threads of one process, the leader first.
    """

    descriptors: list[int] = []

    def __init__(self, tids: Iterable[int]) -> None:
        found = list(tids)
        names = {tid: _name(found[0], tid) for tid in found}
        self._seen = {found[0]: _Seen(_program(found[0]), names)}
        self._waiting: list[SideRecord] = []
        self._next, self._count = 0.0, 0
        with suppress(OSError):  # what was there is described by the caller that attaches
            self._seen[found[0]].code = _code(found[0])

    def records(self) -> list[SideRecord]:
        """See `Side.records`."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _LOOK_SECONDS
            self._count += 1
            for pid in list(self._seen):
                self._waiting += self._look(pid, self._count % _MAPS == 0)
        found, self._waiting = self._waiting, []
        return found

    def entered(self, pid: int) -> None:
        """See `Side.entered`."""
        if pid in self._seen:
            self._waiting += self._look(pid, True)

    def close(self) -> None:
        """See `Side.close`."""

    def _look(self, pid: int, thoroughly: bool) -> Iterator[SideRecord]:
        now, seen = time.monotonic_ns(), self._seen[pid]
        try:
            tids = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
            if not tids or _is_dead(pid):
                raise ProcessLookupError
            program = _program(pid)
        except OSError:
            del self._seen[pid]
            for tid in seen.threads:
                yield _record(_EXIT, struct.pack("<iiii", pid, pid, tid, tid), now)
            return
        if program != seen.program:
            seen.program, thoroughly = program, True
            seen.threads, seen.code = {pid: _name(pid, pid)}, set()
            yield _named(pid, pid, seen.threads[pid], now, _COMM_EXEC)
        yield from self._threads(pid, seen, tids, now)
        if thoroughly:
            with suppress(OSError):
                code = _code(pid)
                for start, end, offset, path in sorted(code - seen.code):
                    body = struct.pack("<iiQQQ", pid, pid, start, end - start, offset)
                    yield _record(_MMAP2, body.ljust(64, b"\0") + os.fsencode(path) + b"\0", now)
                seen.code = code

    def _threads(self, pid: int, seen: _Seen, tids: list[int], now: int) -> Iterator[SideRecord]:
        for tid in set(seen.threads) - set(tids):
            del seen.threads[tid]
            yield _record(_EXIT, struct.pack("<iiii", pid, pid, tid, tid), now)
        for tid in tids:
            name = _name(pid, tid)
            if tid not in seen.threads:
                yield _record(_FORK, struct.pack("<iiii", pid, pid, tid, pid), now)
            if seen.threads.get(tid) != name:
                yield _named(pid, tid, name, now)
            seen.threads[tid] = name
            for child in _children(pid, tid):
                if child not in self._seen and not _is_dead(child):
                    yield from self._born(child, pid, tid, seen, now)

    def _born(self, child: int, pid: int, tid: int, seen: _Seen, now: int) -> Iterator[SideRecord]:
        """A child as the copy of its parent that it was; `records` then sees what it became."""
        self._seen[child] = _Seen(seen.program, {child: seen.threads[tid]}, set(seen.code))
        yield _record(_FORK, struct.pack("<iiii", child, pid, child, tid), now)
        yield from self._look(child, True)


def _record(kind: int, body: bytes, now: int, misc: int = 0) -> SideRecord:
    return SideRecord(kind, misc, body, now)


def _named(pid: int, tid: int, name: str, now: int, misc: int = 0) -> SideRecord:
    return _record(_COMM, struct.pack("<ii", pid, tid) + os.fsencode(name) + b"\0", now, misc)


def _program(pid: int) -> tuple[str, bytes]:
    """The executed file, and the auxiliary vector, random addresses included."""
    with open(f"/proc/{pid}/auxv", "rb") as file:
        return os.readlink(f"/proc/{pid}/exe"), file.read()


def _name(pid: int, tid: int) -> str:
    try:
        with open(f"/proc/{pid}/task/{tid}/comm", "rb") as file:
            return os.fsdecode(file.read().rstrip(b"\n"))
    except OSError:
        return ""


def _children(pid: int, tid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{tid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:  # it has ended, or the kernel does not list them (CONFIG_PROC_CHILDREN)
        return []


def _code(pid: int) -> set[tuple[int, int, int, str]]:
    return {(m.start, m.end, m.offset, m.path or "//anon") for m in mappings(pid)
            if "x" in m.permissions and m.path != "[vsyscall]"}


def _is_dead(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True
