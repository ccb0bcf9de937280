"""What a stretch of branches does to a facility: a function of the state before it.

``summary.pxd`` has the layout; `lbrcore.lookback` makes summaries of rows.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy, memset

from lbrcore.choices cimport EMPTY_STACK_CLEARS_LER, RESTART_KEEPS_CYCLES
from lbrcore.lbr cimport (
    CYC_CNT_MAX, EVENT_COUNT_MAX, INFO_EVENTS_SHIFT, INFO_TYPE_SHIFT, LBR_INFO_CYC_CNT_VALID,
    LBR_INFO_FLAGS, LbrState, MODE_EVENTS, MODE_OFF, MODE_TIMED, lbr_find_quick, lbr_info_events,
    lbr_slot,
)
from lbrcore.lookback cimport lbr_look, lbr_look_at, lbr_summarize
from lbrcore.rows cimport Rows, rows_of

from lbrcore.dtypes import ENTRY_DTYPE as _ENTRY_DTYPE

import numpy as np


# ---------------------------------------------------------------- counts

cdef lbr_counts lbr_counts_add(lbr_counts a, lbr_counts b) noexcept nogil:
    cdef lbr_counts sum
    cdef uint64_t count
    cdef int i
    sum.cycles = a.cycles + b.cycles
    if sum.cycles > CYC_CNT_MAX:
        sum.cycles = CYC_CNT_MAX
    sum.events = 0
    for i in range(4):
        count = ((a.events >> (8 * i)) & 0xFF) + ((b.events >> (8 * i)) & 0xFF)
        if count > EVENT_COUNT_MAX:
            count = EVENT_COUNT_MAX
        sum.events |= count << (8 * i)
    return sum


cdef void _complete(
    const lbr_summary* summary, lbr_entry* entry, lbr_counts counts, bint valid
) noexcept nogil:
    """Write the counts of a record that was open."""
    cdef uint64_t mask = 0, info = 0
    if summary.mode & MODE_TIMED:
        mask |= CYC_CNT_MAX | LBR_INFO_CYC_CNT_VALID
        if valid:
            info |= counts.cycles | LBR_INFO_CYC_CNT_VALID
    if summary.mode & MODE_EVENTS:
        mask |= <uint64_t> 0xFF << INFO_EVENTS_SHIFT
        info |= lbr_info_events(counts.events)
    entry.info = (entry.info & ~mask) | (info & mask & summary.info_mask)


# ---------------------------------------------------------------- elementary summaries

cdef void lbr_summary_identity(lbr_summary* summary, const lbr_state* state) noexcept nogil:
    memset(summary, 0, sizeof(lbr_summary))
    summary.depth = summary.keep = state.depth
    summary.mode = state.mode
    summary.info_mask = state.config.info_mask


cdef void lbr_summary_restart(lbr_summary* summary, const lbr_state* state) noexcept nogil:
    """Recording stopped and went on: CYC_CNT has nothing to count from."""
    lbr_summary_identity(summary, state)
    summary.ended = not RESTART_KEEPS_CYCLES


cdef void lbr_summary_clear(lbr_summary* summary, const lbr_state* state) noexcept nogil:
    """All records are zeroed."""
    lbr_summary_identity(summary, state)
    summary.keep = 0


cdef void lbr_summary_load_ler(lbr_summary* summary, const lbr_state* state) noexcept nogil:
    """An exception or interrupt: LER takes the newest record."""
    lbr_summary_identity(summary, state)
    summary.ler_earlier = 1


# ---------------------------------------------------------------- composing

cdef bint _loads_ler(const lbr_entry* entry) noexcept nogil:
    return EMPTY_STACK_CLEARS_LER or (entry.from_ | entry.to) != 0


cdef lbr_entry _ler_of(const lbr_entry* entry) noexcept nogil:
    cdef lbr_entry ler = entry[0]
    ler.info &= LBR_INFO_FLAGS | (<uint64_t> 0xF << INFO_TYPE_SHIFT)
    return ler


cdef void _then_ler(lbr_summary* first, const lbr_summary* second) noexcept nogil:
    """LER after both.  Runs before the records of `first` are changed."""
    cdef uint32_t earlier = first.ler_earlier, i, place
    cdef lbr_entry empty
    if second.ler_loaded:
        first.ler_loaded = 1
        first.ler = second.ler
        earlier = 0
    for i in range(first.depth):
        if not (second.ler_earlier >> i) & 1:
            continue
        if i < first.n:
            if _loads_ler(&first.entries[i]):
                first.ler_loaded = 1
                first.ler = _ler_of(&first.entries[i])
                earlier = 0
        elif i - first.n < first.keep:
            place = first.pops + i - first.n
            # Deeper places are looked at later; bits below can only be older loads.
            earlier |= <uint32_t> 1 << place
        elif EMPTY_STACK_CLEARS_LER:
            memset(&empty, 0, sizeof(empty))
            first.ler_loaded = 1
            first.ler = empty
            earlier = 0
    first.ler_earlier = earlier


cdef void _then_records(lbr_summary* first, const lbr_summary* second) noexcept nogil:
    cdef lbr_entry entries[32]
    cdef uint32_t left = 0, pops
    cdef bint open_kept = False
    if second.pops <= first.n:
        left = first.n - second.pops
        if left > second.keep:
            left = second.keep
            first.keep = 0
        else:
            open_kept = left > 0 and first.open
            first.keep = min(first.keep, second.keep - left)
    else:
        pops = second.pops - first.n
        first.pops += pops
        first.keep = min(first.keep - pops if first.keep > pops else <uint32_t> 0, second.keep)
    memcpy(entries, &first.entries[second.pops], left * sizeof(lbr_entry))
    memcpy(first.entries, second.entries, second.n * sizeof(lbr_entry))
    memcpy(&first.entries[second.n], entries, left * sizeof(lbr_entry))
    first.n = second.n + left
    # One form for one function.
    if first.keep == 0:
        first.pops = 0
    elif first.pops + first.keep > first.depth:
        first.keep = first.depth - first.pops if first.pops < first.depth else 0
        if first.keep == 0:
            first.pops = 0
    first.open = <uint8_t> open_kept


cdef void lbr_summary_then(lbr_summary* first, const lbr_summary* second) noexcept nogil:
    cdef bint ended = first.ended
    cdef lbr_counts joined = lbr_counts_add(first.tail if ended else first.lead, second.lead)
    _then_ler(first, second)
    _then_records(first, second)
    if second.open:
        if ended:
            _complete(first, &first.entries[second.n - 1], joined, first.cycles_valid)
        else:
            first.open = 1
    if not ended:
        first.lead = joined
        first.ended = second.ended
    if second.ended:
        first.tail = second.tail
        first.cycles_valid = second.cycles_valid
    elif ended:
        first.tail = joined
    if first.ended and not first.open:
        memset(&first.lead, 0, sizeof(lbr_counts))
    first.moved += second.moved


cdef void lbr_summary_apply(const lbr_summary* summary, lbr_state* state) noexcept nogil:
    cdef lbr_entry entries[32]
    cdef lbr_counts counts
    cdef lbr_entry* earlier
    cdef uint32_t i, n = summary.n, keep
    cdef int bit
    counts.cycles = state.cycles
    counts.events = 0
    memcpy(&counts.events, &state.events[0], 4)
    counts = lbr_counts_add(counts, summary.lead)

    if summary.ler_loaded:
        state.ler = summary.ler
    for bit in range(31, -1, -1):
        if (summary.ler_earlier >> bit) & 1:
            earlier = lbr_slot(state, state.head - <uint32_t> bit)
            if _loads_ler(earlier):
                state.ler = _ler_of(earlier)
                break

    memcpy(entries, summary.entries, n * sizeof(lbr_entry))
    if summary.open:
        _complete(summary, &entries[n - 1], counts, state.cycles_valid)
    keep = min(summary.keep, summary.depth - n)
    if summary.pops + keep > summary.depth:
        keep = summary.depth - summary.pops if summary.pops < summary.depth else 0
    for i in range(keep):
        entries[n + i] = lbr_slot(state, state.head - summary.pops - i)[0]
    memset(&entries[n + keep], 0, (summary.depth - n - keep) * sizeof(lbr_entry))
    state.head += summary.moved
    for i in range(summary.depth):
        lbr_slot(state, state.head - i)[0] = entries[i]

    if summary.ended:
        counts = summary.tail
    if summary.mode & MODE_TIMED:
        state.cycles = counts.cycles
        if summary.ended:
            state.cycles_valid = summary.cycles_valid
            lbr_find_quick(state)
    if summary.mode & MODE_EVENTS:
        memcpy(&state.events[0], &counts.events, 4)


# ---------------------------------------------------------------- Python

cdef bint _counted(uint64_t events) noexcept nogil:
    """Whether these are four counts, none too large."""
    cdef int i
    for i in range(4):
        if (events >> (8 * i)) & 0xFF > EVENT_COUNT_MAX:
            return False
    return not events >> 32


@cython.final
cdef class Summary:
    """Summary(lbr, branches=None)\n--\n
    The effect of branches on a facility, as a value.

    Summaries compose in the order of the trace, associatively and not commutatively:
    ``Summary(lbr, a).then(Summary(lbr, b)) == Summary(lbr, a + b)``, and ``Summary(lbr)``,
    of no branches, changes nothing.  They cover records, LER, cycle and event counts and TOS.

    Parameters
    ----------
    lbr : LbrState
        Gives configuration, control and depth; must be recording.  Its records do not matter.
    branches : Rows, ndarray of BRANCH_DTYPE or mapping of columns, optional
        Oldest first.

    Raises
    ------
    ValueError
        The facility is off.

    Notes
    -----
    Immutable; may be used by several threads.  Making one releases the GIL.
    """

    def __init__(self, LbrState lbr not None, branches=None):
        cdef Rows rows
        cdef lbr_look look
        if lbr.state.mode & MODE_OFF:
            raise ValueError("lbr: records nothing; switch recording on first")
        if branches is None:
            lbr_summary_identity(&self.summary, lbr.state)
            return
        rows = rows_of(branches)
        with nogil:
            lbr_look_at(&look, lbr.state, &rows.rows)
            lbr_summarize(
                &self.summary, lbr.state, &look, &rows.rows, 0, rows.rows.count, True)

    @classmethod
    def restart(cls, LbrState lbr not None):
        """Recording stopped and went on: CYC_CNT has no record to count from."""
        cdef Summary result = cls(lbr)
        lbr_summary_restart(&result.summary, lbr.state)
        return result

    @classmethod
    def clear(cls, LbrState lbr not None):
        """All records were zeroed."""
        cdef Summary result = cls(lbr)
        lbr_summary_clear(&result.summary, lbr.state)
        return result

    def then(self, Summary other not None):
        """This and then `other`."""
        cdef Summary result = Summary.__new__(Summary)
        if (self.summary.depth != other.summary.depth or self.summary.mode != other.summary.mode
                or self.summary.info_mask != other.summary.info_mask):
            raise ValueError("other: a summary for a facility that is set up differently")
        result.summary = self.summary
        lbr_summary_then(&result.summary, &other.summary)
        return result

    def apply(self, LbrState lbr not None):
        """Advance a facility from before the branches to after them."""
        if (lbr.state.depth != self.summary.depth or lbr.state.mode != self.summary.mode
                or lbr.state.config.info_mask != self.summary.info_mask):
            raise ValueError("lbr: is set up differently from the facility of the summary")
        lbr_summary_apply(&self.summary, lbr.state)

    def to_bytes(self):
        """All of it as bytes, for another process of the same build; see `from_bytes`."""
        cdef lbr_summary copy = self.summary
        memset(&copy.entries[copy.n], 0, (32 - copy.n) * sizeof(lbr_entry))
        return PyBytes_FromStringAndSize(<char*> &copy, sizeof(lbr_summary))

    @classmethod
    def from_bytes(cls, bytes data not None):
        """The summary of `to_bytes`.

        Raises
        ------
        ValueError
            The bytes are none of a summary.
        """
        cdef Summary result = Summary.__new__(Summary)
        cdef lbr_summary* s = &result.summary
        if <size_t> len(data) != sizeof(lbr_summary):
            raise ValueError(f"data: {len(data)} bytes; a summary has {sizeof(lbr_summary)}")
        memcpy(s, <const char*> data, sizeof(lbr_summary))
        if (not 1 <= s.depth <= 32 or s.n > s.depth or s.keep > s.depth - s.n
                or s.pops > s.depth or (s.open and not s.n) or s.ler_earlier >> (s.depth - 1) > 1
                or max(s.lead.cycles, s.tail.cycles) > CYC_CNT_MAX
                or max(s.ended, s.open, s.cycles_valid, s.ler_loaded) > 1
                or not _counted(s.lead.events) or not _counted(s.tail.events)):
            raise ValueError("data: contradicts itself")
        return result

    def __reduce__(self):
        return Summary.from_bytes, (self.to_bytes(),)

    @property
    def complete(self):
        """Records and counts do not depend on what was before the branches."""
        return self.summary.keep == 0 and self.summary.ended and not self.summary.open

    @property
    def key(self):
        """All of it, for comparison."""
        cdef lbr_summary* s = &self.summary
        return (
            s.depth, s.mode, s.pops, s.keep, s.moved, s.ended, s.open, s.cycles_valid,
            s.ler_loaded, s.ler_earlier, s.ler.from_, s.ler.to, s.ler.info, s.lead.cycles,
            s.lead.events, s.tail.cycles, s.tail.events, s.info_mask,
            PyBytes_FromStringAndSize(<char*> s.entries, s.n * sizeof(lbr_entry)))

    @property
    def entries(self):
        """Records made and still there, of ENTRY_DTYPE, newest first.

        INFO of the last one lacks its counts if they continue those before the branches.
        """
        return np.frombuffer(
            bytearray(PyBytes_FromStringAndSize(
                <char*> self.summary.entries, self.summary.n * sizeof(lbr_entry))), _ENTRY_DTYPE)

    def __eq__(self, other):
        return isinstance(other, Summary) and self.key == (<Summary> other).key

    def __hash__(self):
        return hash(self.key)

    def __repr__(self):
        return (f"Summary(pops={self.summary.pops}, keep={self.summary.keep}, "
                f"{self.summary.n} records)")
