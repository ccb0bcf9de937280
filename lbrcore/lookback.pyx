"""From rows of a trace to a summary, looking at no more of them than it takes."""

from libc.stdint cimport int8_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from lbrcore.lbr cimport (
    CYC_CNT_MAX, INFO_TYPE_SHIFT, LBR_CYC_CNT_VALID, LBR_INFO_FLAGS, MODE_CALL_STACK, MODE_EVENTS,
    MODE_TIMED, lbr_add_events, lbr_br_type, lbr_entry, lbr_from_ones, lbr_info_events,
)
from lbrcore.rows cimport (
    FIELD_CLASS, FIELD_CPL_FROM, FIELD_CPL_TO, FIELD_CYCLES, FIELD_EVENTS, FIELD_FLAGS, FIELD_FROM,
    FIELD_TO, lbr_address, lbr_byte, lbr_column, lbr_prefetch_rows, lbr_u32,
)
from lbrcore.scan cimport (
    UNIT_BRANCHES, lbr_find, lbr_last_rows, lbr_mask, lbr_predicate, lbr_scan, lbr_scan_rows,
    lbr_set_table, lbr_total,
)
from lbrcore.summary cimport (
    lbr_counts, lbr_summary_identity, lbr_summary_load_ler, lbr_summary_then,
)

cdef extern from *:
    """
    /* Heights of the stack over a block of 64 rows: where it ends, its highest and lowest
       point, relative to its begin. */
    typedef struct { int8_t net, peak, low; } lbr_height;

    #ifdef LBR_AVX2
    __attribute__((target("avx2")))
    static void lbr_heights_wide(
        const uint8_t *classes, const uint8_t *cpls, const int8_t *delta, const uint8_t *passes,
        size_t blocks, lbr_height *height) {
        const __m128i nibble = _mm_set1_epi8(15), last = _mm_set1_epi8(15);
        const __m128i by_class = _mm_loadu_si128((const __m128i *)delta);
        const __m128i by_cpl = _mm_loadu_si128((const __m128i *)passes);
        for (size_t b = 0; b < blocks; b++) {
            __m128i at = _mm_setzero_si128(), top = at, low = at;
            for (int v = 0; v < 64; v += 16) {
                __m128i x = _mm_loadu_si128((const __m128i *)(classes + 64 * b + v));
                x = _mm_shuffle_epi8(by_class, _mm_and_si128(x, nibble));
                if (cpls) {
                    __m128i c = _mm_loadu_si128((const __m128i *)(cpls + 64 * b + v));
                    x = _mm_and_si128(x, _mm_shuffle_epi8(by_cpl, _mm_and_si128(c, nibble)));
                }
                x = _mm_add_epi8(x, _mm_slli_si128(x, 1));  /* running sums */
                x = _mm_add_epi8(x, _mm_slli_si128(x, 2));
                x = _mm_add_epi8(x, _mm_slli_si128(x, 4));
                x = _mm_add_epi8(x, _mm_slli_si128(x, 8));
                x = _mm_add_epi8(x, at);
                top = _mm_max_epi8(top, x);
                low = _mm_min_epi8(low, x);
                at = _mm_shuffle_epi8(x, last);
            }
            top = _mm_max_epi8(top, _mm_srli_si128(top, 8));
            low = _mm_min_epi8(low, _mm_srli_si128(low, 8));
            top = _mm_max_epi8(top, _mm_srli_si128(top, 4));
            low = _mm_min_epi8(low, _mm_srli_si128(low, 4));
            top = _mm_max_epi8(top, _mm_srli_si128(top, 2));
            low = _mm_min_epi8(low, _mm_srli_si128(low, 2));
            top = _mm_max_epi8(top, _mm_srli_si128(top, 1));
            low = _mm_min_epi8(low, _mm_srli_si128(low, 1));
            height[b].net = (int8_t)_mm_extract_epi8(at, 0);
            height[b].peak = (int8_t)_mm_extract_epi8(top, 0);
            height[b].low = (int8_t)_mm_extract_epi8(low, 0);
        }
    }
    #else
    static void lbr_heights_wide(
        const uint8_t *classes, const uint8_t *cpls, const int8_t *delta, const uint8_t *passes,
        size_t blocks, lbr_height *height) {
        (void)classes, (void)cpls, (void)delta, (void)passes, (void)blocks, (void)height;
    }
    #endif
    """
    ctypedef struct lbr_height:
        int8_t net
        int8_t peak
        int8_t low
    void lbr_heights_wide(
        const uint8_t* classes, const uint8_t* cpls, const int8_t* delta, const uint8_t* passes,
        size_t blocks, lbr_height* height) noexcept nogil
    int __builtin_clzll(unsigned long long value) noexcept nogil

cdef enum:
    BLOCK = 64
    BLOCKS = 1024  # a piece; 3 KiB of heights on the stack

# Which rows push and pop, as tables for `lbr_heights_wide`.
ctypedef struct lbr_stack_rule:
    int8_t delta[16]   # by class: 1 pushes, -1 pops
    uint8_t passes[16] # by CPL at the end of the branch: 0xFF lets it count


# ---------------------------------------------------------------- rows

cdef lbr_predicate _passing(uint64_t table) noexcept nogil:
    """Rows that a truth table of the facility lets pass: classes times target CPLs."""
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
    predicate.unit = UNIT_BRANCHES
    return predicate


cdef lbr_counts _counts(
    const lbr_state* state, const lbr_rows* rows, size_t first, size_t last
) noexcept nogil:
    """Cycles and logged events of rows [first, last)."""
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
        if counts.cycles > CYC_CNT_MAX:
            counts.cycles = CYC_CNT_MAX
    if state.mode & MODE_EVENTS:
        for i in range(first, last):
            events = lbr_u32(rows, FIELD_EVENTS, i)
            counts.events = lbr_add_events(counts.events, events << 32, state.event_mask)
    return counts


cdef inline void _take(
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
    if counts != NULL:
        if state.mode & MODE_TIMED:
            entry.info |= counts.cycles | LBR_CYC_CNT_VALID
        if state.mode & MODE_EVENTS:
            entry.info |= lbr_info_events(counts.events)
    entry.info &= state.config.info_mask


cdef void _take_tail(
    lbr_summary* summary, const lbr_state* state, const lbr_rows* rows, size_t newest, size_t last
) noexcept nogil:
    """Row `newest` made the last record: what has been counted since."""
    summary.ended = summary.cycles_valid = 1
    summary.tail = _counts(state, rows, newest + 1, last)


# ---------------------------------------------------------------- newest records

cdef size_t _newest(
    lbr_summary* summary, const lbr_state* state, const lbr_rows* rows, size_t first, size_t last,
    bint whole
) noexcept nogil:
    """Summary outside call-stack mode; the first row that was looked at."""
    cdef lbr_predicate predicate = _passing(state.accept)
    cdef lbr_counts counts
    cdef lbr_scan scan
    cdef size_t recorded[33]
    cdef size_t found, i
    lbr_summary_identity(summary, state)
    lbr_scan_rows(&scan, rows, &predicate)
    found = lbr_last_rows(&scan, first, last, state.depth + 1, recorded)
    summary.n = <uint32_t> min(found, <size_t> state.depth)
    summary.keep = state.depth - summary.n
    summary.moved = <uint32_t> found
    if found == 0:
        summary.lead = _counts(state, rows, first, last)
        return first
    for i in range(found - 1):
        counts = _counts(state, rows, recorded[i + 1] + 1, recorded[i] + 1)
        _take(&summary.entries[i], state, rows, recorded[i], &counts)
    if found == summary.n:
        _take(&summary.entries[found - 1], state, rows, recorded[found - 1], NULL)
        summary.open = 1
        summary.lead = _counts(state, rows, first, recorded[found - 1] + 1)
    elif whole:
        summary.moved += <uint32_t> lbr_total(&scan, first, recorded[found - 1])
    _take_tail(summary, state, rows, recorded[0], last)
    return recorded[found - 1]


# ---------------------------------------------------------------- call stack

cdef lbr_stack_rule _stack_rule(const lbr_state* state) noexcept nogil:
    cdef lbr_stack_rule rule
    cdef uint64_t push = 0, pop = 0, either = state.accept | state.pop
    cdef int cpl, i
    for cpl in range(4):
        push |= state.accept >> (16 * cpl)
        pop |= state.pop >> (16 * cpl)
    for i in range(16):
        rule.delta[i] = <int8_t> (((push >> i) & 1) - ((pop >> i) & 1))
        rule.passes[i] = 0xFF if (either >> (16 * (i & 3))) & 0xFFFF else 0
    return rule


cdef inline int _delta(
    const lbr_rows* rows, const lbr_stack_rule* rule, size_t i
) noexcept nogil:
    if not rule.passes[lbr_byte(rows, FIELD_CPL_TO, i) & 3]:
        return 0
    return rule.delta[lbr_byte(rows, FIELD_CLASS, i) & 15]


cdef void _heights(
    const lbr_rows* rows, const lbr_stack_rule* rule, bint wide, size_t first, size_t last,
    lbr_height* height
) noexcept nogil:
    """Heights of the blocks of rows [first, last), at most BLOCKS of them."""
    cdef const lbr_column* cls = &rows.column[FIELD_CLASS]
    cdef const lbr_column* cpl = &rows.column[FIELD_CPL_TO]
    cdef const uint8_t* cpls = NULL
    cdef size_t blocks = (last - first) // BLOCK, i, end
    cdef int at, peak, low
    if wide and cls.stride == 1 and cpl.stride <= 1 and not cpl.by_address:
        if cpl.stride:
            cpls = <const uint8_t*> cpl.data + first
        elif not rule.passes[(<const uint8_t*> cpl.data)[0] & 3]:
            blocks = 0
        lbr_heights_wide(<const uint8_t*> cls.data + first, cpls, rule.delta, rule.passes,
                         blocks, height)
        height += blocks
        first += blocks * BLOCK
    while first < last:
        at = peak = low = 0
        end = min(first + BLOCK, last)
        for i in range(first, end):
            at += _delta(rows, rule, i)
            peak = max(peak, at)
            low = min(low, at)
        height.net, height.peak, height.low = <int8_t> at, <int8_t> peak, <int8_t> low
        height += 1
        first = end


cdef void _open_calls(
    lbr_summary* summary, const lbr_scan* pushes, const lbr_scan* pops, const lbr_height* height,
    size_t first, size_t last, size_t* calls
) noexcept nogil:
    """Rows, newest first, whose records are still there at `last`; pops and keep.

    A record is lost once `depth` others have lain above it, and then so are all below it.
    """
    cdef uint64_t returns = 0, peak = 0   # unmatched RETs, highest stack: of the rows behind
    cdef uint64_t low, up, push, either
    cdef size_t block = (last - first + BLOCK - 1) // BLOCK, start, rows
    cdef int bit
    summary.keep = 0
    while block > 0:
        block -= 1
        low = <uint64_t> -height[block].low
        up = <uint64_t> (height[block].net - height[block].low)
        if returns >= up:
            returns += low - up
            peak = <uint64_t> max(<int64_t> height[block].peak,
                                  <int64_t> peak + height[block].net)
            continue
        start = first + block * BLOCK
        rows = min(last - start, <size_t> BLOCK)
        push = lbr_mask(pushes, start, rows)
        either = push | lbr_mask(pops, start, rows)
        while either:
            bit = 63 - __builtin_clzll(either)
            either ^= <uint64_t> 1 << bit
            if not (push >> bit) & 1:
                returns += 1
                peak -= peak > 0
                continue
            if returns:
                returns -= 1
            elif peak >= summary.depth:
                return
            else:
                calls[summary.n] = start + <size_t> bit
                summary.n += 1
                if summary.n == summary.depth:
                    return
            peak += 1
    if returns + peak < summary.depth:
        summary.pops = <uint32_t> returns
        summary.keep = <uint32_t> (summary.depth - peak - returns)


cdef void _call_stack(
    lbr_summary* summary, const lbr_state* state, const lbr_rows* rows, size_t first, size_t last
) noexcept nogil:
    """Summary of at most BLOCK * BLOCKS rows in call-stack mode."""
    cdef lbr_predicate predicate = _passing(state.accept)
    cdef lbr_stack_rule rule = _stack_rule(state)
    cdef lbr_height height[BLOCKS]
    cdef lbr_counts counts
    cdef lbr_scan pushes, pops
    cdef size_t calls[32]
    cdef size_t before[1]
    cdef size_t i
    cdef bint known = True
    lbr_summary_identity(summary, state)
    lbr_scan_rows(&pushes, rows, &predicate)
    predicate = _passing(state.pop)
    lbr_scan_rows(&pops, rows, &predicate)
    _heights(rows, &rule, pushes.wide, first, last, height)
    _open_calls(summary, &pushes, &pops, height, first, last, calls)
    for i in range((last - first + BLOCK - 1) // BLOCK):
        summary.moved += <uint32_t> height[i].net
    for i in range(summary.n):
        lbr_prefetch_rows(rows, calls[i], calls[i] + 1)
    for i in range(summary.n):
        # Counts run since the record before, whether or not it is still there.
        known = lbr_last_rows(&pushes, first, calls[i], 1, before) == 1
        if known:
            counts = _counts(state, rows, before[0] + 1, calls[i] + 1)
            _take(&summary.entries[i], state, rows, calls[i], &counts)
        else:
            _take(&summary.entries[i], state, rows, calls[i], NULL)
    if not known:
        summary.open = 1
        summary.lead = _counts(state, rows, first, calls[summary.n - 1] + 1)
    if lbr_last_rows(&pushes, first, last, 1, before):
        _take_tail(summary, state, rows, before[0], last)
    else:
        summary.lead = _counts(state, rows, first, last)


# ---------------------------------------------------------------- together

cdef size_t _recorded(
    lbr_summary* summary, const lbr_state* state, const lbr_rows* rows, size_t first, size_t last,
    bint whole
) noexcept nogil:
    """Everything but LER."""
    cdef lbr_summary piece
    cdef size_t end
    if not state.mode & MODE_CALL_STACK:
        return _newest(summary, state, rows, first, last, whole)
    end = min(first + BLOCK * BLOCKS, last)
    _call_stack(summary, state, rows, first, end)
    while end < last:
        first = end
        end = min(first + BLOCK * BLOCKS, last)
        _call_stack(&piece, state, rows, first, end)
        lbr_summary_then(summary, &piece)
    return last


cdef size_t lbr_summarize(
    lbr_summary* summary, const lbr_state* state, const lbr_rows* rows, size_t first, size_t last,
    bint whole
) noexcept nogil:
    cdef lbr_predicate predicate
    cdef lbr_summary piece
    cdef lbr_scan scan
    cdef int64_t need
    cdef size_t row
    if not whole or not state.ler_classes:
        return _recorded(summary, state, rows, first, last, whole)
    predicate = _passing(state.ler_classes * <uint64_t> 0x0001000100010001)
    lbr_scan_rows(&scan, rows, &predicate)
    lbr_summary_identity(summary, state)
    while True:
        need = 1
        row = lbr_find(&scan, first, last, &need)
        _recorded(&piece, state, rows, first, row, True)
        lbr_summary_then(summary, &piece)
        if need > 0:
            return last
        lbr_summary_load_ler(&piece, state)
        lbr_summary_then(summary, &piece)
        # The branch itself comes after the load; the next search starts behind it.
        _recorded(&piece, state, rows, row, row + 1, True)
        lbr_summary_then(summary, &piece)
        first = row + 1
