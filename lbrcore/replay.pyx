"""A facility and the counters that sample it, driven by a trace.

The *lazy* engine: it looks for the next overflow, by arithmetic or by counting a column, and then
summarizes what lies between two samples, which for most settings means the last few branches.
`lbrcore.reference_replay` is its plain-Python twin, and `pylbr.sample.architectural` records every
branch through a processor instead; the samples are the same.

What happens at a branch, in this order:

1. it is recorded, if the facility is on;
2. every counter counts it; one that reaches its period overflows.  If `freeze` is set, the
   facility stops (LBR_FRZ);
3. a PMI is taken as many branches after an overflow as that counter's skid, the earliest
   one first.  It handles all counters that have overflowed by then: a sample each, in the order
   of the counters, and a new period.  The events counted since the overflow belong to that
   period; if they would use all of it up, it starts at the PMI (the rule of Linux,
   x86_perf_event_set_period).  Then the facility resumes.
"""

cimport cython
from libc.string cimport memset

from lbrcore.control cimport lbr_set_frozen
from lbrcore.lbr cimport (
    CYC_CNT_MAX, EVENT_COUNT_MAX, INFO_CLASS_SHIFT, LBR_LEGACY, MODE_CALL_STACK, MODE_OFF,
    lbr_branch, lbr_copy, lbr_find_quick, lbr_read_records, lbr_record, lbr_slot,
)
from lbrcore.choices cimport POP_RESTARTS_CYCLES
from lbrcore.lookback cimport lbr_advance, lbr_look_at, lbr_summarize
from lbrcore.rows cimport lbr_prefetch_rows, lbr_row, rows_of
from lbrcore.scan cimport lbr_find, lbr_predicate_of, lbr_scan_rows, lbr_total
from lbrcore.summary cimport Summary

from lbrcore.dtypes import ENTRY_DTYPE as _ENTRY_DTYPE

import numpy as np

cdef enum:
    FORESEEN = 256  # rows to be prefetched, at most
    # lbr_counter.overflowed
    AHEAD = 1    # at a row that has been found, but not reached
    HAPPENED = 2

cdef size_t NEVER = <size_t> -1


@cython.final
cdef class SampleBuffer:
    """SampleBuffer(capacity, depth)\n--\n
    Room for samples; the first `count` of each array are filled.

    Parameters
    ----------
    capacity : int
    depth : int
        Of the facility.

    Attributes
    ----------
    count : int
        Samples taken so far.
    row : ndarray of i8, shape (capacity,)
        Row of the trace after which the PMI was taken.
    event : ndarray of u2
        Index into `Replay.events`.
    period : ndarray of u8
        The period that ended.
    nr : ndarray of u4
        Records up to the first whose FROM is 0, which ends them for software.
    hw_idx : ndarray of u8
        TOS in the legacy flavour, else 0.  From `Replay` only with `whole`, or in call-stack
        mode.
    entries : ndarray of ENTRY_DTYPE, shape (capacity, depth)
        Newest first.
    classes : ndarray of u1, shape (capacity, depth)
        `BranchClass` of each entry, if ``lbr_config.info_mask`` has `INFO_CLASS`; it is then
        not in `entries`.
    """

    def __init__(self, capacity, depth):
        self.row = np.empty(capacity, "i8")
        self.event = np.empty(capacity, "u2")
        self.period = np.empty(capacity, "u8")
        self.nr = np.empty(capacity, "u4")
        self.hw_idx = np.empty(capacity, "u8")
        self.entries = np.empty((capacity, depth), _ENTRY_DTYPE)
        self.classes = np.empty((capacity, depth), "u1")
        self.capacity, self.depth, self.count = capacity, depth, 0
        self._row = <int64_t*> <size_t> self.row.ctypes.data
        self._event = <uint16_t*> <size_t> self.event.ctypes.data
        self._period = <uint64_t*> <size_t> self.period.ctypes.data
        self._nr = <uint32_t*> <size_t> self.nr.ctypes.data
        self._hw_idx = <uint64_t*> <size_t> self.hw_idx.ctypes.data
        self._entries = <lbr_entry*> <size_t> self.entries.ctypes.data
        self._classes = <uint8_t*> <size_t> self.classes.ctypes.data

    def __len__(self):
        return self.count

    def add(self, LbrState lbr not None, int64_t row, uint16_t event, uint64_t period):
        """Take a sample of the facility as it is.

        Raises
        ------
        ValueError
            The facility has another depth, or there is no room.
        """
        if lbr.state.depth != self.depth:
            raise ValueError(f"lbr: has depth {lbr.state.depth}, the buffer {self.depth}")
        if self.count == self.capacity:
            raise ValueError("the buffer is full")
        self._add(lbr.state, row, event, period)

    cdef void _add(
        self, const lbr_state* state, int64_t row, uint16_t event, uint64_t period
    ) noexcept nogil:
        cdef size_t at = self.count, i
        cdef lbr_entry* entries = self._entries + at * self.depth
        cdef uint8_t* classes = self._classes + at * self.depth
        cdef uint64_t mask = <uint64_t> 0xF << INFO_CLASS_SHIFT & state.config.info_mask
        cdef uint32_t nr = 0
        lbr_read_records(state, entries)
        for i in range(self.depth):
            classes[i] = <uint8_t> ((entries[i].info & mask) >> INFO_CLASS_SHIFT)
            entries[i].info &= ~mask
        # An entry whose FROM is 0 ends the records for software.
        while nr < self.depth and entries[nr].from_:
            nr += 1
        self._row[at] = row
        self._event[at] = event
        self._period[at] = period
        self._nr[at] = nr
        self._hw_idx[at] = (
            state.head & (state.depth - 1) if state.config.flavour == LBR_LEGACY else 0)
        self.count += 1


cdef uint64_t _period_at(const lbr_counter* counter, uint64_t ordinal) noexcept nogil:
    """`CountedEvent.period_at`."""
    cdef uint64_t z
    if not counter.jitter:
        return counter.base
    z = counter.seed + (ordinal + 1) * <uint64_t> 0x9E3779B97F4A7C15
    z = (z ^ (z >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t> 0x94D049BB133111EB
    return counter.base - counter.jitter + (z ^ (z >> 31)) % (2 * counter.jitter + 1)


cdef void _reload(lbr_counter* counter) noexcept nogil:
    """Begin the next period."""
    counter.ordinal += 1
    counter.period = _period_at(counter, counter.ordinal)
    counter.overflowed = 0
    if counter.left <= -<int64_t> counter.period:
        counter.left = <int64_t> counter.period
    else:
        counter.left += <int64_t> counter.period


@cython.final
cdef class Replay:
    """Replay(lbr, events, *, freeze=False, whole=False)\n--\n
    A facility and the counters that sample it.

    Looks back from each sample instead of recording every branch.

    Parameters
    ----------
    lbr : LbrState
        Set up and recording; used, not copied.
    events : sequence of CountedEvent
        At most 16; they count from 0.
    freeze : bool
        FREEZE_LBRS_ON_PMI: the facility stops at an overflow and resumes after the PMI.
    whole : bool
        Keep also what no sample shows: LER, and TOS outside call-stack mode.  Takes a look at
        the class of every row.

    Attributes
    ----------
    count : int
        Number of events.

    Notes
    -----
    Used by one thread at a time; `run` releases the GIL.  Fields of branches that are out of
    range are cut to it, as not all are looked at.
    """

    def __init__(self, LbrState lbr not None, events, *, freeze=False, whole=False):
        cdef lbr_counter* counter
        cdef int i
        self.lbr = lbr
        self.events = tuple(events)
        if len(self.events) > MAX_COUNTERS:
            raise ValueError(f"events: {len(self.events)}; there are {MAX_COUNTERS} counters")
        self.freeze, self.whole = freeze, whole
        self.count = <int> len(self.events)
        self.pending = -1
        memset(self.counters, 0, sizeof(self.counters))
        for i in range(self.count):
            counter = &self.counters[i]
            event = self.events[i]
            counter.predicate = lbr_predicate_of(event)
            counter.base, counter.jitter = event.period, event.jitter
            counter.seed, counter.skid = event.seed, event.skid
            counter.period = _period_at(counter, 0)
            counter.left = <int64_t> counter.period

    def run(self, branches not None, SampleBuffer out not None, first=0, last=None):
        """Take rows `first` to `last`, oldest first, and add samples to `out`.

        Returns
        -------
        int
            The row to continue from: `last`, or less if `out` has no room for one more sample
            of each event.

        Raises
        ------
        ValueError
            `out` is too small or for another depth.
        """
        cdef Rows rows = rows_of(branches)
        cdef size_t start = first, stop = rows.rows.count if last is None else last
        cdef lbr_state scratch  # a frozen facility has empty tables
        cdef int i
        if not start <= stop <= rows.rows.count:
            raise ValueError(f"first, last: {first}, {last} of {rows.rows.count} rows")
        if out.depth != self.lbr.state.depth:
            raise ValueError(f"out: is for depth {out.depth}, not {self.lbr.state.depth}")
        if out.capacity < <size_t> self.count:
            raise ValueError(f"out: must have room for {self.count} samples, one an event")
        for i in range(self.count):
            lbr_scan_rows(&self.counters[i].scan, &rows.rows, &self.counters[i].predicate)
        scratch = self.lbr.state[0]
        lbr_set_frozen(&scratch, False)
        lbr_look_at(&self.look, &scratch, &rows.rows)
        with nogil:
            start = self._run(rows, start, stop, out)
        return start

    # The PMI

    cdef void _pmi(self, size_t row, SampleBuffer out) noexcept nogil:
        """Sample every counter that has overflowed; `row` is the last branch before."""
        cdef int i
        for i in range(self.count):
            if self.counters[i].overflowed == HAPPENED:
                out._add(self.lbr.state, <int64_t> row, <uint16_t> i, self.counters[i].period)
                _reload(&self.counters[i])
        self.pending = -1
        if self.freeze:
            lbr_set_frozen(self.lbr.state, True)
            lbr_set_frozen(self.lbr.state, False)

    # From PMI to PMI

    cdef void _advance(self, Rows rows, size_t first, size_t last) noexcept nogil:
        """Bring the facility from before row `first` to before row `last`."""
        cdef lbr_branch branch
        cdef size_t i
        if first == last or self.lbr.state.mode & MODE_OFF:
            return
        if POP_RESTARTS_CYCLES and self.lbr.state.mode & MODE_CALL_STACK:
            for i in range(first, last):  # a choice that summaries do not cover
                branch = lbr_row(&rows.rows, i)
                lbr_record(self.lbr.state, &branch)
            return
        self.window = last - lbr_advance(
            self.lbr.state, &self.look, &rows.rows, first, last, self.whole)

    cdef void _look_ahead(self, size_t last) noexcept nogil:
        """Find the row at which each counter overflows next."""
        cdef lbr_counter* counter
        cdef int i
        for i in range(self.count):
            counter = &self.counters[i]
            if not counter.overflowed and counter.counted < last:
                counter.overflow = lbr_find(&counter.scan, counter.counted, last, &counter.left)
                if counter.left <= 0:
                    counter.overflowed = AHEAD
                counter.counted = min(counter.overflow + 1, last)

    cdef void _count_to(self, size_t row, bint all) noexcept nogil:
        """Bring the counts of counters that have overflowed, or of all, to before `row`."""
        cdef lbr_counter* counter
        cdef int i
        for i in range(self.count):
            counter = &self.counters[i]
            if counter.counted > row:
                if all:
                    counter.left += <int64_t> lbr_total(&counter.scan, row, counter.counted)
                    counter.overflowed = 0
            elif counter.overflowed or all:
                counter.left -= <int64_t> lbr_total(&counter.scan, counter.counted, row)
                counter.counted = row
                if counter.overflowed:
                    counter.overflowed = HAPPENED

    cdef void _foresee(self, Rows rows, size_t due, size_t last) noexcept nogil:
        """Ask for the rows that the sample after the next will most likely look at."""
        cdef size_t row = last, window = min(self.window, <size_t> FORESEEN)
        cdef int i
        for i in range(self.count):
            if self.counters[i].scan.columns == 0 and self.counters[i].scan.weight == NULL:
                row = min(row, due + self.counters[i].base)
        if window and row < last and row > due + window:
            lbr_prefetch_rows(&rows.rows, row - window, row)

    cdef size_t _run(self, Rows rows, size_t first, size_t last, SampleBuffer out) noexcept nogil:
        cdef lbr_counter* counter
        cdef size_t base = first, stop   # rows below `base` are in the facility
        cdef size_t due = first + <size_t> self.pending if self.pending >= 0 else NEVER
        cdef int i
        for i in range(self.count):
            self.counters[i].counted = self.counters[i].overflow = first
        while out.count + self.count <= out.capacity:
            self._look_ahead(last)
            stop = NEVER
            for i in range(self.count):
                counter = &self.counters[i]
                if counter.overflowed:
                    stop = min(stop, counter.overflow + 1)
                    due = min(due, counter.overflow + counter.skid + 1)
            if self.freeze and stop <= last and not self.lbr.state.frozen:
                self._advance(rows, base, stop)
                base = stop
                lbr_set_frozen(self.lbr.state, True)
            if due > last:
                self._advance(rows, base, last)
                self._count_to(last, True)
                self.pending = <int64_t> (due - last) if due != NEVER else -1
                return last
            self._foresee(rows, due, last)
            self._advance(rows, base, due)
            base = due
            self._count_to(base, False)
            self._pmi(base - 1, out)
            due = NEVER
        self._count_to(base, True)
        return base

    # Chunks

    def copy(self):
        """The same state, apart."""
        cdef Replay other = Replay.__new__(Replay)
        other.lbr = self.lbr.copy()
        other.events = self.events
        other.freeze, other.whole = self.freeze, self.whole
        other.counters = self.counters
        other.count, other.pending = self.count, self.pending
        return other

    def become(self, Replay other not None):
        """Take over the state of a copy.

        Raises
        ------
        ValueError
            It counts other events or has another depth.
        """
        if other.events != self.events or other.lbr.state.depth != self.lbr.state.depth:
            raise ValueError("other: counts other events or has another depth")
        lbr_copy(self.lbr.state, other.lbr.state)
        self.counters = other.counters
        self.pending = other.pending

    def describe(self, branches not None, first=0, last=None):
        """What rows do to the facility, and what each event counts in them, for `skip`.

        Changes nothing, so that several threads may call it at once.  LER and, outside
        call-stack mode, TOS are described only with `whole`.
        """
        cdef Rows rows = rows_of(branches)
        cdef size_t start = first, stop = rows.rows.count if last is None else last
        cdef Summary summary = Summary(self.lbr)
        cdef uint64_t[MAX_COUNTERS] counts
        cdef lbr_scan scan
        cdef lbr_look look
        cdef int i
        if not start <= stop <= rows.rows.count:
            raise ValueError(f"first, last: {first}, {last} of {rows.rows.count} rows")
        with nogil:
            lbr_look_at(&look, self.lbr.state, &rows.rows)
            lbr_summarize(
                &summary.summary, self.lbr.state, &look, &rows.rows, start, stop, self.whole)
            for i in range(self.count):
                lbr_scan_rows(&scan, &rows.rows, &self.counters[i].predicate)
                counts[i] = lbr_total(&scan, start, stop)
        return summary, tuple([counts[i] for i in range(self.count)])

    def skip(self, Summary summary not None, counts):
        """Pass over branches that `describe` has described.

        A guess: exact if nothing freezes the facility, each PMI is taken before the next
        overflow of its counter, and none is on its way at either end.
        """
        cdef lbr_counter* counter
        cdef int i
        for i in range(self.count):
            counter = &self.counters[i]
            counter.left -= <int64_t> counts[i]
            counter.overflowed = 0
            while counter.left <= 0:
                counter.ordinal += 1
                counter.period = _period_at(counter, counter.ordinal)
                counter.left += <int64_t> counter.period
        self.pending = -1
        summary.apply(self.lbr)

    def restore(self, key not None):
        """Continue from where a replay of the same set-up had this `key`.

        Raises
        ------
        ValueError
            It is of another set-up, or no key.
        """
        cdef lbr_state* state = self.lbr.state
        cdef const lbr_entry* records
        cdef uint32_t i
        counters, pending, ctl, frozen, data, cycles, valid, events, rest = key
        if (len(counters) != self.count or ctl != self.lbr.ctl or (rest is None) == self.whole
                or not isinstance(data, bytes)
                or len(data) != <Py_ssize_t> (state.depth * sizeof(lbr_entry))):
            raise ValueError("key: is of a replay that is set up differently")
        for left, _, overflowed in counters:
            if not 0 <= overflowed <= HAPPENED or abs(left) > <int64_t> 1 << 62:
                raise ValueError("key: a counter that cannot be")
        if not -1 <= pending <= <int64_t> 1 << 62 or max(events) > EVENT_COUNT_MAX:
            raise ValueError("key: a count that cannot be")
        lbr_set_frozen(state, bool(frozen))
        if rest is not None:
            if state.config.flavour == LBR_LEGACY:  # the other shows nothing of its head
                state.head = rest[0]
            state.ler.from_, state.ler.to, state.ler.info = rest[1]
        records = <const lbr_entry*> <const char*> data
        for i in range(state.depth):
            lbr_slot(state, state.head - i)[0] = records[i]
        state.cycles, state.cycles_valid = min(cycles, CYC_CNT_MAX), bool(valid)
        for i in range(4):
            state.events[i] = events[i]
        lbr_find_quick(state)
        for i in range(<uint32_t> self.count):
            self.counters[i].left, self.counters[i].ordinal, self.counters[i].overflowed = (
                counters[i])
            self.counters[i].period = _period_at(&self.counters[i], self.counters[i].ordinal)
        self.pending = pending

    @property
    def key(self):
        """All that decides what comes next, as numbers and bytes: to compare, to `restore`."""
        cdef lbr_state* state = self.lbr.state
        counters = tuple(
            (self.counters[i].left, self.counters[i].ordinal, self.counters[i].overflowed)
            for i in range(self.count))
        head = state.head & (state.depth - 1) if state.config.flavour == LBR_LEGACY else 0
        return (
            counters, self.pending, self.lbr.ctl, self.lbr.frozen, self.lbr.records().tobytes(),
            state.cycles, state.cycles_valid, tuple([state.events[i] for i in range(4)]),
            (head, self.lbr.ler) if self.whole else None)
