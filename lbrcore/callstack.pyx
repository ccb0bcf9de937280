"""Call-stack mode: which calls of a stretch of rows are still open, by blocks of heights."""

from libc.stdint cimport int8_t, int64_t, uint8_t, uint32_t, uint64_t

from lbrcore.lookback cimport lbr_between, lbr_look, lbr_take
from lbrcore.rows cimport FIELD_CLASS, FIELD_CPL_TO, lbr_byte, lbr_column, lbr_prefetch_rows
from lbrcore.scan cimport lbr_last_rows, lbr_mask
from lbrcore.summary cimport lbr_counts, lbr_summary_identity, lbr_summary_then

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


cdef inline int _delta(
    const lbr_rows* rows, const lbr_look* look, size_t i
) noexcept nogil:
    if not look.passes[lbr_byte(rows, FIELD_CPL_TO, i) & 3]:
        return 0
    return look.delta[lbr_byte(rows, FIELD_CLASS, i) & 15]


cdef void _heights(
    const lbr_rows* rows, const lbr_look* look, size_t first, size_t last, lbr_height* height
) noexcept nogil:
    """Heights of the blocks of rows [first, last), at most BLOCKS of them."""
    cdef const lbr_column* cls = &rows.column[FIELD_CLASS]
    cdef const lbr_column* cpl = &rows.column[FIELD_CPL_TO]
    cdef const uint8_t* cpls = NULL
    cdef size_t blocks = (last - first) // BLOCK, i, end
    cdef int at, peak, low
    if look.pushes.wide and cls.stride == 1 and cpl.stride <= 1 and not cpl.by_address:
        if cpl.stride:
            cpls = <const uint8_t*> cpl.data + first
        elif not look.passes[(<const uint8_t*> cpl.data)[0] & 3]:
            blocks = 0
        lbr_heights_wide(<const uint8_t*> cls.data + first, cpls, look.delta, look.passes,
                         blocks, height)
        height += blocks
        first += blocks * BLOCK
    while first < last:
        at = peak = low = 0
        end = min(first + BLOCK, last)
        for i in range(first, end):
            at += _delta(rows, look, i)
            peak = max(peak, at)
            low = min(low, at)
        height.net, height.peak, height.low = <int8_t> at, <int8_t> peak, <int8_t> low
        height += 1
        first = end


cdef void _open_calls(
    lbr_summary* summary, const lbr_look* look, const lbr_height* height, size_t first, size_t last,
    size_t* calls
) noexcept nogil:
    """Rows, newest first, whose records are still there at `last`; pops and keep.

    A record is lost once `depth` others have lain above it, and then so are all below it.
    """
    cdef uint64_t returns = 0, peak = 0   # unmatched RETs, highest stack: of the later rows
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
        push = lbr_mask(&look.pushes, start, rows)
        either = push | lbr_mask(&look.pops, start, rows)
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


cdef void _piece(
    lbr_summary* summary, const lbr_state* state, const lbr_look* look, const lbr_rows* rows,
    size_t first, size_t last
) noexcept nogil:
    """Summary of at most BLOCK * BLOCKS rows."""
    cdef lbr_height height[BLOCKS]
    cdef lbr_counts counts
    cdef size_t calls[32]
    cdef size_t before[1]
    cdef size_t i
    cdef bint known = True
    lbr_summary_identity(summary, state)
    _heights(rows, look, first, last, height)
    _open_calls(summary, look, height, first, last, calls)
    for i in range((last - first + BLOCK - 1) // BLOCK):
        summary.moved += <uint32_t> height[i].net
    for i in range(summary.n):
        lbr_prefetch_rows(rows, calls[i], calls[i] + 1)
    for i in range(summary.n):
        # Counts run since the record before, whether or not it is still there.
        known = lbr_last_rows(&look.pushes, first, calls[i], 1, before) == 1
        if known:
            counts = lbr_between(state, rows, before[0] + 1, calls[i] + 1)
            lbr_take(&summary.entries[i], state, rows, calls[i], &counts)
        else:
            lbr_take(&summary.entries[i], state, rows, calls[i], NULL)
    if not known:
        summary.open = 1
        summary.lead = lbr_between(state, rows, first, calls[summary.n - 1] + 1)
    if lbr_last_rows(&look.pushes, first, last, 1, before):
        summary.ended = summary.cycles_valid = 1
        summary.tail = lbr_between(state, rows, before[0] + 1, last)
    else:
        summary.lead = lbr_between(state, rows, first, last)


cdef void lbr_summarize_stack(
    lbr_summary* summary, const lbr_state* state, const lbr_look* look, const lbr_rows* rows,
    size_t first, size_t last
) noexcept nogil:
    cdef lbr_summary piece
    cdef size_t end = min(first + BLOCK * BLOCKS, last)
    _piece(summary, state, look, rows, first, end)
    while end < last:
        first = end
        end = min(first + BLOCK * BLOCKS, last)
        _piece(&piece, state, look, rows, first, end)
        lbr_summary_then(summary, &piece)
