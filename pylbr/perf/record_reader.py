"""Records of one section of a perf.data file: samples, mappings and tasks.

Sources: ``tools/perf/Documentation/perf.data-file-format.txt`` and
``include/uapi/linux/perf_event.h`` of Linux 6.1; COMPRESSED2 of Linux 6.14.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from typing import Final, Protocol

import zstandard

from pylbr.errors import TraceError
from pylbr.files.source import FREE_OUTPUT, MAX_RATIO, MAX_ZSTD_WINDOW
from pylbr.perf import stacks
from pylbr.perf.abi import (
    MISC_EXEC,
    MISC_MMAP_BUILD_ID,
    AttrFlag,
    Record,
    SampleType,
)
from pylbr.perf.header_reader import Cursor, Reader, text
from pylbr.perf.sample_reader import EventIndex, Found

__all__ = ["COMPRESSED", "HEAD_RECORDS", "RecordReader"]

_WINDOW: Final = 1 << 20
#: A compressed record is fed in slices, each of which can become at most 8 MiB.
_SLICE: Final = 256
#: What describes the recording: perf writes these first, in pipe mode.
HEAD_RECORDS: Final = frozenset({
    Record.HEADER_ATTR, Record.HEADER_FEATURE, Record.HEADER_BUILD_ID,
    Record.HEADER_TRACING_DATA, Record.HEADER_EVENT_TYPE,
})
COMPRESSED: Final = (Record.COMPRESSED, Record.COMPRESSED2)
#: Fields at the end of a record that is no sample, in their order (sample_id_all).
_TRAILER: Final = (
    SampleType.TID, SampleType.TIME, SampleType.ID, SampleType.STREAM_ID, SampleType.CPU,
    SampleType.IDENTIFIER,
)


class SampleScanner(Protocol):
    """Parses samples in a row: `sample_reader.scan_samples`, or its compiled twin."""

    def scan(self, data: bytes, at: int) -> Found:
        """Samples from `at` up to the first record that is something else."""


class RecordReader:
    """Reads sections of records, window by window.

    Parameters
    ----------
    path : str
        For messages.
    read : Reader
    index : EventIndex
    scanner : SampleScanner
    head_end : int
        Byte offset from which on a pipe may not declare another event.
    """

    def __init__(
        self, path: str, read: Reader, index: EventIndex, scanner: SampleScanner,
        head_end: int | None = None,
    ) -> None:
        self.path, self._read, self._index, self._scanner = path, read, index, scanner
        self._head_end = head_end
        self._decoder = _Decoder(path)

    def section(self, at: int, left: int) -> Iterator[stacks.Record]:
        """Everything in the `left` bytes from offset `at` on."""
        rest = b""
        while left:
            fresh = self._read(at, min(left, _WINDOW))
            window = rest + fresh
            base = at - len(rest)  # file offset of the window
            at, left = at + len(fresh), left - len(fresh)
            used = yield from self._records_in(window, base)
            skip = used - len(window)
            if skip > 0:  # what follows a record, and is no record, reaches past the window
                if skip > left:
                    raise TraceError(
                        self.path, "is cut off in an AUX area or in tracing data", at + left)
                at, left = at + skip, left - skip
            rest = window[used:]
            if len(rest) >= 65536 + 8:
                raise TraceError(self.path, "a record that cannot be read", base + used)
        if rest:
            raise TraceError(self.path, "is cut off in the middle of a record", at - len(rest))
        if self._decoder.rest:
            raise TraceError(self.path, "its compressed records end in the middle of one", at)

    def _records_in(self, window: bytes, base: int) -> Generator[stacks.Record, None, int]:
        """Records of one window of the file; returns how much of the file was used."""
        at = 0
        while at < len(window):
            at = yield from self._scan(window, at, base)
            if at + 8 > len(window):
                break
            kind, misc, size = struct.unpack_from("<IHH", window, at)
            if at + size > len(window):
                break
            body = window[at + 8:at + size]
            if kind in COMPRESSED:
                for plain in self._decoder.feed(body, kind, base + at):
                    used = yield from self._scan_all(plain, base + at)
                    self._decoder.rest = plain[used:]
            elif kind in HEAD_RECORDS or kind == Record.AUXTRACE:
                self._check_head(kind, base + at)
                at += trailing(self.path, kind, body, base + at)
            else:
                yield from self._event(kind, misc, body, base + at)
            at += size
        return at

    def _check_head(self, kind: int, place: int) -> None:
        if kind == Record.HEADER_ATTR and self._head_end is not None and place >= self._head_end:
            raise TraceError(
                self.path, "an event is declared after the first record; let perf inject write "
                "the recording again, to a file", place)

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
            if kind in (*COMPRESSED, Record.AUXTRACE, Record.HEADER_TRACING_DATA):
                what = "a compressed record" if kind in COMPRESSED else f"a record of type {kind}"
                raise TraceError(self.path, f"{what} within a compressed record", place)
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
            yield _mmap(cursor, kind, misc, time, cpu)
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

    def _trailer(self, body: bytes) -> tuple[int, int]:
        """Time and CPU out of the end of a record that is no sample (sample_id_all)."""
        event = self._index.events[0]
        if len(body) >= 8 and event.sample_type & SampleType.IDENTIFIER:
            last = struct.unpack_from("<Q", body, len(body) - 8)[0]
            event = self._index.events[self._index.event_of_id.get(last, 0)]
        if not event.flags & AttrFlag.SAMPLE_ID_ALL:
            return 0, 0
        present = [kind for kind in _TRAILER if event.sample_type & kind]
        if len(body) < 8 * len(present):
            return 0, 0
        words = struct.unpack(f"<{len(present)}Q", body[len(body) - 8 * len(present):])
        found = dict(zip(present, words, strict=True))
        return found.get(SampleType.TIME, 0), found.get(SampleType.CPU, 0) & 0xFFFFFFFF


def trailing(path: str, kind: int, body: bytes, offset: int) -> int:
    """Bytes that follow a record without being part of it.

    The data of AUXTRACE has its size in a 64-bit word; HEADER_TRACING_DATA a 32-bit one, and
    is padded to eight bytes.
    """
    cursor = Cursor(path, body, offset + 8, f"a record of type {kind}")
    if kind == Record.AUXTRACE:
        return cursor.number("Q")
    if kind == Record.HEADER_TRACING_DATA:
        size = cursor.number("I")
        return size + -size % 8
    return 0


def _mmap(cursor: Cursor, kind: int, misc: int, time: int, cpu: int) -> stacks.Mmap:
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


