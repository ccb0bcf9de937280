"""Numbers of processes in files, where each program that a process executes has its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from pylbr.perf.stacks import Comm, Exit, Fork, Mmap
from pylbr.record.wire_numbers import IMAGE

__all__ = ["Numbers"]

#: Images of one process that have numbers of their own; later ones share them.
_IMAGES: Final = 512


class Numbers:
    """Turns perf's records into those of a file, as `pylbr.record.tasks.Tasks` does for QEMU.

    Each program that a process executes has a pid of its own, and a forked process has its
    parent's mappings written again: readers that look at neither time nor FORK need both.
    """

    def __init__(self) -> None:
        self._images: dict[int, int] = {}
        self._mappings: dict[int, list[Mmap]] = {}

    def shift(self, pid: int) -> int:
        """What the numbers of a process in files are greater by."""
        return self._images.get(pid, 0) % _IMAGES * IMAGE

    def executed(self, pid: int) -> None:
        """The process runs another program from here on."""
        self._images[pid] = self._images.get(pid, 0) + 1
        self._mappings[pid] = []

    def mapped(self, record: Mmap) -> Mmap:
        shift = self.shift(record.pid)
        moved = replace(record, pid=record.pid + shift, tid=record.tid + shift)
        self._mappings.setdefault(record.pid, []).append(moved)
        return moved

    def named(self, record: Comm) -> Comm:
        shift = self.shift(record.pid)
        return replace(record, pid=record.pid + shift, tid=record.tid + shift)

    def forked(self, record: Fork) -> Iterator[Fork | Mmap]:
        shift = self.shift(record.ppid)
        if record.pid == record.ppid:
            yield replace(
                record, pid=record.pid + shift, ppid=record.ppid + shift, tid=record.tid + shift,
                ptid=record.ptid + shift,
            )  # fmt: skip
            return
        self._images.pop(record.pid, None)
        yield replace(record, ppid=record.ppid + shift, ptid=record.ptid + shift)
        for mapping in self._mappings.get(record.ppid, ()):
            yield self.mapped(
                replace(mapping, pid=record.pid, tid=record.tid, time=record.time)
            )

    def ended(self, record: Exit) -> Exit:
        shift, parent = self.shift(record.pid), self.shift(record.ppid)
        return replace(
            record, pid=record.pid + shift, ppid=record.ppid + parent, tid=record.tid + shift,
            ptid=record.ptid + parent,
        )  # fmt: skip

    def forget(self, pid: int) -> None:
        """The process is gone; its number may be given again."""
        self._images.pop(pid, None)
        self._mappings.pop(pid, None)
