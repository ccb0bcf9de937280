"""``perf script`` text with branch stacks (brstack), as perf 3 to 6.14 print it.

Whole lines with entries are parsed in compiled code, window by window and ahead of the samples'
consumer, in another thread; this module reads what stands between them: mapping and task
events, samples whose call chain spreads them over several lines, samples with an empty stack.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Final

import numpy as np

from pylbr.errors import TraceError
from pylbr.files.format import Head, Options
from pylbr.files.lines import MAX_LINE
from pylbr.files.source import ByteSource
from pylbr.perf import stacks
from pylbr.perf._brstack import parse
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, MISC_KERNEL, MISC_USER, SampleType
from pylbr.perf.brstack import (
    NO_ENTRIES,
    NO_ROOM,
    PADDING,
    ROW_DTYPE,
    Column,
    Prefix,
    hash_of,
    prefix_of,
)
from pylbr.perf.event_names import named_event
from pylbr.perf.script_events import parse_record
from pylbr.perf.script_samples import LineFault, SampleLines, batch, is_sample

__all__ = ["PerfScript", "is_perf_script"]

#: Stays in the second-level cache with what is made of it.
_WINDOW: Final = 1 << 18
#: The shortest entry with its blank is ``0x0/0x0/-/-/- ``.
_SHORTEST_ENTRY: Final = 14
#: Windows read before the first of them is handed out.
_AHEAD: Final = 3
#: Samples of several lines are handed out in batches of this many.
_BATCH: Final = 1 << 10
_UPPER: Final = np.uint64(1 << 63)
_USER, _KERNEL = np.uint16(MISC_USER), np.uint16(MISC_KERNEL)
_COLUMNS: Final = ("ip", "pid", "tid", "time", "cpu", "period")
#: What the samples of a text have, by its columns.
_SAMPLE_TYPES: Final = {
    Column.TIME: SampleType.TIME, Column.CPU: SampleType.CPU, Column.PERIOD: SampleType.PERIOD,
    Column.IP: SampleType.IP, Column.TASK | Column.PID_OR_TID: SampleType.TID,
}


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
        kind = parser.sample_type
        names = (name.decode("utf-8", "surrogateescape") for name in parser.events)
        events = tuple(named_event(name, kind) for name in names)
        return stacks.StacksMetadata(
            events=events or (named_event("", kind),), provenance={"source": self.path}
        )


class _Window:
    """A stretch of text, whole lines of it, and what compiled code finds there."""

    def __init__(self) -> None:
        self.text = bytearray(_WINDOW + PADDING)
        self.rows = np.empty(_WINDOW // _SHORTEST_ENTRY, ROW_DTYPE)
        self.entries = np.empty(_WINDOW // _SHORTEST_ENTRY, BRANCH_ENTRY_DTYPE)
        self.offsets = np.empty(len(self.rows) + 1, np.int64)
        self.size = 0

    def fill(self, source: ByteSource, tail: bytes) -> bytes | None:
        """Take `tail` and what follows in `source`.

        Returns what is left after the last whole line, None at the end of the source.
        """
        filled, end = len(tail), 0
        self._make_room(filled)
        self.text[:filled] = tail
        while not end and filled <= MAX_LINE:
            self._make_room(filled + 1)
            with memoryview(self.text) as whole, whole[filled:len(whole) - PADDING] as view:
                count = source.readinto(view)
            if not count:
                if filled and self.text[filled - 1] != 0x0A:
                    self.text[filled] = 0x0A
                    filled += 1
                self.size = filled
                return None
            end = self.text.rfind(b"\n", filled, filled + count) + 1
            filled += count
        self.size = end or filled
        return bytes(self.text[self.size:filled])

    def _make_room(self, size: int) -> None:
        """Let the text hold `size` bytes, be a line longer than the window."""
        room = len(self.text) - PADDING
        if size > room:
            self.text.extend(bytes(max(room, size - room)))
            self.entries = np.empty(len(self.text) // _SHORTEST_ENTRY, BRANCH_ENTRY_DTYPE)

    def parse(self, at: int = 0) -> tuple[int, int, int, int]:
        """Lines with entries, from the one at `at` on: see `_brstack.parse`."""
        return parse(self.text, at, self.size, self.rows.view("u1"), self.entries.view("u1"),
                     self.offsets)


def _windows(
    source: ByteSource, pool: ThreadPoolExecutor
) -> Iterator[tuple[_Window, tuple[int, int, int, int]]]:
    """The windows of a text and what was found in them; each may be used until the next."""
    ahead: deque[tuple[_Window, Future[tuple[int, int, int, int]]]] = deque()
    done: list[_Window] = []
    tail: bytes | None = b""
    trouble: TraceError | None = None
    while True:
        while tail is not None and len(ahead) < _AHEAD:
            window = done.pop() if done else _Window()
            try:
                tail = window.fill(source, tail)
            except TraceError as error:  # what was read before comes first
                tail, trouble = None, error
                break
            ahead.append((window, pool.submit(window.parse)))
        if not ahead:
            break
        window, found = ahead.popleft()
        yield window, found.result()
        done.append(window)
    if trouble is not None:
        raise trouble


class _Parser:
    """Reads a file once, from its beginning."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.events: list[bytes] = []
        self._events: dict[int, int] = {}
        self._names: dict[int, bytes] = {}
        self._slow = SampleLines()
        self._columns = 0
        self._base = self._line = 0

    @property
    def sample_type(self) -> int:
        """`SampleType` of what the samples had so far."""
        columns = self._columns | self._slow.columns
        kind = sum(kind for column, kind in _SAMPLE_TYPES.items() if columns & column)
        return int(SampleType.BRANCH_STACK | kind | (
            SampleType.CALLCHAIN if self._slow.chains else 0))

    def records(self, samples: bool = True) -> Iterator[stacks.Record]:
        """Everything in the file; without `samples`, only the names of events are learnt."""
        self._wanted = samples
        try:
            with ByteSource(self._path) as source, ThreadPoolExecutor(1) as pool:
                for window, found in _windows(source, pool):
                    yield from self._lines(window, found)
                    self._base += window.size
            self._finish()
        except TraceError:
            yield from self._flush()
            raise
        yield from self._flush()

    def _finish(self, at: int = 0) -> None:
        try:
            self._slow.finish()
        except LineFault as error:
            raise self._fault(str(error), at, error.before) from error

    def _fault(self, what: str, at: int = 0, before: int = 0) -> TraceError:
        return TraceError(self._path, f"line {self._line + 1 - before}: {what}", self._base + at)

    # Windows --------------------------------------------------------------------------

    def _lines(
        self, window: _Window, found: tuple[int, int, int, int] | None
    ) -> Iterator[stacks.Record]:
        """Records of a window, whose first lines have been parsed ahead."""
        at = 0
        while at < window.size:
            why = NO_ENTRIES
            if not self._slow.unfinished:
                at, count, why, lines = found or window.parse(at)
                if count:
                    yield from self._flush()
                    yield from self._samples(window, count)
                self._line += lines
            found = None
            if why == NO_ROOM or at == window.size:
                continue  # what was found has been handed out
            end = window.text.find(b"\n", at, window.size)
            if end < 0:
                raise self._fault(
                    f"is longer than {MAX_LINE} bytes; this is no perf script text", at)
            yield from self._one_line(bytes(window.text[at:end]), at)
            self._line += 1
            at = end + 1

    def _samples(self, window: _Window, count: int) -> Iterator[stacks.Record]:
        """The rows that the compiled parser found."""
        rows = window.rows[:count]
        self._columns |= int(np.bitwise_or.reduce(rows["columns"]))
        events = self._event_indices(window, rows)
        if not self._wanted:
            return
        names = self._new_names(window, rows)
        offsets = window.offsets[:count + 1].copy()
        columns = {name: rows[name].copy() for name in _COLUMNS}
        columns["event"] = events
        columns["misc"] = np.where(columns["ip"] < _UPPER, _USER, _KERNEL)
        entries = window.entries[:offsets[-1]]
        window.entries = np.empty_like(window.entries)  # the other is the taker's
        first = 0
        for last, name in [*names, (count, None)]:
            if last > first:
                yield stacks.Samples(
                    offsets=offsets[first:last + 1] - offsets[first],
                    entries=entries[offsets[first]:offsets[last]],
                    **{key: column[first:last] for key, column in columns.items()})
                first = last
            if name is not None:
                yield name

    def _event_indices(self, window: _Window, rows: np.ndarray) -> np.ndarray:
        hashes = rows["event"]
        first = int(hashes[0])
        if (hashes == first).all():
            return np.full(len(rows), self._event(window, first, rows, 0), np.uint16)
        values, where, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        found = np.zeros(len(values), np.uint16)
        for i in np.argsort(where).tolist():
            found[i] = self._event(window, int(values[i]), rows, int(where[i]))
        return found[inverse]

    def _event(self, window: _Window, number: int, rows: np.ndarray, i: int) -> int:
        """Index of the event with this hash, whose name stands in row `i`."""
        if number not in self._events:
            self._learn(number, self._prefix_of(window, rows, i).event)
        return self._events[number]

    def _learn(self, number: int, name: bytes) -> int:
        if number not in self._events:
            self._events[number] = len(self.events)
            self.events.append(name)
        return self._events[number]

    def _prefix_of(self, window: _Window, rows: np.ndarray, i: int) -> Prefix:
        start = int(rows["line_start"][i])
        line = bytes(window.text[start:window.text.find(b"\n", start)])
        return prefix_of(line) or Prefix()

    def _new_names(
        self, window: _Window, rows: np.ndarray
    ) -> list[tuple[int, stacks.Comm]]:
        """Names that tasks have taken on, each with the row before which it has to be reported."""
        tid, comm = rows["tid"], rows["comm"]
        if (tid == tid[0]).all() and (comm == comm[0]).all():
            prefix = self._prefix_of(window, rows, 0)
            return [(0, name) for name in self._named(prefix)]
        named = np.flatnonzero(comm)
        order = named[np.argsort(tid[named], kind="stable")]
        tid, comm = tid[order], comm[order]
        new = np.append(True, tid[1:] != tid[:-1])[:len(order)]
        changed = new | np.append(True, comm[1:] != comm[:-1])[:len(order)]
        where, new = order[changed], new[changed]
        names = []
        # The first of a task may stand before the samples of the others.
        for at, i in sorted(zip(np.where(new, 0, where).tolist(), where.tolist(), strict=True)):
            names += [(at, name) for name in self._named(self._prefix_of(window, rows, i))]
        return names

    def _named(self, prefix: Prefix) -> Iterator[stacks.Comm]:
        if prefix.comm and self._names.get(prefix.tid) != prefix.comm:
            self._names[prefix.tid] = prefix.comm
            name = prefix.comm.decode("utf-8", "surrogateescape")
            yield stacks.Comm(prefix.pid, prefix.tid, name, time=prefix.time, cpu=prefix.cpu)

    # Single lines ---------------------------------------------------------------------

    def _one_line(self, line: bytes, at: int) -> Iterator[stacks.Record]:
        """A line that the compiled parser does not take, or one of an unfinished sample."""
        if line.startswith(b"#"):
            return
        if b"PERF_RECORD_" in line:
            self._finish(at)
            yield from self._flush()
            record = parse_record(line)
            if record is None:
                raise self._fault("is no event as perf prints it", at)
            if isinstance(record, stacks.Comm):
                self._names[record.tid] = record.name.encode("utf-8", "surrogateescape")
            if isinstance(record, stacks.Mmap):
                self._slow.map(record)
            if not isinstance(record, tuple):
                yield record
            return
        try:
            self._slow.feed(line)
        except LineFault as error:
            raise self._fault(str(error), at, error.before) from error
        if len(self._slow.done) >= _BATCH:
            yield from self._flush()

    def _flush(self) -> Iterator[stacks.Record]:
        """Samples that were put together line by line, and before them their tasks' names."""
        samples, self._slow.done = self._slow.done, []
        first = 0
        for i, sample in enumerate(samples):
            self._learn(hash_of(sample.prefix.event), sample.prefix.event)
            for name in self._named(sample.prefix):
                if i > first:
                    yield batch(samples[first:i], self._events)
                    first = i
                yield name
        if first < len(samples):
            yield batch(samples[first:], self._events)


def is_perf_script(head: Head) -> bool:
    if b"\0" in head.data[:4096]:
        return False
    return any(is_sample(line) for line in head.lines() if b"0x" in line and b"/" in line)
