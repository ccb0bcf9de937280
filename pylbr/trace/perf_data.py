"""perf.data: branch stacks as perf record leaves them, file and pipe mode.

Sources: ``tools/perf/Documentation/perf.data-file-format.txt`` and
``include/uapi/linux/perf_event.h`` of Linux 6.1; COMPRESSED2 of Linux 6.14.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Final

import zstandard

from pylbr.errors import TraceError
from pylbr.trace import stacks
from pylbr.trace._perf_sample import Scanner
from pylbr.trace.formats import Format, Head, Options
from pylbr.trace.perf_abi import (
    ATTR_SIZES,
    MISC_EXEC,
    MISC_MMAP_BUILD_ID,
    PERF_MAGIC,
    PIPE_HEADER_SIZE,
    Record,
    SampleType,
)
from pylbr.trace.perf_header import Cursor, parse_attr, parse_feature, read_header, text
from pylbr.trace.perf_sample import SampleLayout
from pylbr.trace.source import FREE_OUTPUT, MAX_RATIO, MAX_ZSTD_WINDOW

__all__ = ["PERF_DATA", "PerfData"]

_WINDOW: Final = 1 << 20
#: A compressed record is fed in slices, each of which can become at most 8 MiB.
_SLICE: Final = 256
#: perf writes attributes and features first; they end within this much.
MAX_PIPE_HEAD: Final = 64 << 20
_HEAD_RECORDS: Final = frozenset({
    Record.HEADER_ATTR, Record.HEADER_FEATURE, Record.HEADER_BUILD_ID,
    Record.HEADER_TRACING_DATA, Record.HEADER_EVENT_TYPE,
})


class PerfData(stacks.Stacks):
    """A perf.data file.  Samples without branch stacks come with empty ones.

    Raises
    ------
    TraceError
        With the byte offset: no perf.data, big-endian, cut off, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str], options: Options | None = None) -> None:
        self.path = os.fspath(path)
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise TraceError(path, f"cannot be read: {error.strerror}") from error
        try:
            self._size = os.fstat(self._fd).st_size
            header = read_header(path, self._read, self._size)
            self._data, metadata = header.data, header.metadata
            if header.pipe:
                metadata = self._pipe_head()
            try:
                self._layout = SampleLayout.of(metadata.events)
                self._scanner = Scanner(self._layout)
            except ValueError as error:
                raise TraceError(path, str(error)) from error
            metadata = replace(metadata, provenance={"source": self.path})
        except BaseException:
            os.close(self._fd)
            raise
        super().__init__(metadata, self._records_of_file(), path, self._close_file)

    def _close_file(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def _read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset`."""
        parts = []
        while size:
            if self._fd < 0:
                raise TraceError(self.path, "the file has been closed")
            part = os.pread(self._fd, size, offset)
            if not part:
                raise TraceError(
                    self.path, f"is cut off: {size} bytes more were expected", offset
                )
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    # Records --------------------------------------------------------------------------

    def _records_of_file(self) -> Iterator[stacks.Record]:
        """Everything in the section of records, window by window."""
        at, left = self._data
        rest, decoder = b"", _Decoder(self.path)
        while left:
            fresh = self._read(at, min(left, _WINDOW))
            window = rest + fresh
            base = at - len(rest)  # file offset of the window
            at, left = at + len(fresh), left - len(fresh)
            used = yield from self._records_in(window, base, decoder)
            skip = used - len(window)
            if skip > 0:  # an AUX area reaches past the window
                if skip > left:
                    raise TraceError(self.path, "is cut off in an AUX area", at + left)
                at, left = at + skip, left - skip
            rest = window[used:]
            if len(rest) >= 65536 + 8:
                raise TraceError(self.path, "a record that cannot be read", base + used)
        if rest:
            raise TraceError(self.path, "is cut off in the middle of a record", at - len(rest))
        if decoder.rest:
            raise TraceError(self.path, "its compressed records end in the middle of one", at)

    def _records_in(
        self, window: bytes, base: int, decoder: _Decoder
    ) -> Generator[stacks.Record, None, int]:
        """Records of one window of the file; returns how much of it was used."""
        at = 0
        while True:
            at = yield from self._scan(window, at, base)
            if at + 8 > len(window):
                return at
            kind, misc, size = struct.unpack_from("<IHH", window, at)
            if at + size > len(window):
                return at
            body = window[at + 8:at + size]
            if kind in (Record.COMPRESSED, Record.COMPRESSED2):
                for plain in decoder.feed(body, kind, base + at):
                    used = yield from self._scan_all(plain, base + at)
                    decoder.rest = plain[used:]
            elif kind in (Record.AUXTRACE, Record.HEADER_TRACING_DATA):
                form = "<Q" if kind == Record.AUXTRACE else "<I"
                if len(body) < struct.calcsize(form):
                    raise TraceError(self.path, f"a record of {size} bytes", base + at)
                extra = struct.unpack_from(form, body)[0]
                at += extra + (-extra % 8 if kind == Record.HEADER_TRACING_DATA else 0)
            elif kind not in _HEAD_RECORDS:
                yield from self._event(kind, misc, body, base + at)
            at += size

    def _scan_all(self, data: bytes, place: int) -> Generator[stacks.Record, None, int]:
        """Records out of a compressed one that lies at `place`; returns how much was used."""
        at = 0
        while True:
            at = yield from self._scan(data, at, place, inner=True)
            if at + 8 > len(data):
                return at
            kind, misc, size = struct.unpack_from("<IHH", data, at)
            if at + size > len(data):
                return at
            if kind in (Record.COMPRESSED, Record.COMPRESSED2):
                raise TraceError(self.path, "a compressed record within another", place)
            yield from self._event(kind, misc, data[at + 8:at + size], place)
            at += size

    def _scan(
        self, data: bytes, at: int, base: int, inner: bool = False
    ) -> Generator[stacks.Record, None, int]:
        """Samples in a row; returns the offset of the first record that is something else."""
        samples, stop, fault = self._scanner.scan(data, at)
        if len(samples):
            yield samples
        if fault:
            raise TraceError(self.path, fault, base if inner else base + stop)
        return stop

    def _event(self, kind: int, misc: int, body: bytes, offset: int) -> Iterator[stacks.Record]:
        """Mappings and tasks; other records are passed over."""
        cursor = Cursor(self.path, body, offset + 8, f"a record of type {kind}")
        time, cpu = self._trailer(body)
        number = cursor.number
        if kind in (Record.MMAP, Record.MMAP2):
            yield self._mmap(cursor, kind, misc, time, cpu)
        elif kind == Record.COMM:
            pid, tid = number("i"), number("i")
            name = text(cursor.take(cursor.left()))
            yield stacks.Comm(pid, tid, name, bool(misc & MISC_EXEC), time, cpu)
        elif kind in (Record.FORK, Record.EXIT):
            pid, ppid, tid, ptid, when = (number(c) for c in "iiiiQ")
            make = stacks.Fork if kind == Record.FORK else stacks.Exit
            yield make(pid, ppid, tid, ptid, when, cpu)
        elif kind == Record.LOST:
            number("Q")
            yield stacks.Lost(number("Q"), time)
        elif kind == Record.LOST_SAMPLES:
            yield stacks.Lost(number("Q"), time)

    def _mmap(
        self, cursor: Cursor, kind: int, misc: int, time: int, cpu: int
    ) -> stacks.Mmap:
        number = cursor.number
        pid, tid, start, length, offset = (number(c) for c in "iiQQQ")
        extra: dict = {}
        if kind == Record.MMAP2 and misc & MISC_MMAP_BUILD_ID:
            size = number("B")
            cursor.take(3)
            extra["build_id"] = cursor.take(20)[:size]
        elif kind == Record.MMAP2:
            extra = {"major": number("I"), "minor": number("I"), "inode": number("Q"),
                     "generation": number("Q")}
        if kind == Record.MMAP2:
            extra |= {"prot": number("I"), "flags": number("I")}
        path = text(cursor.take(cursor.left()))
        return stacks.Mmap(
            pid, tid, start, length, offset, path, misc=misc, time=time, cpu=cpu, **extra
        )

    def _trailer(self, body: bytes) -> tuple[int, int]:
        """Time and CPU out of the end of a record that is no sample (sample_id_all)."""
        event = self._layout.events[0]
        if not event.flags & 1 << 18:
            return 0, 0
        order = (SampleType.TID, SampleType.TIME, SampleType.ID, SampleType.STREAM_ID,
                 SampleType.CPU, SampleType.IDENTIFIER)
        present = [kind for kind in order if event.sample_type & kind]
        if len(body) < 8 * len(present):
            return 0, 0
        words = struct.unpack(f"<{len(present)}Q", body[len(body) - 8 * len(present):])
        found = dict(zip(present, words, strict=True))
        return found.get(SampleType.TIME, 0), found.get(SampleType.CPU, 0) & 0xFFFFFFFF

    # Pipe mode ------------------------------------------------------------------------

    def _pipe_head(self) -> stacks.StacksMetadata:
        """Attributes and features, which pipe mode has as the first records."""
        metadata, at, end = stacks.StacksMetadata(), PIPE_HEADER_SIZE, self._size
        while at + 8 <= min(end, MAX_PIPE_HEAD):
            kind, _, size = struct.unpack("<IHH", self._read(at, 8))
            if kind < Record.HEADER_ATTR or kind in (Record.COMPRESSED, Record.COMPRESSED2):
                break
            if size < 8:
                raise TraceError(self.path, f"a record of {size} bytes", at)
            body = self._read(at + 8, size - 8)
            if kind == Record.HEADER_ATTR:
                event = self._pipe_attr(body, at + 8)
                metadata = replace(metadata, events=(*metadata.events, event))
            elif kind == Record.HEADER_FEATURE:
                bit = Cursor(self.path, body, at + 8, "a feature").number("Q")
                metadata = parse_feature(self.path, metadata, bit, body[8:], at + 16)
            elif kind == Record.HEADER_TRACING_DATA:
                extra = Cursor(self.path, body, at + 8, "tracing data").number("I")
                at += extra + -extra % 8
            at += size
        if not metadata.events:
            raise TraceError(self.path, "has no event before its first record", at)
        return metadata

    def _pipe_attr(self, body: bytes, offset: int) -> stacks.Event:
        cursor = Cursor(self.path, body, offset, "an event attribute")
        size = struct.unpack_from("<I", cursor.data, 4)[0] if len(body) >= 8 else 0
        raw = cursor.take(size or ATTR_SIZES[0])
        event = parse_attr(self.path, raw, offset)
        ids = struct.unpack(f"<{cursor.left() // 8}Q", cursor.take(cursor.left() // 8 * 8))
        return replace(event, ids=ids)


class _Decoder:
    """Decompresses COMPRESSED records, which are one stream of zstd; `rest` is what is left
    of a record whose end has not come yet."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._context = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW)
        self._stream = self._context.decompressobj()
        self.rest = b""
        self._in = self._out = 0

    def feed(self, body: bytes, kind: int, offset: int) -> Iterator[bytes]:
        """What a record holds, in pieces; the caller sets `rest` after each."""
        if kind == Record.COMPRESSED2:
            cursor = Cursor(self._path, body, offset + 8, "a compressed record")
            body = cursor.take(min(cursor.number("Q"), 1 << 62))
        for at in range(0, len(body), _SLICE):
            piece = body[at:at + _SLICE]
            self._in += len(piece)
            while piece:
                try:
                    plain = self._stream.decompress(piece)
                except zstandard.ZstdError as error:
                    raise TraceError(self._path, f"a compressed record is damaged: {error}",
                                     offset) from error
                piece = b""
                if self._stream.eof:
                    piece = self._stream.unused_data
                    self._stream = self._context.decompressobj()
                self._out += len(plain)
                if self._out > FREE_OUTPUT and self._out > MAX_RATIO * self._in:
                    raise TraceError(
                        self._path, f"its compressed records swell to more than {MAX_RATIO} "
                        "times their size", offset,
                    )
                if plain:
                    yield self.rest + plain


def _is_perf_data(head: Head) -> bool:
    return head.raw[:8] in (PERF_MAGIC, PERF_MAGIC[::-1], b"PERFFILE")


PERF_DATA = Format(
    "perf.data", "branch stacks as perf record writes them", "stacks", _is_perf_data, PerfData
)
