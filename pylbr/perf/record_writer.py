"""Records of perf.data other than samples: mappings and tasks."""

from __future__ import annotations

import struct

from pylbr.perf.abi import MISC_CPUMODE, MISC_EXEC, MISC_KERNEL, MISC_USER, SampleType
from pylbr.perf.abi import Record as RecordType
from pylbr.perf.sample_layout import SampleLayout
from pylbr.perf.stacks import Comm, Exit, Fork, Lost, Mmap

__all__ = ["record_bytes"]

_MASK32 = (1 << 32) - 1
#: TASK_COMM_LEN, with its NUL.
_COMM_SIZE = 16


def padded(text: str) -> bytes:
    """NUL-terminated, padded to 8 bytes."""
    data = text.encode("utf-8", "surrogateescape")
    return data + bytes(8 - len(data) % 8)


def _sample_id(layout: SampleLayout, pid: int, tid: int, time: int, cpu: int) -> bytes:
    """The trailer of sample_id_all; the record counts as one of the first event."""
    kind = layout.sample_type
    trailer = struct.pack("<II", pid & _MASK32, tid & _MASK32)
    if kind & SampleType.TIME:
        trailer += struct.pack("<Q", time)
    if kind & SampleType.ID:
        trailer += struct.pack("<Q", layout.ids[0])
    if kind & SampleType.CPU:
        trailer += struct.pack("<II", cpu, 0)
    if kind & SampleType.IDENTIFIER:
        trailer += struct.pack("<Q", layout.ids[0])
    return trailer


def record_bytes(record: Mmap | Comm | Fork | Exit | Lost, layout: SampleLayout) -> bytes:
    """A record as perf.data has it; mappings become MMAP2, whatever they were, those of the kernel
    MMAP, the only form that some readers take of it.

    Raises
    ------
    ValueError
        A path does not fit.
    """
    misc = MISC_USER
    pid = tid = cpu = 0
    if isinstance(record, Mmap):
        kind = RecordType.MMAP if record.pid == -1 else RecordType.MMAP2
        misc = record.misc & MISC_CPUMODE or (MISC_KERNEL if record.pid == -1 else MISC_USER)
        pid, tid, cpu = record.pid, record.tid, record.cpu
        body = struct.pack("<IIQQQ", pid & _MASK32, tid & _MASK32, record.start, record.length,
                           record.file_offset)
        if kind == RecordType.MMAP2:
            body += struct.pack("<IIQQII", record.major, record.minor, record.inode,
                                record.generation, record.prot, record.flags)
        body += padded(record.path)
    elif isinstance(record, Comm):
        kind = RecordType.COMM
        misc = MISC_EXEC if record.exec_ else 0
        pid, tid, cpu = record.pid, record.tid, record.cpu
        name = record.name.encode("utf-8", "surrogateescape")[: _COMM_SIZE - 1]
        body = struct.pack("<II", pid & _MASK32, tid & _MASK32) + name + bytes(8 - len(name) % 8)
    elif isinstance(record, Fork | Exit):
        kind = RecordType.FORK if isinstance(record, Fork) else RecordType.EXIT
        pid, tid, cpu = record.pid, record.tid, record.cpu
        body = struct.pack(
            "<IIIIQ", pid & _MASK32, record.ppid & _MASK32, tid & _MASK32,
            record.ptid & _MASK32, record.time,
        )  # fmt: skip
    else:
        kind, misc = RecordType.LOST, 0
        body = struct.pack("<QQ", layout.ids[0], record.count)
    body += _sample_id(layout, pid, tid, record.time, cpu)
    if len(body) + 8 >= 1 << 16:
        raise ValueError(f"a record of {len(body)} bytes: the path in it is too long")
    return struct.pack("<IHH", kind, misc, 8 + len(body)) + body
