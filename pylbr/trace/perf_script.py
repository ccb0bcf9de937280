"""``perf script`` text with branch stacks (brstack), as perf 3 to 6.14 print it.

Whole lines with entries are parsed in compiled code, window by window; this module reads
what stands between them: mapping and task events, samples whose call chain spreads them
over several lines, samples with an empty stack.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from functools import cached_property
from typing import Final

import numpy as np

from pylbr.errors import TraceError
from pylbr.trace import stacks
from pylbr.trace._brstack import parse
from pylbr.trace.brstack import (
    AT_END,
    BAD_ENTRY,
    NO_ENTRIES,
    PADDING,
    ROW_DTYPE,
    Prefix,
    hash_of,
    parse_line,
    parse_prefix,
    prefix_of,
)
from pylbr.trace.formats import Format, Head, Options
from pylbr.trace.lines import MAX_LINE
from pylbr.trace.perf_abi import ENTRY_DTYPE, MISC_KERNEL, MISC_USER
from pylbr.trace.perf_events_text import parse_event
from pylbr.trace.source import ByteSource

__all__ = ["PERF_SCRIPT", "PerfScript"]

#: Stays in the second-level cache with what is made of it.
_WINDOW: Final = 1 << 19
#: The shortest entry with its blank is ``0x0/0x0/-/-/- ``.
_SHORTEST_ENTRY: Final = 14
#: Samples of several lines are handed out in batches of this many.
_BATCH: Final = 1 << 10
_FRAME: Final = re.compile(rb"[ \t]+([0-9a-f]{1,16})(?:[ \t]|$)")
_SYMBOLIC: Final = re.compile(rb"/[MPN-]{1,2}/[X-]/[A-](/|$)")
_UPPER: Final = np.uint64(1 << 63)
_USER, _KERNEL = np.uint16(MISC_USER), np.uint16(MISC_KERNEL)
_COLUMNS: Final = ("ip", "pid", "tid", "time", "cpu", "period")


class PerfScript(stacks.Stacks):
    """A text file made by ``perf script -F ...,brstack``.

    The text has no head: `metadata` is found by reading the whole file once more, when it
    is asked for.

    Raises
    ------
    TraceError
        With the line: an entry that perf would not print, symbols in place of addresses, or
        text of another kind.
    """

    def __init__(self, path: str | os.PathLike[str], options: Options | None = None) -> None:
        super().__init__(stacks.StacksMetadata(), _Parser(os.fspath(path)).records(), path)

    @cached_property
    def metadata(self) -> stacks.StacksMetadata:  # type: ignore[override]
        """The names of the events, in the order of their first samples."""
        parser = _Parser(self.path)
        for _ in parser.records(samples=False):
            pass
        names = (name.decode("utf-8", "surrogateescape") for name in parser.events)
        events = tuple(stacks.Event(name=name) for name in names)
        return stacks.StacksMetadata(
            events=events or (stacks.Event(),), provenance={"source": self.path}
        )


class _Parser:
    """Reads a file once, from its beginning."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.events: list[bytes] = []
        self._events: dict[int, int] = {}
        self._buffer = bytearray(_WINDOW + PADDING)
        self._rows = np.empty(_WINDOW // _SHORTEST_ENTRY, ROW_DTYPE)
        self._entries = np.empty(_WINDOW // _SHORTEST_ENTRY, ENTRY_DTYPE)
        self._offsets = np.empty(len(self._rows) + 1, np.int64)
        self._names: dict[int, bytes] = {}
        self._pending: Prefix | None = None
        self._head = b""
        self._slow: list[tuple[Prefix, np.ndarray]] = []
        self._base = self._line = 0

    def records(self, samples: bool = True) -> Iterator[stacks.Record]:
        """Everything in the file; without `samples`, only the names of events are learnt."""
        filled, self._wanted = 0, samples
        with ByteSource(self._path) as source:
            while True:
                view = memoryview(self._buffer)[filled:len(self._buffer) - PADDING]
                count = source.readinto(view)
                view.release()
                filled += count
                if not count and filled and self._buffer[filled - 1] != 0x0A:
                    self._buffer[filled] = 0x0A  # in the padding, if need be
                    filled += 1
                    self._buffer.extend(b"\0")
                used = yield from self._window(filled)
                if not count:
                    break
                if used == 0 and filled + PADDING >= len(self._buffer):
                    self._grow()
                self._base += used
                self._buffer[:filled - used] = self._buffer[used:filled]
                filled -= used
        if self._pending is not None:
            self._flush_pending()
        yield from self._flush()

    def _grow(self) -> None:
        """Make room for a line longer than the window."""
        if len(self._buffer) > MAX_LINE:
            raise self._fault(f"is longer than {MAX_LINE} bytes; this is no perf script text")
        size = 2 * len(self._buffer)
        self._buffer.extend(bytes(size - len(self._buffer)))
        self._entries = np.empty(size // _SHORTEST_ENTRY, ENTRY_DTYPE)

    def _fault(self, what: str, at: int = 0) -> TraceError:
        return TraceError(self._path, f"line {self._line + 1}: {what}", self._base + at)

    # Windows --------------------------------------------------------------------------

    def _window(self, size: int) -> Generator[stacks.Record, None, int]:
        """Records of the whole lines in the buffer; returns the bytes used."""
        at = 0
        while True:
            why = AT_END
            if self._pending is None:
                at, count, why, lines = parse(
                    self._buffer, at, size, self._rows.view("u1"), self._entries.view("u1"),
                    self._offsets,
                )
                if count:
                    yield from self._flush()
                    yield from self._samples(count)
                self._line += lines
                if why == AT_END:
                    return at
                if why not in (NO_ENTRIES, BAD_ENTRY):
                    continue  # no room: what was found has been handed out
            end = self._buffer.find(b"\n", at, size)
            if end < 0:
                return at
            yield from self._one_line(bytes(self._buffer[at:end]), at, why == BAD_ENTRY)
            self._line += 1
            at = end + 1

    def _samples(self, count: int) -> Iterator[stacks.Record]:
        """The rows that the compiled parser found."""
        rows = self._rows[:count]
        events = self._event_indices(rows)
        if not self._wanted:
            return
        yield from self._new_names(rows)
        offsets = self._offsets[:count + 1].copy()
        columns = {name: rows[name].copy() for name in _COLUMNS}
        entries = self._entries[:offsets[-1]]
        self._entries = np.empty_like(self._entries)  # the other is whoever takes the samples'
        yield stacks.Samples(
            offsets=offsets, entries=entries, event=events,
            misc=np.where(columns["ip"] < _UPPER, _USER, _KERNEL), **columns)

    def _event_indices(self, rows: np.ndarray) -> np.ndarray:
        hashes = rows["event"]
        first = int(hashes[0])
        if (hashes == first).all():
            return np.full(len(rows), self._event(first, rows, 0), np.uint16)
        values, where, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        found = np.zeros(len(values), np.uint16)
        for i in np.argsort(where).tolist():
            found[i] = self._event(int(values[i]), rows, int(where[i]))
        return found[inverse]

    def _event(self, number: int, rows: np.ndarray, i: int) -> int:
        """Index of the event with this hash, whose name stands in row `i`."""
        if number not in self._events:
            self._learn(number, self._prefix_of(rows, i).event)
        return self._events[number]

    def _learn(self, number: int, name: bytes) -> int:
        if number not in self._events:
            self._events[number] = len(self.events)
            self.events.append(name)
        return self._events[number]

    def _prefix_of(self, rows: np.ndarray, i: int) -> Prefix:
        start = int(rows["line_start"][i])
        line = bytes(self._buffer[start:self._buffer.find(b"\n", start)])
        return prefix_of(line) or Prefix()

    def _new_names(self, rows: np.ndarray) -> Iterator[stacks.Comm]:
        """Task names that have not been seen of their tasks."""
        named = rows["comm"] != 0
        if not named.any():
            return
        key = rows["tid"].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ rows["comm"]
        if (key == key[0]).all():
            where = np.zeros(1, np.int64)
        else:
            where = np.sort(np.unique(key, return_index=True)[1])
        for i in where.tolist():
            if rows["comm"][i]:
                yield from self._named(self._prefix_of(rows, i))

    def _named(self, prefix: Prefix) -> Iterator[stacks.Comm]:
        if prefix.comm and self._names.get(prefix.tid) != prefix.comm:
            self._names[prefix.tid] = prefix.comm
            name = prefix.comm.decode("utf-8", "surrogateescape")
            yield stacks.Comm(prefix.pid, prefix.tid, name, time=prefix.time, cpu=prefix.cpu)

    # Single lines ---------------------------------------------------------------------

    def _one_line(self, line: bytes, at: int, bad: bool) -> Iterator[stacks.Record]:
        """A line that is no sample with entries, or one while a sample is incomplete."""
        if line.startswith(b"#"):
            return
        if b"PERF_RECORD_" in line:
            yield from self._flush()
            record = parse_event(line)
            if record is None:
                raise self._fault("is no event as perf prints it", at)
            if isinstance(record, stacks.Comm):
                self._names[record.tid] = record.name.encode("utf-8", "surrogateescape")
            if not isinstance(record, tuple):
                yield record
            return
        if self._pending is not None and self._continued(line, at):
            return
        if self._pending is not None:
            self._flush_pending()
        if not line.strip():
            return
        why, prefix, entries = parse_line(line)
        if bad or why == BAD_ENTRY:
            raise self._fault("an entry that perf does not print", at)
        frame = _FRAME.match(line) if line.startswith(b"\t") else None
        if frame is not None:
            self._pending, self._head = Prefix(ip=int(frame[1], 16)), b""
            return
        if prefix is None:
            if _SYMBOLIC.search(line):
                raise self._fault(
                    "symbols in place of addresses; print them with perf script -F +brstack", at
                )
            prefix = parse_prefix(line)
        if prefix is None:
            raise self._fault("is no line of perf script", at)
        yield from self._named(prefix)
        if why == AT_END:
            self._slow.append((prefix, np.array(entries, ENTRY_DTYPE)))
        else:
            self._pending, self._head = prefix, line  # perhaps a call chain follows
        if len(self._slow) >= _BATCH:
            yield from self._flush()

    def _continued(self, line: bytes, at: int) -> bool:
        """Whether the line goes on with the sample whose head has been read."""
        prefix = self._pending
        if prefix is None:
            return False
        why, own, entries = parse_line(line)
        if why == BAD_ENTRY:
            raise self._fault("an entry that perf does not print", at)
        if why == AT_END and own == Prefix():
            self._slow.append((prefix, np.array(entries, ENTRY_DTYPE)))
            self._pending = None
            return True
        frame = _FRAME.match(line)
        if why == NO_ENTRIES and frame is not None and line.startswith(b"\t"):
            if self._head:
                # What looked like an address in the first line was none.
                prefix = parse_prefix(self._head + b" 0") or prefix
                self._pending, self._head = prefix._replace(ip=int(frame[1], 16)), b""
            return True
        return False

    def _flush_pending(self) -> None:
        """A sample that ended without entries."""
        if self._pending is not None:
            self._slow.append((self._pending, np.empty(0, ENTRY_DTYPE)))
            self._pending = None

    def _flush(self) -> Iterator[stacks.Samples]:
        """Samples that were put together line by line."""
        if not self._slow:
            return
        rows, parts = zip(*self._slow, strict=True)
        self._slow = []
        events = [self._learn(hash_of(row.event), row.event) for row in rows]
        ip = np.array([row.ip for row in rows], np.uint64)
        columns = {name: [getattr(row, name) for row in rows]
                   for name in ("pid", "tid", "time", "cpu", "period")}
        yield stacks.Samples.build(
            np.cumsum([0, *map(len, parts)]), np.concatenate(parts), ip=ip,
            event=events,
            misc=np.where(ip < _UPPER, MISC_USER, MISC_KERNEL), **columns,
        )


def _is_perf_script(head: Head) -> bool:
    if b"\0" in head.data[:4096]:
        return False
    return any(
        parse_line(line)[0] == AT_END for line in head.lines()
        if b"0x" in line and b"/" in line
    )


PERF_SCRIPT = Format(
    "perfscript", "text of perf script with branch stacks", "stacks", _is_perf_script, PerfScript
)
