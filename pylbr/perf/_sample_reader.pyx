"""SAMPLE records into arrays.  `pylbr.perf.sample_reader` is the plain-Python twin."""

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from pylbr.perf.abi import BRANCH_ENTRY_DTYPE
from pylbr.perf.sample_reader import SKIPPED, Found
from pylbr.perf.stacks import Samples

# struct Row.
_ROW = np.dtype([
    ("ip", "u8"), ("time", "u8"), ("period", "u8"), ("hw_idx", "u8"), ("pid", "i4"),
    ("tid", "i4"), ("cpu", "u4"), ("event", "u2"), ("misc", "u2"),
])

cdef enum:
    S_IP = 1 << 0
    S_TID = 1 << 1
    S_TIME = 1 << 2
    S_ADDR = 1 << 3
    S_READ = 1 << 4
    S_CALLCHAIN = 1 << 5
    S_ID = 1 << 6
    S_CPU = 1 << 7
    S_PERIOD = 1 << 8
    S_STREAM_ID = 1 << 9
    S_RAW = 1 << 10
    S_BRANCH_STACK = 1 << 11
    S_IDENTIFIER = 1 << 16
    B_HW_INDEX = 1 << 17
    B_COUNTERS = 1 << 19
    F_TOTAL_TIME_ENABLED = 1
    F_TOTAL_TIME_RUNNING = 2
    F_ID = 4
    F_GROUP = 8
    F_LOST = 16
    SAMPLE = 9
    UNKNOWN_ID = -2  # results of parse(); -1 is a sample that is too short

cdef struct Layout:
    uint64_t sample_type
    uint64_t read_format
    uint64_t branch_type
    uint64_t period

cdef struct Row:
    uint64_t ip, time, period, hw_idx
    int32_t pid, tid
    uint32_t cpu
    uint16_t event, misc

# What the passes over a window need of the file.
cdef struct File:
    Layout *layouts
    const uint64_t *ids
    const uint16_t *events
    Py_ssize_t id_count, id_word

# Where the parts of one sample lie in the window.
cdef struct Place:
    uint64_t chain, chain_count, entries, entry_count, counters


cdef inline uint64_t word(const uint8_t *at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return value


cdef inline uint32_t half(const uint8_t *at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef Py_ssize_t event_of(const File *file, uint64_t number) noexcept nogil:
    """Index of the event with this id, UNKNOWN_ID if there is none."""
    cdef Py_ssize_t low = 0, high = file.id_count, middle
    while low < high:
        middle = (low + high) // 2
        if file.ids[middle] < number:
            low = middle + 1
        else:
            high = middle
    if low < file.id_count and file.ids[low] == number:
        return file.events[low]
    return UNKNOWN_ID


cdef int64_t fixed_words(
    const uint8_t *body, uint64_t size, uint64_t kind, Row *row
) noexcept nogil:
    """The fields of one word each; offset after them, -1 if the sample is too short."""
    cdef uint64_t at = 0, value
    cdef uint64_t order[9]
    cdef int i
    order[0] = S_IDENTIFIER
    order[1] = S_IP
    order[2] = S_TID
    order[3] = S_TIME
    order[4] = S_ADDR
    order[5] = S_ID
    order[6] = S_STREAM_ID
    order[7] = S_CPU
    order[8] = S_PERIOD
    for i in range(9):
        if not kind & order[i]:
            continue
        if at + 8 > size:
            return -1
        value = word(body + at)
        at += 8
        if order[i] == S_IP:
            row.ip = value
        elif order[i] == S_TID:
            row.pid = <int32_t>value
            row.tid = <int32_t>(value >> 32)
        elif order[i] == S_TIME:
            row.time = value
        elif order[i] == S_CPU:
            row.cpu = <uint32_t>value
        elif order[i] == S_PERIOD:
            row.period = value
    return at


cdef int64_t after_read(
    const uint8_t *body, uint64_t size, uint64_t at, uint64_t form
) noexcept nogil:
    """Offset after a READ field of this format, -1 if the sample is too short."""
    cdef uint64_t count, each, times
    times = (1 if form & F_TOTAL_TIME_ENABLED else 0) + (1 if form & F_TOTAL_TIME_RUNNING else 0)
    each = 1 + (1 if form & F_ID else 0) + (1 if form & F_LOST else 0)
    if form & F_GROUP:
        if at + 8 > size:
            return -1
        count = word(body + at)
        if count > size:
            return -1
        at += 8 * (1 + times + count * each)
    else:
        at += 8 * (times + each)
    return -1 if at > size else <int64_t>at


cdef int64_t parse(
    const uint8_t *body, uint64_t size, const File *file, Row *row, Place *place
) noexcept nogil:
    """One sample without its header: 0, or -1, or UNKNOWN_ID."""
    cdef Py_ssize_t event = 0
    cdef uint64_t at, count, branch
    cdef int64_t got
    if file.id_word >= 0:
        if <uint64_t>(8 * file.id_word + 8) > size:
            return -1
        event = event_of(file, word(body + 8 * file.id_word))
        if event < 0:
            return event
    cdef Layout *layout = &file.layouts[event]
    cdef uint64_t kind = layout.sample_type
    row[0] = Row(0, 0, layout.period, 0, 0, 0, 0, <uint16_t>event, 0)
    place[0] = Place(0, 0, 0, 0, 0)
    got = fixed_words(body, size, kind, row)
    if got < 0:
        return -1
    at = got
    if kind & S_READ:
        got = after_read(body, size, at, layout.read_format)
        if got < 0:
            return -1
        at = got
    if kind & S_CALLCHAIN:
        if at + 8 > size:
            return -1
        place.chain_count = word(body + at)
        place.chain = at + 8
        if place.chain_count > (size - at - 8) / 8:
            return -1
        at += 8 + 8 * place.chain_count
    if kind & S_RAW:
        if at + 4 > size:
            return -1
        at += 4 + <uint64_t>half(body + at)
        if at > size:
            return -1
    if kind & S_BRANCH_STACK:
        branch = layout.branch_type
        if at + 8 > size:
            return -1
        count = word(body + at)
        at += 8
        if branch & B_HW_INDEX:
            if at + 8 > size:
                return -1
            row.hw_idx = word(body + at)
            at += 8
        if count > (size - at) / 24:
            return -1
        place.entries = at
        place.entry_count = count
        at += 24 * count
        if branch & B_COUNTERS:
            if count > (size - at) / 8:
                return -1
            place.counters = at
    return 0


cdef (Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, int64_t) measure(
    const uint8_t *data, Py_ssize_t size, Py_ssize_t at, const File *file, const uint8_t *skipped,
) noexcept nogil:
    """First pass: where the run ends, samples, entries, chain words, and why (0, -1, -2, -3)."""
    cdef Py_ssize_t samples = 0, entries = 0, chain = 0, length
    cdef uint32_t kind
    cdef int64_t result = 0
    cdef Row row
    cdef Place place
    while at + 8 <= size:
        kind = half(data + at)
        length = data[at + 6] | <Py_ssize_t>data[at + 7] << 8
        if length < 8:
            result = -3
            break
        if at + length > size or (kind != SAMPLE and (kind >= 128 or not skipped[kind])):
            break
        if kind == SAMPLE:
            result = parse(data + at + 8, length - 8, file, &row, &place)
            if result < 0:
                break
            samples += 1
            entries += place.entry_count
            chain += place.chain_count
        at += length
    return at, samples, entries, chain, result


cdef void fill(
    const uint8_t *data, Py_ssize_t at, Py_ssize_t stop, const File *file, Row *rows,
    int64_t[::1] offsets, uint8_t *entries, uint64_t *counters, int64_t[::1] chain_offsets,
    uint8_t *chain,
) noexcept nogil:
    """Second pass, over what the first found sound."""
    cdef Py_ssize_t i = 0, length
    cdef Place place
    cdef const uint8_t *body
    while at < stop:
        length = data[at + 6] | <Py_ssize_t>data[at + 7] << 8
        if half(data + at) == SAMPLE:
            body = data + at + 8
            parse(body, length - 8, file, &rows[i], &place)
            rows[i].misc = <uint16_t>(data[at + 4] | <uint16_t>data[at + 5] << 8)
            memcpy(entries + 24 * offsets[i], body + place.entries, 24 * place.entry_count)
            if place.counters:
                memcpy(counters + offsets[i], body + place.counters, 8 * place.entry_count)
            memcpy(chain + 8 * chain_offsets[i], body + place.chain, 8 * place.chain_count)
            offsets[i + 1] = offsets[i] + <int64_t>place.entry_count
            chain_offsets[i + 1] = chain_offsets[i] + <int64_t>place.chain_count
            i += 1
        at += length


cdef str fault_of(int64_t result, const uint8_t *data, Py_ssize_t at):
    """What is wrong with the record at `at`, in the words of the twin."""
    if not result:
        return ""  # there need not be a record at `at`
    cdef Py_ssize_t length = data[at + 6] | <Py_ssize_t>data[at + 7] << 8
    if result == -3:
        return f"a record of {length} bytes"
    if result == UNKNOWN_ID:
        return "a sample of an unknown event"
    return f"a sample of {length} bytes, whose fields need more"


cdef class Scanner:
    """Scans the records of one file; see `pylbr.perf.sample_reader.scan_samples`."""

    cdef Layout[:] layouts
    cdef const uint64_t[::1] ids
    cdef const uint16_t[::1] events
    cdef uint8_t skipped[128]
    cdef Py_ssize_t id_word
    cdef bint has_hw_idx, has_counters, has_chain

    def __init__(self, index):
        numbers = np.array(
            [[e.sample_type, e.read_format, e.branch_sample_type, e.period]
             for e in index.events], np.uint64,
        )
        self.layouts = numbers.view([(n, "u8") for n in (
            "sample_type", "read_format", "branch_type", "period")]).reshape(-1)
        order = sorted(index.event_of_id)
        self.ids = np.array(order, np.uint64)
        self.events = np.array([index.event_of_id[number] for number in order], np.uint16)
        self.id_word = index.id_word
        for kind in range(128):
            self.skipped[kind] = kind in SKIPPED
        self.has_hw_idx = any(e.branch_sample_type & B_HW_INDEX for e in index.events)
        self.has_counters = any(e.branch_sample_type & B_COUNTERS for e in index.events)
        self.has_chain = any(e.sample_type & S_CALLCHAIN for e in index.events)

    def scan(self, const uint8_t[::1] data, Py_ssize_t at):
        cdef File file
        cdef Py_ssize_t size = data.shape[0], stop, samples, entries, chain
        cdef int64_t result
        if at < 0 or at > size:
            raise ValueError(f"offset {at} in a window of {size} bytes")
        if size == 0:
            return Found(self.samples(0, 0, 0, NULL, 0, 0, NULL), at, "")
        file.layouts = &self.layouts[0]
        file.id_count, file.id_word = self.ids.shape[0], self.id_word
        file.ids = &self.ids[0] if file.id_count else NULL
        file.events = &self.events[0] if file.id_count else NULL
        with nogil:
            stop, samples, entries, chain, result = measure(
                &data[0], size, at, &file, self.skipped
            )
        found = self.samples(samples, entries, chain, &data[0], at, stop, &file)
        return Found(found, stop, fault_of(result, &data[0], stop))

    cdef object samples(
        self, Py_ssize_t count, Py_ssize_t entry_count, Py_ssize_t chain_count,
        const uint8_t *data, Py_ssize_t at, Py_ssize_t stop, const File *file,
    ):
        rows = np.zeros(count, _ROW)
        entries = np.empty(entry_count, BRANCH_ENTRY_DTYPE)
        counters = np.zeros(entry_count, np.uint64)
        chain = np.empty(chain_count, np.uint64)
        offsets, chain_offsets = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
        cdef int64_t[::1] offset_view = offsets, chain_view = chain_offsets
        cdef Row *row = <Row *><size_t>rows.ctypes.data
        cdef uint8_t *entry = <uint8_t *><size_t>entries.ctypes.data
        cdef uint64_t *counter = <uint64_t *><size_t>counters.ctypes.data
        cdef uint8_t *link = <uint8_t *><size_t>chain.ctypes.data
        if count:
            with nogil:
                fill(data, at, stop, file, row, offset_view, entry, counter, chain_view, link)
        names = ("ip", "pid", "tid", "time", "cpu", "period", "event", "misc")
        return Samples(
            **{name: np.ascontiguousarray(rows[name]) for name in names},
            offsets=offsets, entries=entries,
            hw_idx=np.ascontiguousarray(rows["hw_idx"]) if self.has_hw_idx else None,
            counters=counters if self.has_counters else None,
            chain_offsets=chain_offsets if self.has_chain else None,
            chain=chain if self.has_chain else None,
        )
