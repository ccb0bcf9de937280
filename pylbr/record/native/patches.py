"""Places in a program's code that the recorder changes or must not copy."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

from pylbr.files.elf import DAMAGE, ELFFile, relative_relocations
from pylbr.record.native.ranges import CLOSED, Mapping

__all__ = ["CALL", "THUNK_SIZE", "calls", "jump", "sequences", "thunk"]

#: mov $13, %eax; syscall: how every C library and Go's runtime call rt_sigaction.
CALL: Final = bytes.fromhex("b80d0000000f05")
THUNK_SIZE: Final = 32
#: struct rseq_cs of linux/rseq.h: version, flags, start, length, address of the abort handler.
_SEQUENCE: Final = struct.Struct("<IIQQQ")
_SECTION: Final = "__rseq_cs"


def jump(source: int, target: int) -> bytes:
    """What replaces `CALL` at `source`."""
    return b"\xe9" + struct.pack("<i", target - (source + 5)) + b"\x66\x90"


def thunk(at: int, back: int, entry: int) -> bytes:
    """lea back, %rcx; jmp *entry: a system call changes RCX anyway."""
    code = b"\x48\x8d\x0d" + struct.pack("<i", back - (at + 7)) + b"\xff\x25\0\0\0\0"
    return (code + struct.pack("<Q", entry)).ljust(THUNK_SIZE, b"\xcc")


def calls(found: Iterable[Mapping]) -> Iterator[int]:
    """Addresses of `CALL` in the code of files."""
    for m in _files(found):
        for offset in _call_offsets(m.path, m.inode):
            if m.offset <= offset < m.offset + (m.end - m.start):
                yield m.start + offset - m.offset


def _files(found: Iterable[Mapping]) -> Iterator[Mapping]:
    return (m for m in found if "x" in m.permissions and m.inode and m.path.startswith("/"))


@lru_cache(maxsize=1024)
def _call_offsets(path: str, inode: int) -> tuple[int, ...]:
    result = []
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_ino != inode:
                return ()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                at = data.find(CALL)
                while at >= 0:
                    result.append(at)
                    at = data.find(CALL, at + 1)
    except (OSError, ValueError):  # gone, or empty
        return ()
    return tuple(result)


def sequences(found: Iterable[Mapping]) -> list[tuple[int, int, int]]:
    """Restartable sequences (start, end, CLOSED) of the files: the kernel identifies one by its
    address, so a copy would not be restarted."""
    result = []
    for m in _files(found):
        for segment, start, length in _file_sequences(m.path, m.inode):
            vaddr, offset = segment
            at = m.start + (start - vaddr + offset) - m.offset
            if m.start <= at < m.end:
                result.append((at, at + length, CLOSED))
    return result


@lru_cache(maxsize=1024)
def _file_sequences(path: str, inode: int) -> tuple[tuple[tuple[int, int], int, int], ...]:
    """((vaddr, offset) of the segment, start, length) of each."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_ino != inode:
                return ()
            elf = ELFFile(file)
            section = elf.get_section_by_name(_SECTION)
            return tuple(_described(elf, section)) if section is not None else ()
    except DAMAGE:  # or gone
        return ()


def _described(elf: Any, section: Any) -> Iterator[tuple[tuple[int, int], int, int]]:
    data, base, moved = section.data(), section["sh_addr"], relative_relocations(elf)
    loads = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD"]
    for at in range(0, len(data) // _SEQUENCE.size * _SEQUENCE.size, _SEQUENCE.size):
        _, _, start, length, _ = _SEQUENCE.unpack_from(data, at)
        start = moved.get(base + at + 8, start)
        for load in loads:
            if load["p_vaddr"] <= start < load["p_vaddr"] + load["p_filesz"]:
                yield (load["p_vaddr"], load["p_offset"]), start, length
