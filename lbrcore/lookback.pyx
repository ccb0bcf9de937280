"""From rows of a trace to what they leave in a facility, with as few looks as it takes."""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy, memset

from lbrcore.callstack cimport lbr_summarize_stack
from lbrcore.lbr cimport (
    CYC_CNT_MAX, LBR_UNIT_BRANCHES, MODE_CALL_STACK, lbr_add_events, lbr_find_quick, lbr_slot,
)
from lbrcore.rows cimport FIELD_CPL_TO, FIELD_CYCLES, FIELD_EVENTS, lbr_column, lbr_u32
from lbrcore.scan cimport (
    lbr_find, lbr_last_rows, lbr_predicate, lbr_scan_rows, lbr_set_table, lbr_total,
)
from lbrcore.summary cimport (
    lbr_summary_apply, lbr_summary_identity, lbr_summary_load_ler,
    lbr_summary_then,
)

cdef enum:
    FOUND = 33     # depth + 1 records
    SUMMED = 512   # rows whose running sums are kept


# ---------------------------------------------------------------- tables

cdef void _bind(
    lbr_scan* scan, const lbr_rows* rows, uint64_t table
) noexcept nogil:
    """Rows that a truth table lets pass, which is a set of classes times one of target CPLs."""
    cdef lbr_predicate predicate
    cdef uint64_t classes = 0, levels = 0, passing
    cdef int cpl
    for cpl in range(4):
        passing = (table >> (16 * cpl)) & 0xFFFF
        classes |= passing
        if passing:
            levels |= <uint64_t> 1 << cpl
    lbr_set_table(predicate.classes, classes)
    lbr_set_table(predicate.flags, 0xFF)
    lbr_set_table(predicate.cpls, levels)
    predicate.cpl_field = FIELD_CPL_TO
    predicate.unit = LBR_UNIT_BRANCHES
    lbr_scan_rows(scan, rows, &predicate)


cdef void lbr_look_at(lbr_look* look, const lbr_state* state, const lbr_rows* rows) noexcept nogil:
    cdef uint64_t push = 0, pop = 0, either = state.accept | state.pop
    cdef int cpl, i
    _bind(&look.pushes, rows, state.accept)
    _bind(&look.pops, rows, state.pop)
    _bind(&look.loads, rows, state.ler_classes * <uint64_t> 0x0001000100010001)
    for cpl in range(4):
        push |= state.accept >> (16 * cpl)
        pop |= state.pop >> (16 * cpl)
    for i in range(16):
        look.delta[i] = <int8_t> (((push >> i) & 1) - ((pop >> i) & 1))
        look.passes[i] = 0xFF if (either >> (16 * (i & 3))) & 0xFFFF else 0


# ---------------------------------------------------------------- counts

cdef lbr_counts lbr_between(
    const lbr_state* state, const lbr_rows* rows, size_t first, size_t last
) noexcept nogil:
    cdef const lbr_column* column = &rows.column[FIELD_CYCLES]
    cdef lbr_counts counts
    cdef uint64_t events
    cdef size_t i
    memset(&counts, 0, sizeof(counts))
    if state.mode & MODE_TIMED:
        if column.stride == 0:
            counts.cycles = min(last - first, <size_t> CYC_CNT_MAX) * lbr_u32(rows, FIELD_CYCLES, 0)
        else:
            for i in range(first, last):
                counts.cycles += lbr_u32(rows, FIELD_CYCLES, i)
        counts.cycles = min(counts.cycles, <uint64_t> CYC_CNT_MAX)
    if state.mode & MODE_EVENTS:
        for i in range(first, last):
            events = lbr_u32(rows, FIELD_EVENTS, i)
            counts.events = lbr_add_events(counts.events, events << 32, state.event_mask)
    return counts


cdef void _between_all(
    const lbr_state* state, const lbr_rows* rows, const size_t* recorded, size_t found,
    lbr_counts* counts
) noexcept nogil:
    """counts[i]: from after row recorded[i + 1] to row recorded[i], for all but the last."""
    cdef const lbr_column* column = &rows.column[FIELD_CYCLES]
    cdef uint64_t sums[SUMMED]
    cdef uint64_t sum = 0
    cdef size_t base = recorded[found - 1], n = recorded[0] + 1 - base, i
    if n > SUMMED or state.mode & MODE_EVENTS or not state.mode & MODE_TIMED or not column.stride:
        for i in range(found - 1):
            counts[i] = lbr_between(state, rows, recorded[i + 1] + 1, recorded[i] + 1)
        return
    # Running sums over short and irregular gaps cost no mispredicted loop ends.
    for i in range(n):
        sum += lbr_u32(rows, FIELD_CYCLES, base + i)
        sums[i] = sum
    for i in range(found - 1):
        counts[i].events = 0
        counts[i].cycles = min(
            sums[recorded[i] - base] - sums[recorded[i + 1] - base], <uint64_t> CYC_CNT_MAX)


# ---------------------------------------------------------------- newest records

cdef void _summarize_newest(
    lbr_summary* summary, const lbr_state* state, const lbr_look* look, const lbr_rows* rows,
    size_t first, size_t last, bint whole
) noexcept nogil:
    """Summary outside call-stack mode, but for LER."""
    cdef lbr_counts counts[FOUND]
    cdef size_t recorded[FOUND]
    cdef size_t found = lbr_last_rows(&look.pushes, first, last, state.depth + 1, recorded), i
    lbr_summary_identity(summary, state)
    summary.n = <uint32_t> min(found, <size_t> state.depth)
    summary.keep = state.depth - summary.n
    summary.moved = <uint32_t> found
    if found == 0:
        summary.lead = lbr_between(state, rows, first, last)
        return
    _between_all(state, rows, recorded, found, counts)
    for i in range(found - 1):
        lbr_take(&summary.entries[i], state, rows, recorded[i], &counts[i])
    if found == summary.n:
        lbr_take(&summary.entries[found - 1], state, rows, recorded[found - 1], NULL)
        summary.open = 1
        summary.lead = lbr_between(state, rows, first, recorded[found - 1] + 1)
    elif whole:
        summary.moved += <uint32_t> lbr_total(&look.pushes, first, recorded[found - 1])
    summary.ended = summary.cycles_valid = 1
    summary.tail = lbr_between(state, rows, recorded[0] + 1, last)


cdef size_t _advance_newest(
    lbr_state* state, const lbr_look* look, const lbr_rows* rows, size_t first, size_t last
) noexcept nogil:
    """The same straight into the ring, if the records do not reach back before `first`; or 0
    rows looked at."""
    cdef lbr_counts counts[FOUND]
    cdef size_t recorded[FOUND]
    cdef lbr_counts tail
    cdef size_t i
    if lbr_last_rows(&look.pushes, first, last, state.depth + 1, recorded) <= state.depth:
        return 0
    _between_all(state, rows, recorded, state.depth + 1, counts)
    state.head += state.depth
    for i in range(state.depth):
        lbr_take(lbr_slot(state, state.head - <uint32_t> i), state, rows, recorded[i], &counts[i])
    tail = lbr_between(state, rows, recorded[0] + 1, last)
    if state.mode & MODE_TIMED:
        state.cycles = tail.cycles
        state.cycles_valid = 1
        lbr_find_quick(state)
    if state.mode & MODE_EVENTS:
        memcpy(&state.events[0], &tail.events, 4)
    return last - recorded[state.depth]


# ---------------------------------------------------------------- together

cdef void _summarize(
    lbr_summary* summary, const lbr_state* state, const lbr_look* look, const lbr_rows* rows,
    size_t first, size_t last, bint whole
) noexcept nogil:
    """Everything but LER."""
    if state.mode & MODE_CALL_STACK:
        lbr_summarize_stack(summary, state, look, rows, first, last)
    else:
        _summarize_newest(summary, state, look, rows, first, last, whole)


cdef void lbr_summarize(
    lbr_summary* summary, const lbr_state* state, const lbr_look* look, const lbr_rows* rows,
    size_t first, size_t last, bint whole
) noexcept nogil:
    cdef lbr_summary piece
    cdef int64_t need
    cdef size_t row
    if not whole:
        _summarize(summary, state, look, rows, first, last, False)
        return
    lbr_summary_identity(summary, state)
    while True:
        need = 1
        row = lbr_find(&look.loads, first, last, &need)
        _summarize(&piece, state, look, rows, first, row, True)
        lbr_summary_then(summary, &piece)
        if need > 0:
            return
        lbr_summary_load_ler(&piece, state)
        lbr_summary_then(summary, &piece)
        # The branch itself comes after the load; the next search starts after it.
        _summarize(&piece, state, look, rows, row, row + 1, True)
        lbr_summary_then(summary, &piece)
        first = row + 1


cdef size_t lbr_advance(
    lbr_state* state, const lbr_look* look, const lbr_rows* rows, size_t first, size_t last,
    bint whole
) noexcept nogil:
    cdef lbr_summary summary
    cdef size_t looked
    if not whole and not state.mode & MODE_CALL_STACK:
        looked = _advance_newest(state, look, rows, first, last)
        if looked:
            return last - looked
    lbr_summarize(&summary, state, look, rows, first, last, whole)
    lbr_summary_apply(&summary, state)
    return first
