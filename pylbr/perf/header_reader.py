"""Head of a perf.data file: events, features, and where the records lie.

Source: ``tools/perf/Documentation/perf.data-file-format.txt`` of Linux 6.1.  Every size
that the file names is held against the bytes that are there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from pylbr.errors import TraceError
from pylbr.perf.abi import ATTR_SIZES, MISC_CPUMODE, PERF_MAGIC, PIPE_HEADER_SIZE, Feature
from pylbr.perf.stacks import BuildId, Event, StacksMetadata

__all__ = ["Header", "Reader", "parse_attr", "parse_feature", "read_header"]

#: ``read(offset, size)`` gives exactly `size` bytes or raises TraceError.
Reader = Callable[[int, int], bytes]

_HEADER: Final = struct.Struct("<8sQQ6Q4Q")
_SECTION: Final = struct.Struct("<QQ")
_ATTR: Final = struct.Struct("<IIQQQQQ")
#: Largest feature section and id list that is read; a build-id list of 100,000 files.
MAX_SECTION: Final = 32 << 20
#: perf's own header is 128 features wide; ours is the bitmap's width.
_FEATURES: Final = 256


@dataclass(frozen=True, slots=True)
class Header:
    """Where the records are, and what the head contains; `data` is (offset, size)."""

    metadata: StacksMetadata
    data: tuple[int, int]
    pipe: bool


class Cursor:
    """Reads numbers and strings out of a section, and never past its end."""

    def __init__(self, path: object, data: bytes, offset: int, what: str) -> None:
        self.path, self.data, self.offset, self.what, self.at = path, data, offset, what, 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size < 0 or self.at + size > len(self.data):
            raise TraceError(
                self.path, f"{self.what} is cut off or damaged: {size} bytes wanted, "
                f"{len(self.data) - self.at} there", self.offset + self.at,
            )
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, form: str) -> int:
        """The next number."""
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def text(self) -> str:
        """The next string: a length, then bytes up to a NUL."""
        return text(self.take(self.number("I")))

    def left(self) -> int:
        """Bytes up to the end."""
        return len(self.data) - self.at


def text(raw: bytes) -> str:
    """A NUL-terminated string; bytes that are not UTF-8 survive a round trip."""
    return raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def read_header(path: object, read: Reader, size: int) -> Header:
    """Parse the head of a file of `size` bytes.

    Raises
    ------
    TraceError
        Foreign byte order, unknown version, or a section outside of the file.
    """
    magic = read(0, 8) if size >= PIPE_HEADER_SIZE else b""
    if magic == PERF_MAGIC[::-1]:
        raise TraceError(
            path, "was recorded on a big-endian machine, which has no LBR", 0
        )
    if magic == b"PERFFILE":
        raise TraceError(path, "is of perf.data version 1 (before Linux 3.1); version 2 is read", 0)
    if magic != PERF_MAGIC:
        raise TraceError(path, "is no perf.data file: its magic is not PERFILE2", 0)
    header_size = struct.unpack("<Q", read(8, 8))[0]
    if header_size == PIPE_HEADER_SIZE:
        data = (PIPE_HEADER_SIZE, size - PIPE_HEADER_SIZE)
        return Header(StacksMetadata(), data, pipe=True)
    if header_size < _HEADER.size:
        raise TraceError(path, f"a header of {header_size} bytes; {_HEADER.size} are needed", 8)
    fields = _HEADER.unpack(read(0, _HEADER.size))
    attr_size, sections = fields[2], fields[3:9]
    for name, at in (("the events", 0), ("the records", 2)):
        if sections[at] + sections[at + 1] > size:
            raise TraceError(
                path, f"is cut off: {name} reach to byte {sections[at] + sections[at + 1]}, the "
                f"file has {size}; record again, or copy it again", size,
            )
    if sections[3] == 0:
        raise TraceError(
            path, "holds no records: perf record was not ended properly, or recorded nothing", 40
        )
    events = _events(path, read, size, attr_size, sections[0], sections[1])
    bitmap = sum(word << 64 * i for i, word in enumerate(fields[9:13]))
    metadata = _features(
        path, read, size, sections[2] + sections[3], bitmap, StacksMetadata(events=events)
    )
    return Header(metadata, (sections[2], sections[3]), pipe=False)


def parse_attr(path: object, raw: bytes, offset: int) -> Event:
    """A ``perf_event_attr``.

    Raises
    ------
    TraceError
        Its size is none that the structure ever had, and not larger either.
    """
    if len(raw) < ATTR_SIZES[0]:
        raise TraceError(path, f"an event attribute of {len(raw)} bytes", offset)
    kind, size, config, period, sample_type, read_format, flags = _ATTR.unpack_from(raw)
    size = size or ATTR_SIZES[0]
    if size < ATTR_SIZES[0] or size > len(raw):
        raise TraceError(path, f"an event attribute states a size of {size} bytes, but it has "
                         f"{len(raw)}", offset + 4)
    branches = struct.unpack_from("<Q", raw, 72)[0] if size >= 80 else 0
    return Event("", kind, config, period, sample_type, read_format, branches, flags, (), raw)


def _events(
    path: object, read: Reader, size: int, attr_size: int, offset: int, length: int
) -> tuple[Event, ...]:
    entry = attr_size
    if entry < ATTR_SIZES[0] + 16 or entry > 4096 or length % entry or length > MAX_SECTION:
        raise TraceError(path, f"{length} bytes of events of {entry} bytes each", 16)
    events = []
    for at in range(offset, offset + length, entry):
        raw = read(at, entry)
        start, span = _SECTION.unpack_from(raw, entry - 16)
        if span % 8 or span > MAX_SECTION or (span and start + span > size):
            raise TraceError(path, f"an event with {span} bytes of ids at {start:#x}", at)
        ids = struct.unpack(f"<{span // 8}Q", read(start, span)) if span else ()
        events.append(replace(parse_attr(path, raw[:-16], at), ids=ids))
    if not events:
        raise TraceError(path, "has no event", 24)
    return tuple(events)


def _features(
    path: object, read: Reader, size: int, table: int, bitmap: int, metadata: StacksMetadata
) -> StacksMetadata:
    """Feature sections; their table lies after the records."""
    present = [bit for bit in range(_FEATURES) if bitmap >> bit & 1]
    if table + 16 * len(present) > size:
        raise TraceError(path, f"is cut off: {len(present)} feature sections are missing", size)
    for i, bit in enumerate(present):
        at = table + 16 * i
        start, span = _SECTION.unpack(read(at, 16))
        if bit not in _PARSERS or not span:  # described, and of no account here
            metadata = _note(metadata, bit)
            continue
        if start + span > size:
            raise TraceError(path, f"feature {bit} reaches past the end of the file", at)
        if span > MAX_SECTION:
            raise TraceError(path, f"feature {bit} has {span} bytes, more than {MAX_SECTION}", at)
        metadata = parse_feature(path, metadata, bit, read(start, span), start)
    return metadata


def parse_feature(
    path: object, metadata: StacksMetadata, bit: int, body: bytes, offset: int
) -> StacksMetadata:
    """Metadata with what one feature adds; of features not kept, the name."""
    parser = _PARSERS.get(bit)
    if parser is None or not body:
        return _note(metadata, bit)
    name = Feature(bit).name
    cursor = Cursor(path, body, offset, f"feature {name}")
    return replace(metadata, **parser(cursor, metadata))


def _note(metadata: StacksMetadata, bit: int) -> StacksMetadata:
    name = Feature(bit).name if bit in Feature._value2member_map_ else f"feature {bit}"
    return replace(metadata, other_features=(*metadata.other_features, name))


def _string(name: str) -> Callable[[Cursor, StacksMetadata], dict[str, Any]]:
    return lambda cursor, metadata: {name: cursor.text()}


def _cpus(cursor: Cursor, metadata: StacksMetadata) -> dict[str, Any]:
    return {"cpus_available": cursor.number("I"), "cpus_online": cursor.number("I")}


def _memory(cursor: Cursor, metadata: StacksMetadata) -> dict[str, Any]:
    return {"total_memory": cursor.number("Q")}


def _command(cursor: Cursor, metadata: StacksMetadata) -> dict[str, Any]:
    count = cursor.number("I")
    if count * 4 > cursor.left():
        cursor.take(count * 4)
    return {"command_line": tuple(cursor.text() for _ in range(count))}


def _capabilities(cursor: Cursor, metadata: StacksMetadata) -> dict[str, Any]:
    count = cursor.number("I")
    if count * 8 > cursor.left():
        cursor.take(count * 8)
    return {"pmu_capabilities": tuple((cursor.text(), cursor.text()) for _ in range(count))}


def _descriptions(cursor: Cursor, metadata: StacksMetadata) -> dict[str, Any]:
    """EVENT_DESC: names of the events; they stand in the order of the attributes."""
    count, size = cursor.number("I"), cursor.number("I")
    if count * (size + 8) > cursor.left():
        cursor.take(count * (size + 8))
    described = []
    for _ in range(count):
        event = parse_attr(cursor.path, cursor.take(size), cursor.offset + cursor.at)
        ids = cursor.number("I")
        name = cursor.text()
        numbers = struct.unpack(f"<{ids}Q", cursor.take(8 * ids))
        described.append(replace(event, name=name, ids=numbers))
    if not metadata.events:
        return {"events": tuple(described)}
    names = {entry.ids: entry.name for entry in described if entry.ids}
    names |= {(i,): entry.name for i, entry in enumerate(described) if not entry.ids}
    events = (
        replace(event, name=names.get(event.ids or (i,), event.name))
        for i, event in enumerate(metadata.events)
    )
    return {"events": tuple(events)}


def _build_ids(cursor: Cursor, metadata: StacksMetadata) -> dict[str, Any]:
    found = []
    while cursor.left():
        begin = cursor.at
        _, misc, size = cursor.number("I"), cursor.number("H"), cursor.number("H")
        body = Cursor(cursor.path, cursor.take(size - 8), cursor.offset + begin + 8, cursor.what)
        pid = body.number("i")
        raw = body.take(24)
        # Bit 15 of misc: byte 20 holds the size; files before Linux 5.11 have 20 bytes always.
        length = raw[20] if misc & 1 << 15 else 20
        if length > 20:
            raise TraceError(cursor.path, f"a build-id of {length} bytes", body.offset)
        path = text(body.take(body.left()))
        found.append(BuildId(path, raw[:length], pid, misc & MISC_CPUMODE))
    return {"build_ids": tuple(found)}


_PARSERS: Final[dict[int, Callable[[Cursor, StacksMetadata], dict[str, Any]]]] = {
    Feature.BUILD_ID: _build_ids,
    Feature.HOSTNAME: _string("hostname"),
    Feature.OSRELEASE: _string("os_release"),
    Feature.VERSION: _string("perf_version"),
    Feature.ARCH: _string("arch"),
    Feature.NRCPUS: _cpus,
    Feature.CPUDESC: _string("cpu_description"),
    Feature.CPUID: _string("cpuid"),
    Feature.TOTAL_MEM: _memory,
    Feature.CMDLINE: _command,
    Feature.EVENT_DESC: _descriptions,
    Feature.CPU_PMU_CAPS: _capabilities,
}
