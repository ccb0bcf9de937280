"""SAMPLE records into arrays: the plain-Python twin of `pylbr.perf._sample_reader`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, BranchSample, ReadFormat, Record, SampleType
from pylbr.perf.stacks import Event, Samples

__all__ = ["SKIPPED", "Found", "EventIndex", "scan_samples"]

#: Records of no account here, which a scan passes over.
SKIPPED: Final = frozenset({
    Record.THROTTLE, Record.UNTHROTTLE, Record.READ, Record.AUX, Record.ITRACE_START,
    Record.SWITCH, Record.SWITCH_CPU_WIDE, Record.NAMESPACES, Record.KSYMBOL, Record.BPF_EVENT,
    Record.CGROUP, Record.TEXT_POKE, Record.AUX_OUTPUT_HW_ID, Record.HEADER_EVENT_TYPE,
    Record.FINISHED_ROUND, Record.ID_INDEX, Record.AUXTRACE_INFO, Record.AUXTRACE_ERROR,
    Record.THREAD_MAP, Record.CPU_MAP, Record.STAT_CONFIG, Record.STAT, Record.STAT_ROUND,
    Record.EVENT_UPDATE, Record.TIME_CONV, Record.FINISHED_INIT, Record.CALLCHAIN_DEFERRED,
    Record.BPF_METADATA,
})

#: Fields before the first of variable size, in their order; each is one 64-bit word.
_WORDS: Final = (
    SampleType.IDENTIFIER, SampleType.IP, SampleType.TID, SampleType.TIME, SampleType.ADDR,
    SampleType.ID, SampleType.STREAM_ID, SampleType.CPU, SampleType.PERIOD,
)


@dataclass(frozen=True, slots=True)
class EventIndex:
    """The events of a file, and where a sample states which one it belongs to.

    Attributes
    ----------
    events : tuple of Event
    id_word : int
        Index of the word that holds a sample's id, -1 if none is needed.
    event_of_id : dict
    """

    events: tuple[Event, ...]
    id_word: int
    event_of_id: dict[int, int]

    @classmethod
    def of(cls, events: Sequence[Event]) -> EventIndex:
        """Index over a file's events.

        Raises
        ------
        ValueError
            Several events, and no word of a sample that all of them share has its id.
        """
        if len(events) == 1:
            return cls(tuple(events), -1, {})
        words = {_id_word(event.sample_type) for event in events}
        if len(words) != 1 or -1 in words:
            raise ValueError("has several events, whose samples do not state which they belong to")
        ids = {number: i for i, event in enumerate(events) for number in event.ids}
        return cls(tuple(events), words.pop(), ids)


def _id_word(sample_type: int) -> int:
    """Index of the word with the id: IDENTIFIER is the first, ID where the fields put it."""
    if sample_type & SampleType.IDENTIFIER:
        return 0
    if not sample_type & SampleType.ID:
        return -1
    before = _WORDS[:_WORDS.index(SampleType.ID)]
    return sum(bool(sample_type & kind) for kind in before)


class Found(NamedTuple):
    """What a scan found: samples, where it stopped, and why if that was damage."""

    samples: Samples
    stop: int
    fault: str


class _Short(Exception):
    """A sample ends before its fields do."""


def scan_samples(data: bytes, at: int, index: EventIndex) -> Found:
    """Parse the SAMPLE records in `data` from offset `at` on.

    Stops at the end of the last whole record, at a record that is neither a sample nor of
    the kind that is passed over, or at a damaged one.

    Returns
    -------
    Found
        `stop` is where it stopped; `fault` is empty or describes what is wrong there.

    Raises
    ------
    ValueError
        `at` is outside of `data`.
    """
    if not 0 <= at <= len(data):
        raise ValueError(f"offset {at} in a window of {len(data)} bytes")
    rows: list[dict] = []
    fault = ""
    while at + 8 <= len(data):
        kind, misc, size = struct.unpack_from("<IHH", data, at)
        if size < 8:
            fault = f"a record of {size} bytes"
            break
        if at + size > len(data) or (kind != Record.SAMPLE and kind not in SKIPPED):
            break
        if kind == Record.SAMPLE:
            try:
                rows.append(_parse(data[at + 8:at + size], misc, index))
            except _Short as error:
                fault = str(error)
                break
        at += size
    return Found(_samples(rows, index), at, fault)


def _parse(body: bytes, misc: int, index: EventIndex) -> dict:
    """The fields of one sample."""
    event = 0
    if index.id_word >= 0:
        number = struct.unpack("<Q", _slice(body, 8 * index.id_word, 8))[0]
        if number not in index.event_of_id:
            raise _Short("a sample of an unknown event")
        event = index.event_of_id[number]
    source = index.events[event]
    row: dict = {"event": event, "misc": misc}
    at = 0
    for kind in _WORDS:
        if source.sample_type & kind:
            raw = _slice(body, at, 8)
            row[kind] = struct.unpack("<Q", raw)[0]
            at += 8
    at = _skip_read(body, at, source)
    if source.sample_type & SampleType.CALLCHAIN:
        count = struct.unpack("<Q", _slice(body, at, 8))[0]
        row["chain"] = np.frombuffer(_slice(body, at + 8, 8 * count), "<u8")
        at += 8 + 8 * count
    if source.sample_type & SampleType.RAW:
        size = struct.unpack("<I", _slice(body, at, 4))[0]
        _slice(body, at, 4 + size)
        at += 4 + size
    if source.sample_type & SampleType.BRANCH_STACK:
        count = struct.unpack("<Q", _slice(body, at, 8))[0]
        at += 8
        if source.branch_sample_type & BranchSample.HW_INDEX:
            row["hw_idx"] = struct.unpack("<Q", _slice(body, at, 8))[0]
            at += 8
        row["entries"] = np.frombuffer(_slice(body, at, 24 * count), BRANCH_ENTRY_DTYPE)
        at += 24 * count
        if source.branch_sample_type & BranchSample.COUNTERS:
            row["counters"] = np.frombuffer(_slice(body, at, 8 * count), "<u8")
        else:
            row["counters"] = np.zeros(count, "<u8")
    return row


def _slice(body: bytes, at: int, size: int) -> bytes:
    if at + size > len(body):
        raise _Short(f"a sample of {len(body) + 8} bytes, whose fields need more")
    return body[at:at + size]


def _skip_read(body: bytes, at: int, event: Event) -> int:
    """Offset after a READ field."""
    if not event.sample_type & SampleType.READ:
        return at
    form = event.read_format
    times = bool(form & ReadFormat.TOTAL_TIME_ENABLED) + bool(form & ReadFormat.TOTAL_TIME_RUNNING)
    each = 1 + bool(form & ReadFormat.ID) + bool(form & ReadFormat.LOST)
    if form & ReadFormat.GROUP:
        count = struct.unpack("<Q", _slice(body, at, 8))[0]
        size = 8 * (1 + times + count * each)
    else:
        size = 8 * (times + each)
    _slice(body, at, size)
    return at + size


def _samples(rows: list[dict], index: EventIndex) -> Samples:
    """Rows as arrays; optional ones are there if any event of the file has them."""
    def word(kind: SampleType, default: int = 0) -> np.ndarray:
        return np.array([row.get(kind, default) for row in rows], np.uint64)

    def ragged(name: str, dtype: np.dtype | str) -> tuple[np.ndarray, np.ndarray]:
        parts = [row.get(name, ()) for row in rows]
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return offsets, np.concatenate([np.zeros(0, dtype), *(p for p in parts if len(p))])

    types = [event.sample_type for event in index.events]
    branch = [event.branch_sample_type for event in index.events]
    ids, cpus = word(SampleType.TID), word(SampleType.CPU)
    offsets, entries = ragged("entries", BRANCH_ENTRY_DTYPE)
    chain = (
        ragged("chain", "<u8") if any(kind & SampleType.CALLCHAIN for kind in types)
        else (None, None)
    )
    return Samples(
        ip=word(SampleType.IP), pid=ids.astype(np.uint32).view(np.int32),
        tid=(ids >> np.uint64(32)).astype(np.uint32).view(np.int32),
        time=word(SampleType.TIME), cpu=cpus.astype(np.uint32),
        period=np.array([row.get(SampleType.PERIOD, _period(index, row)) for row in rows],
                        np.uint64),
        event=np.array([row["event"] for row in rows], np.uint16),
        misc=np.array([row["misc"] for row in rows], np.uint16),
        offsets=offsets, entries=entries,
        hw_idx=np.array([row.get("hw_idx", 0) for row in rows], np.uint64)
        if any(kind & BranchSample.HW_INDEX for kind in branch) else None,
        counters=ragged("counters", "<u8")[1]
        if any(kind & BranchSample.COUNTERS for kind in branch) else None,
        chain_offsets=chain[0], chain=chain[1],
    )


def _period(index: EventIndex, row: dict) -> int:
    """Without PERIOD in the sample, the event's own."""
    return index.events[row["event"]].period
