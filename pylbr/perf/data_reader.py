"""perf.data: branch stacks as perf record leaves them, file and pipe mode, and directories.

Sources: ``tools/perf/Documentation/perf.data-file-format.txt`` and
``perf.data-directory-format.txt`` of Linux 6.1.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from pylbr.errors import TraceError
from pylbr.files.format import Head, Options
from pylbr.perf import stacks
from pylbr.perf._sample_reader import Scanner
from pylbr.perf.abi import ATTR_SIZES, PERF_MAGIC, PIPE_HEADER_SIZE, Record
from pylbr.perf.header_reader import Cursor, parse_attr, parse_feature, read_header
from pylbr.perf.record_reader import COMPRESSED, HEAD_RECORDS, RecordReader, trailing
from pylbr.perf.sample_reader import EventIndex

__all__ = ["PerfData", "is_perf_data"]

#: perf writes attributes and features first; they end within this much.
MAX_PIPE_HEAD: Final = 64 << 20
_PART: Final = re.compile(r"data\.(\d+)")


class PerfData(stacks.Stacks):
    """A perf.data file or directory.  Samples without branch stacks come with empty ones.

    Raises
    ------
    TraceError
        With the byte offset: no perf.data, big-endian, cut off, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str], options: Options | None = None) -> None:
        self._files: list[_File] = []
        try:
            main = self._open(os.path.join(path, "data") if os.path.isdir(path) else path)
            header = read_header(main.path, main.read, main.size)
            metadata, head_end = header.metadata, None
            if header.pipe:
                metadata, head_end = _pipe_head(main)
            try:
                self._index = EventIndex.of(metadata.events)
                self._scanner = Scanner(self._index)
            except ValueError as error:
                raise TraceError(main.path, str(error)) from error
            sections = [(main, *header.data)]
            if os.path.isdir(path):  # perf record --threads: a file without a head for each
                sections += [(part, 0, part.size) for part in map(self._open, _parts(path))]
            metadata = replace(metadata, provenance={"source": os.fspath(path)})
        except BaseException:
            self._close_files()
            raise
        super().__init__(
            metadata, self._records_of(sections, head_end), path, self._close_files
        )

    def _open(self, path: str | os.PathLike[str]) -> _File:
        self._files.append(_File(path))
        return self._files[-1]

    def _close_files(self) -> None:
        for file in self._files:
            file.close()

    def _records_of(
        self, sections: list[tuple[_File, int, int]], head_end: int | None
    ) -> Iterator[stacks.Record]:
        for file, at, size in sections:
            reader = RecordReader(file.path, file.read, self._index, self._scanner, head_end)
            yield from reader.section(at, size)


class _File:
    """A file that is read at offsets."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise TraceError(path, f"cannot be read: {error.strerror}") from error
        self.size = os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`."""
        parts = []
        while size:
            if self._fd < 0:
                raise TraceError(self.path, "the file has been closed")
            try:
                part = os.pread(self._fd, size, offset)
            except OSError as error:
                raise TraceError(self.path, f"cannot be read: {error.strerror}", offset) from error
            if not part:
                raise TraceError(
                    self.path, f"is cut off: {size} bytes more were expected", offset
                )
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _parts(path: str | os.PathLike[str]) -> list[str]:
    """The files ``data.0``, ``data.1`` ... of a directory, in the order of their numbers."""
    found = [match for name in os.listdir(path) if (match := _PART.fullmatch(name))]
    found.sort(key=lambda match: int(match[1]))
    return [os.path.join(path, match[0]) for match in found]


def _pipe_head(file: _File) -> tuple[stacks.StacksMetadata, int]:
    """Attributes and features, which pipe mode has as the first records, and their end.

    perf writes the features before the attributes or after them.
    """
    events: list[stacks.Event] = []
    features: list[tuple[int, bytes, int]] = []
    at, end = PIPE_HEADER_SIZE, min(file.size, MAX_PIPE_HEAD)
    while at + 8 <= end:
        kind, _, size = struct.unpack("<IHH", file.read(at, 8))
        if kind < Record.HEADER_ATTR or kind in (*COMPRESSED, Record.AUXTRACE):
            break
        if size < 8:
            raise TraceError(file.path, f"a record of {size} bytes", at)
        body = file.read(at + 8, size - 8)
        if kind == Record.HEADER_ATTR:
            events.append(_pipe_attr(file.path, body, at + 8))
        elif kind == Record.HEADER_FEATURE:
            bit = Cursor(file.path, body, at + 8, "a feature").number("Q")
            features.append((bit, body[8:], at + 16))
        elif kind in HEAD_RECORDS:
            at += trailing(file.path, kind, body, at)
        at += size
    metadata = stacks.StacksMetadata(events=tuple(events))
    for bit, body, offset in features:
        metadata = parse_feature(file.path, metadata, bit, body, offset)
    if not metadata.events:
        raise TraceError(file.path, "has no event before its first record", min(at, file.size))
    return metadata, at


def _pipe_attr(path: str, body: bytes, offset: int) -> stacks.Event:
    cursor = Cursor(path, body, offset, "an event attribute")
    size = struct.unpack_from("<I", cursor.data, 4)[0] if len(body) >= 8 else 0
    raw = cursor.take(size or ATTR_SIZES[0])
    event = parse_attr(path, raw, offset)
    ids = struct.unpack(f"<{cursor.left() // 8}Q", cursor.take(cursor.left() // 8 * 8))
    return replace(event, ids=ids)


def is_perf_data(head: Head) -> bool:
    raw = head.raw
    if head.is_directory:
        try:
            with open(os.path.join(head.path, "data"), "rb") as file:
                raw = file.read(8)
        except OSError:
            return False
    return raw[:8] in (PERF_MAGIC, PERF_MAGIC[::-1], b"PERFFILE")
