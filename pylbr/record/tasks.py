"""Which threads ran in which slots, and the records that perf would write of them."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from pylbr.files.elf import read_build_id
from pylbr.perf.stacks import Comm, Exit, Fork, Mmap
from pylbr.record.wire_numbers import IMAGE, Message

__all__ = ["Task", "Tasks"]

#: Images of one process that have numbers of their own; later ones share them.
_IMAGES: Final = 512


@dataclass(slots=True)
class Task:
    """A thread while it has a slot.

    Attributes
    ----------
    index : int
        Number of the task in the order of their starts.
    slot : int
    pid, tid : int
        As the system has them.
    parent : int
        Number in files of the process that made this one.
    started : int
        CLOCK_MONOTONIC, ns.
    shift : int
        What its numbers in files are greater by: `wire_numbers.IMAGE` for each program that its
        process had executed before.
    """

    index: int
    slot: int
    pid: int
    tid: int
    parent: int
    started: int
    shift: int

    @property
    def number(self) -> int:
        """The tid in files."""
        return self.tid + self.shift

    @property
    def process(self) -> int:
        """The pid in files."""
        return self.pid + self.shift


@dataclass(slots=True)
class _Process:
    """What is known of a process as long as it lives, by its pid."""

    image: int = 0
    mappings: list[Mmap] = field(default_factory=list)
    names: dict[int, tuple[int, str]] = field(default_factory=dict)  # tid: since when, name

    @property
    def shift(self) -> int:
        return self.image % _IMAGES * IMAGE


class Tasks:
    """Turns slots and messages into perf's records.

    Each program that a process executes has a pid of its own, and a forked process has its
    parent's mappings written again: readers that look at neither time nor FORK need both.

    Attributes
    ----------
    remarks : list of str
        Programs that ran natively, unrecorded, and processes that had to be killed.
    """

    def __init__(self) -> None:
        self._by_slot: dict[tuple[int, int], Task] = {}
        self._processes: dict[int, _Process] = {}
        self._count = 0
        self.remarks: list[str] = []

    def at(
        self, slot: int, pid: int, tid: int, parent: int, started: int
    ) -> tuple[Task, list[Fork | Mmap]]:
        """The task in a slot, and the records of its beginning if it is new."""
        key = (slot, started)
        if key in self._by_slot:
            return self._by_slot[key], []
        said: list[Fork | Mmap] = []
        process = self._processes.get(pid)
        before = self._processes.get(parent, _Process())
        if process is None:
            process = self._processes[pid] = _Process()
            if self._count:
                said += _forked(process, before, pid, tid, parent, started)
        elif tid != pid:
            owner = pid + process.shift
            said.append(Fork(owner, owner, tid + process.shift, owner, started))
            if process.names.get(tid, (started, ""))[0] < started:
                del process.names[tid]  # readers begin with the parent's again
        else:
            process.image += 1
            process.mappings, process.names = [], {}
        parent += before.shift
        task = Task(self._count, slot, pid, tid, parent, started, process.shift)
        self._by_slot[key] = task
        self._count += 1
        return task, said

    def others(self, task: Task) -> list[Task]:
        """Tasks of the same process that an execve by `task` has ended."""
        return [
            x for x in self._by_slot.values() if x.pid == task.pid and x.started < task.started
        ]

    def live(self) -> list[Task]:
        return list(self._by_slot.values())

    def end(self, task: Task, time: int, replaced: bool = False) -> Exit:
        """Forget a task; `replaced`: an execve has ended it, its process lives."""
        self._by_slot = {key: x for key, x in self._by_slot.items() if x is not task}
        if not replaced and not any(x.pid == task.pid for x in self._by_slot.values()):
            self._processes.pop(task.pid, None)
        return Exit(task.process, task.parent, task.number, task.parent, time)

    def message(self, task: Task, kind: int, time: int, body: bytes) -> Mmap | Comm | None:
        """The record that a message of the plugin stands for."""
        process = self._processes.setdefault(task.pid, _Process())
        if kind == Message.MMAP and len(body) >= 24:
            start, length, offset = struct.unpack_from("<QQQ", body)
            path = os.fsdecode(body[24:])
            found = mapping(task.process, task.number, start, length, offset, path, time)
            process.mappings.append(found)
            return found
        if kind in (Message.COMM, Message.NAME) and len(body) >= 4:
            (tid,) = struct.unpack_from("<I", body)
            return self._named(task, process, tid, os.fsdecode(body[4:]), time,
                               kind == Message.COMM)
        name, _, reason = body.partition(b"\0")
        if kind == Message.NATIVE:
            self._remark(f"{os.fsdecode(name)} ran unrecorded: {os.fsdecode(reason)}")
        if kind == Message.KILLED:
            self._remark(f"{os.fsdecode(name)} was killed: {os.fsdecode(reason)}")
        return None

    def _named(
        self, task: Task, process: _Process, tid: int, name: str, time: int, started: bool
    ) -> Comm | None:
        """A name that is news; another thread's message may have been read first."""
        since, known = process.names.get(tid, (0, None))
        if not started and (name == known or time < since):
            return None
        process.names[tid] = time, name
        return Comm(task.process, tid + task.shift, name, started, time)

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


def _forked(
    process: _Process, parent: _Process, pid: int, tid: int, ppid: int, started: int
) -> list[Fork | Mmap]:
    process.mappings = [
        replace(m, pid=pid, tid=tid, time=started) for m in parent.mappings if m.time <= started
    ]
    owner = ppid + parent.shift
    return [Fork(pid, owner, tid, owner, started), *process.mappings]


def mapping(
    pid: int, tid: int, start: int, length: int, offset: int, path: str, time: int
) -> Mmap:
    """PERF_RECORD_MMAP2 of executable memory."""
    build, inode = _file_facts(path)
    return Mmap(pid, tid, start, length, offset, path, build, inode=inode, time=time)


@lru_cache(maxsize=1024)
def _file_facts(path: str) -> tuple[bytes, int]:
    """Build-id, if the file has a GNU one, and inode."""
    if not path.startswith("/") or path.startswith("//"):
        return b"", 0
    try:
        # What the program calls its file may be a pipe, which would be waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                return b"", 0
            inode = facts.st_ino
            return read_build_id(file), inode
    except (OSError, ValueError):
        return b"", 0
