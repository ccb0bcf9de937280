"""Which threads ran in which slots, and what perf would say of them."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from pylbr.record.constants import IMAGE
from pylbr.trace.stacks import Comm, Exit, Fork, Mmap

__all__ = ["Task", "Tasks"]

_MMAP, _COMM, _NATIVE, _KILLED = 2, 3, 4, 5
_COMM_LENGTH: Final = 15  # TASK_COMM_LEN without the NUL


@dataclass(slots=True)
class Task:
    """A thread while it has a slot; `number` names it in a trace."""

    index: int
    slot: int
    pid: int
    tid: int
    parent: int
    started: int
    number: int
    name: str = ""


class Tasks:
    """Turns slots and messages into perf's records.

    Attributes
    ----------
    remarks : list of str
        Programs that ran natively, unrecorded, and processes that had to be killed.
    """

    def __init__(self) -> None:
        self._by_slot: dict[tuple[int, int], Task] = {}
        self._names: dict[int, str] = {}
        self._images: dict[int, int] = {}
        self._count = 0
        self.remarks: list[str] = []

    def at(
        self, slot: int, pid: int, tid: int, parent: int, started: int
    ) -> tuple[Task, list[Fork | Comm]]:
        """The task in a slot, and what is to be said of it if it is new."""
        key = (slot, started)
        if key in self._by_slot:
            return self._by_slot[key], []
        said: list[Fork | Comm] = []
        if self._count and pid not in self._names:
            said.append(Fork(pid, parent, tid, parent, started))
            self._names[pid] = self._names.get(parent, "")
        elif pid in self._names and tid != pid:
            said.append(Fork(pid, pid, tid, pid, started))
        elif pid in self._names:
            self._images[pid] = self._images.get(pid, 0) + 1
        number = tid + self._images.get(pid, 0) * IMAGE
        name = self._names.get(pid, "")
        task = Task(self._count, slot, pid, tid, parent, started, number, name)
        self._names.setdefault(pid, "")
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
            self._names.pop(task.pid, None)
            self._images.pop(task.pid, None)
        return Exit(task.pid, task.parent, task.tid, task.parent, time)

    def message(self, task: Task, kind: int, time: int, body: bytes) -> Mmap | Comm | None:
        """The record that a message of the plugin stands for."""
        if kind == _MMAP and len(body) >= 24:
            start, length, offset = struct.unpack_from("<QQQ", body)
            path = os.fsdecode(body[24:])
            return mapping(task.pid, task.tid, start, length, offset, path, time)
        if kind == _COMM:
            task.name = os.path.basename(os.fsdecode(body))[:_COMM_LENGTH]
            self._names[task.pid] = task.name
            return Comm(task.pid, task.tid, task.name, True, time)
        if kind == _NATIVE:
            name, _, reason = body.partition(b"\0")
            self._remark(f"{os.fsdecode(name)} ran unrecorded: {os.fsdecode(reason)}")
        if kind == _KILLED:
            self._remark(
                f"a child of {os.fsdecode(body)} was killed: this QEMU would hang, for it cannot "
                "run threads in the child of a threaded process"
            )
        return None

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


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
        with open(path, "rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            section = ELFFile(file).get_section_by_name(".note.gnu.build-id")
            note = section.data() if section is not None else b""
            return note[16:36], inode
    except (OSError, ELFError, ValueError, struct.error):
        return b"", 0
