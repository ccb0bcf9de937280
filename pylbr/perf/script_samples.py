"""Samples of ``perf script`` that the compiled parser leaves: line by line.

A sample is one line, or several: with a call chain its frames stand between the columns and
the entries, and with ``srcline`` there are lines that name the source.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, MISC_KERNEL, MISC_USER
from pylbr.perf.brstack import (
    FIRST_ENTRY,
    Column,
    Prefix,
    hash_of,
    parse_entries,
    parse_head,
    parse_prefix,
)
from pylbr.perf.stacks import Mmap, Samples

__all__ = ["LineFault", "Sample", "SampleLines", "batch", "is_sample"]

_KERNEL_HALF: Final = 1 << 63
_FRAME: Final = re.compile(rb"\t(?=[ 0-9a-f]{16}(?: |$)) *([0-9a-f]{1,16})(?: .*\(([^()]+)\)$| |$)")
_SYMBOLIC: Final = re.compile(rb"/[MPN-]{1,2}/[X-]/[A-](/|$)")
_SOURCE_CODE: Final = re.compile(rb"\|\d+ ")
_SOURCE_LINE: Final = re.compile(rb"  [^ \t]")
_INSTRUCTIONS: Final = re.compile(rb"^\t[0-9a-f]{16}\t|\tinsn: |^\t.*:\t?$")
#: What perf prints after the entries: instruction, physical address, page sizes, IPC.
_AFTER: Final = re.compile(
    rb"(?:ilen: -?\d+ ?)? *(?:insn:(?: [0-9a-f]{2})+)? *(?:[0-9a-f]{1,16}(?= |$))? *"
    rb"(?:(?:\d+[KMGT]|N/A) ?)*(?:[\t ]*IPC: [0-9.]+ \(\d+/\d+\) *)?"
)
_BUILD_ID: Final = re.compile(rb"(?<![^ /])([0-9a-f]{2,40}):(?=0x)")
_IP_BUILD_ID: Final = re.compile(rb"(?<![^ ])([0-9a-f]{2,40}):(?=[0-9a-f]{1,16} )")

_BAD_ENTRY: Final = "an entry that perf does not print"
_NO_LINE: Final = "is no line of perf script"
_COLUMNS: Final = (
    "columns that are not known, or not as wide as perf prints them; print them with "
    "perf script -F comm,pid,tid,cpu,time,period,event,ip,brstack"
)


class LineFault(ValueError):
    """A line is none that perf prints; `before` is 1 if it is the one before that is fed."""

    def __init__(self, what: str, before: int = 0) -> None:
        super().__init__(what)
        self.before = before


@dataclass(slots=True)
class Sample:
    """A sample of one line or several."""

    prefix: Prefix
    frames: list[tuple[int, bytes]] = field(default_factory=list)  # and the file, if named
    chain: list[int] = field(default_factory=list)
    entries: list[tuple[int, int, int]] = field(default_factory=list)
    padded: bool = True  # its columns make a sample, without a call chain and entries


class SampleLines:
    """Puts samples together.

    Attributes
    ----------
    done : list
        Samples that are whole, oldest first, until they are taken out.
    columns : int
        `Column` of all samples so far.
    chains : bool
        Whether one had a call chain.
    """

    def __init__(self) -> None:
        self.done: list[Sample] = []
        self.columns, self.chains = 0, False
        self._open: Sample | None = None
        self._build_id = b""
        self._frames = _Frames()

    @property
    def unfinished(self) -> bool:
        """Whether the next line may belong to the sample before it."""
        return self._open is not None

    def map(self, record: Mmap) -> None:
        """Note a mapping, by which addresses of call chains are found."""
        self._frames.add(record)

    def feed(self, line: bytes) -> None:
        """Take a line.

        Raises
        ------
        LineFault
        """
        if self._open is not None and self._continued(self._open, line):
            return
        self.finish()
        if not line.strip() or _SOURCE_CODE.match(line):
            return
        if frame := _FRAME.match(line):
            self._open = Sample(Prefix(), [(int(frame[1], 16), frame[2] or b"")])
            return
        prefix, entries = self._parse(line)
        if entries is None:
            alone = parse_prefix(line)
            self._open = Sample(prefix, padded=alone is not None and alone.columns > 0)
        else:
            self._add(Sample(prefix, entries=entries))

    def finish(self) -> None:
        """The sample before ends here, if there is one."""
        sample, self._open = self._open, None
        if sample is None:
            return
        if not sample.frames and not sample.padded:
            raise LineFault(_NO_LINE, before=1)
        self._add(sample)

    def _add(self, sample: Sample) -> None:
        if sample.frames:
            sample.chain = self._frames.absolute(sample.prefix.pid, sample.frames)
            sample.prefix = sample.prefix._replace(
                ip=next(iter(sample.chain), 0), columns=sample.prefix.columns | Column.IP)
            self.chains = True
        self.columns |= sample.prefix.columns
        self.done.append(sample)

    def _continued(self, sample: Sample, line: bytes) -> bool:
        """Whether the line continues the sample."""
        if _INSTRUCTIONS.search(line):
            raise LineFault("instructions between the branches; print them without brstackinsn")
        if not sample.prefix.columns & Column.IP and (frame := _FRAME.match(line)):
            sample.frames.append((int(frame[1], 16), frame[2] or b""))
            return True
        first = FIRST_ENTRY.search(line)
        head = line if first is None else line[:first.start()]
        if head.strip(b" ") and not self._names_source(sample, head):
            return False
        if first is not None:
            sample.entries = _entries(line[first.start():])
            self._open = None
            self._add(sample)
        return first is not None or bool(head.strip(b" "))

    def _names_source(self, sample: Sample, text: bytes) -> bool:
        """Whether it is the source line of an address; a sample would have its columns."""
        if not _SOURCE_LINE.match(text) or not (
                sample.frames or sample.prefix.columns & Column.IP):
            return False
        own = parse_head(text)
        return own is None or bool(sample.prefix.columns & ~own.columns)

    def _parse(self, line: bytes) -> tuple[Prefix, list[tuple[int, int, int]] | None]:
        """Columns and entries of a sample's first line; None if entries may follow."""
        if b":0x" in line:
            line = self._without_build_id(line)
        first = FIRST_ENTRY.search(line)
        prefix = parse_head(line if first is None else line[:first.start()], first is None)
        if first is not None:
            entries = _entries(line[first.start():])
            if prefix is None:
                raise LineFault(_COLUMNS)
            return prefix, entries
        if _SYMBOLIC.search(line):
            raise LineFault(
                "symbols in place of addresses; print them with perf script -F +brstack")
        if prefix is None:
            raise LineFault(_NO_LINE)
        return prefix, None

    def _without_build_id(self, line: bytes) -> bytes:
        """Addresses of one file, ``BUILDID:0xADDRESS``, as plain ones."""
        plain, count = _BUILD_ID.subn(b"", line)
        found = set(_BUILD_ID.findall(line)) | set(_IP_BUILD_ID.findall(line))
        if not found:
            return line
        self._build_id = self._build_id or min(found)
        if found != {self._build_id} or count != plain.count(b"0x"):
            raise LineFault(
                "addresses of several files, by their build-ids; give those of one file alone")
        return _IP_BUILD_ID.sub(b"", plain)


def batch(samples: list[Sample], index: dict[int, int]) -> Samples:
    """The samples as arrays; `index` is that of an event by the hash of its name."""
    rows = [sample.prefix for sample in samples]
    ip = np.array([row.ip for row in rows], np.uint64)
    columns = {name: [getattr(row, name) for row in rows]
               for name in ("pid", "tid", "time", "cpu", "period")}
    chains = {}
    if any(sample.chain for sample in samples):
        chains["chain_offsets"] = np.cumsum(
            [0, *(len(sample.chain) for sample in samples)], dtype=np.int64)
        chains["chain"] = np.array(
            [frame for sample in samples for frame in sample.chain], np.uint64)
    return Samples.build(
        np.cumsum([0, *(len(sample.entries) for sample in samples)]),
        np.array([entry for sample in samples for entry in sample.entries], BRANCH_ENTRY_DTYPE),
        ip=ip, event=[index[hash_of(row.event)] for row in rows],
        misc=np.where(ip < np.uint64(_KERNEL_HALF), MISC_USER, MISC_KERNEL), **columns, **chains,
    )


def _entries(text: bytes) -> list[tuple[int, int, int]]:
    """The entries of a line, and after them columns of no account here."""
    found, end = parse_entries(text)
    if found is None or not found or not _AFTER.fullmatch(text, end):
        raise LineFault(_BAD_ENTRY)
    return found


class _Frames:
    """Addresses of call chains.

    perf 6 prints those of user space relative to their file (address - start of the mapping
    + offset in the file), older versions as they are.  Which it is, the mappings show that
    stand in the text; where there are none, addresses are taken as they are.
    """

    def __init__(self) -> None:
        self._maps: dict[int, list[Mmap]] = {}

    def add(self, record: Mmap) -> None:
        if record.pid >= 0:
            self._maps.setdefault(record.pid, []).append(record)

    def absolute(self, pid: int, chain: list[tuple[int, bytes]]) -> list[int]:
        """Linear addresses, up to the first that lies in several files of the process."""
        maps = self._maps.get(pid) or [m for maps in self._maps.values() for m in maps]
        found = []
        for frame, path in chain:
            places = _places(maps, frame, os.fsdecode(path))
            if len(places) > 1:
                break
            found.append(places.pop())
        return found


def _places(maps: list[Mmap], frame: int, path: str) -> set[int]:
    """Where a frame may lie in memory."""
    if frame >= _KERNEL_HALF or any(0 <= frame - m.start < m.length for m in maps):
        return {frame}
    return {
        m.start + frame - m.file_offset for m in maps
        if 0 <= frame - m.file_offset < m.length and path in ("", m.path)
    } or {frame}


def is_sample(line: bytes) -> bool:
    """Whether a line is a sample with entries."""
    lines = SampleLines()
    try:
        lines.feed(line)
    except LineFault:
        return False
    return bool(lines.done and lines.done[0].entries)
