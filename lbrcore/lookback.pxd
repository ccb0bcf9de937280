"""From rows of a trace to what they leave in a facility, looking at no more of them than it takes.

Outside call-stack mode the newest depth + 1 branches that are recorded decide everything, so
the rows are searched from the end.  In call-stack mode the heights of the stack in blocks of
rows show which block holds a call that is still open; only those are looked into (`callstack`).

    cdef lbr_look look
    lbr_look_at(&look, state, &rows)
    lbr_advance(state, &look, &rows, first, last, False)
"""

from libc.stddef cimport size_t
from libc.stdint cimport int8_t, uint8_t, uint64_t

from lbrcore.lbr cimport (
    INFO_CLASS_SHIFT, INFO_TYPE_SHIFT, LBR_INFO_CYC_CNT_VALID, LBR_INFO_FLAGS, MODE_EVENTS,
    MODE_TIMED, lbr_br_type, lbr_entry, lbr_from_ones, lbr_info_events, lbr_state,
)
from lbrcore.rows cimport (
    FIELD_CLASS, FIELD_CPL_FROM, FIELD_FLAGS, FIELD_FROM, FIELD_TO, lbr_address, lbr_byte, lbr_rows,
)
from lbrcore.scan cimport lbr_scan
from lbrcore.summary cimport lbr_counts, lbr_summary

# The truth tables of a facility, bound to rows.
ctypedef struct lbr_look:
    lbr_scan pushes        # rows that are recorded
    lbr_scan pops          # rows that remove the newest record
    lbr_scan loads         # rows that load LER
    int8_t delta[16]       # by class: 1 pushes, -1 pops
    uint8_t passes[16]     # by CPL at the end of the branch: 0xFF lets it count

cdef void lbr_look_at(lbr_look* look, const lbr_state* state, const lbr_rows* rows) noexcept nogil

# What rows [first, last) do to a facility with the control, depth and tables of `state`.
# `whole`: also LER and, outside call-stack mode, the movement of the head, which takes a look at
# the class of every row.
cdef void lbr_summarize(
    lbr_summary* summary, const lbr_state* state, const lbr_look* look, const lbr_rows* rows,
    size_t first, size_t last, bint whole) noexcept nogil

# Bring a facility from before row `first` to before row `last`; the first row that was looked at.
cdef size_t lbr_advance(
    lbr_state* state, const lbr_look* look, const lbr_rows* rows, size_t first, size_t last,
    bint whole) noexcept nogil

# Cycles and logged events of rows [first, last), as far as the facility counts them.
cdef lbr_counts lbr_between(
    const lbr_state* state, const lbr_rows* rows, size_t first, size_t last) noexcept nogil


cdef inline void lbr_take(
    lbr_entry* entry, const lbr_state* state, const lbr_rows* rows, size_t row,
    const lbr_counts* counts
) noexcept nogil:
    """The record of a row, with the counts since the record before it; NULL leaves them 0."""
    cdef uint64_t cls = lbr_byte(rows, FIELD_CLASS, row) & 15
    cdef uint64_t meta = <uint64_t> lbr_byte(rows, FIELD_FLAGS, row) << 8
    meta |= <uint64_t> lbr_byte(rows, FIELD_CPL_FROM, row) << 16
    entry.from_ = lbr_address(rows, FIELD_FROM, row) | lbr_from_ones(state, meta)
    entry.to = lbr_address(rows, FIELD_TO, row)
    entry.info = ((meta << 53) & LBR_INFO_FLAGS) | (lbr_br_type(cls) << INFO_TYPE_SHIFT)
    entry.info |= cls << INFO_CLASS_SHIFT
    if counts != NULL:
        if state.mode & MODE_TIMED:
            entry.info |= counts.cycles | LBR_INFO_CYC_CNT_VALID
        if state.mode & MODE_EVENTS:
            entry.info |= lbr_info_events(counts.events)
    entry.info &= state.config.info_mask
