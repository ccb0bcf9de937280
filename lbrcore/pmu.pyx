"""Counting what a branch stream carries, and stopping at the branch that matters.

Independent of events and registers: a counter is a truth table over class and privilege level,
flags that must be set, a unit, and a width.  Branches are counted in blocks; the block in which a
counter overflows is halved until few branches are left, which are gone through one by one.

The first counter's pass is also the one that checks the range of the branches, so that memory is
read once; it is memory that bounds both.  Where vector instructions are missing, and for the last
few branches of a block, a plain loop does the same.
"""

cimport cython
from cpython.buffer cimport Py_buffer, PyBuffer_Release
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from lbrcore.batch cimport lbr_record_seen
from lbrcore.buffers cimport BRANCH_FORMAT, acquire, unsigned
from lbrcore.lbr cimport (
    LBR_META_INVALID, LBR_UNIT_BRANCHES, LBR_UNIT_CYCLES, LBR_UNIT_INSTRUCTIONS, LbrState,
    lbr_branch, lbr_meta, lbr_state,
)

from operator import index as as_index

cdef enum:
    MAX_COUNTERS = 16
    MAX_WIDTH = 62       # leaves room for what a block adds
    FIRST_FIXED = 32     # the first fixed counter among the bits of the global registers
    FEW_BRANCHES = 16    # gone through one by one where a limit lies among them

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>
    #include "lbrcore.h"
    #if defined(__x86_64__) && defined(__GNUC__)
    #include <immintrin.h>
    #define LBR_AVX2 1
    #endif

    #define BLOCK_BRANCHES 256

    typedef struct {
        uint64_t table;  /* bit: class | cpl_from << 4 */
        uint64_t limit;  /* the count at which to stop */
        uint64_t total;
        uint64_t need;   /* flags that must be set */
        int unit;
    } lbr_selector;

    static inline int lbr_count_wide(void) {
    #ifdef LBR_AVX2
        return __builtin_cpu_supports("avx2") != 0;
    #else
        return 0;
    #endif
    }

    #ifdef LBR_AVX2
    __attribute__((target("avx2"), always_inline))
    static inline __m256i lbr_two_halves(const lbr_branch *branch) {
        /* cycles, instructions and small fields of two branches */
        __m128i first = _mm_loadu_si128((const __m128i *)&branch[0].cycles);
        return _mm256_inserti128_si256(_mm256_castsi128_si256(first),
                                       _mm_loadu_si128((const __m128i *)&branch[1].cycles), 1);
    }

    /* Four branches at a time, a lane of 64 bits each; `count` is a multiple of 4. */
    __attribute__((target("avx2"), always_inline))
    static inline uint64_t lbr_sum_lanes(
        const lbr_selector *s, const lbr_branch *branches, size_t count, uint64_t *seen,
        const int unit, const int flags, const int every) {
        const __m256i zero = _mm256_setzero_si256(), one = _mm256_set1_epi64x(1);
        const __m256i table = _mm256_set1_epi64x((long long)s->table);
        const __m256i need = _mm256_set1_epi64x((long long)s->need << 8);
        __m256i total = zero, bits = zero;
        uint64_t part[4];
        for (size_t i = 0; i < count; i += 4) {
            /* The next block; past the end of the array it does no harm. */
            _mm_prefetch((const char *)&branches[i + BLOCK_BRANCHES], _MM_HINT_T0);
            _mm_prefetch((const char *)&branches[i + BLOCK_BRANCHES + 2], _MM_HINT_T0);
            __m256i a = lbr_two_halves(branches + i), b = lbr_two_halves(branches + i + 2);
            __m256i meta = _mm256_unpackhi_epi64(a, b), hit = one;
            bits = _mm256_or_si256(bits, meta);
            if (!every) {
                __m256i place = _mm256_or_si256(
                    _mm256_and_si256(meta, _mm256_set1_epi64x(15)),
                    _mm256_and_si256(_mm256_srli_epi64(meta, 12), _mm256_set1_epi64x(0x30)));
                hit = _mm256_and_si256(_mm256_srlv_epi64(table, place), one);
            }
            if (flags)
                hit = _mm256_and_si256(
                    hit, _mm256_cmpeq_epi64(_mm256_and_si256(meta, need), need));
            if (unit) {
                __m256i amount = _mm256_unpacklo_epi64(a, b);
                amount = unit == LBR_UNIT_INSTRUCTIONS ? _mm256_srli_epi64(amount, 32)
                                     : _mm256_and_si256(amount, _mm256_set1_epi64x(0xFFFFFFFF));
                hit = _mm256_and_si256(amount, _mm256_sub_epi64(zero, hit));
            }
            total = _mm256_add_epi64(total, hit);
        }
        memcpy(part, &bits, 32);
        *seen |= part[0] | part[1] | part[2] | part[3];
        memcpy(part, &total, 32);
        return part[0] + part[1] + part[2] + part[3];
    }

    __attribute__((target("avx2")))
    static uint64_t lbr_sum_wide(
        const lbr_selector *s, const lbr_branch *branches, size_t count, uint64_t *seen) {
        /* Constants make gcc build a loop for each case. */
        if (s->unit == LBR_UNIT_BRANCHES) {
            if (s->need) return lbr_sum_lanes(s, branches, count, seen, 0, 1, 0);
            return lbr_sum_lanes(s, branches, count, seen, 0, 0, 0);
        }
        if (s->need) return lbr_sum_lanes(s, branches, count, seen, s->unit, 1, 0);
        if (~s->table) return lbr_sum_lanes(s, branches, count, seen, s->unit, 0, 0);
        if (s->unit == LBR_UNIT_INSTRUCTIONS)
            return lbr_sum_lanes(s, branches, count, seen, LBR_UNIT_INSTRUCTIONS, 0, 1);
        return lbr_sum_lanes(s, branches, count, seen, LBR_UNIT_CYCLES, 0, 1);
    }
    #else
    static uint64_t lbr_sum_wide(
        const lbr_selector *s, const lbr_branch *branches, size_t count, uint64_t *seen) {
        (void)s, (void)branches, (void)count, (void)seen;
        return 0;
    }
    #endif
    """
    ctypedef struct selector "lbr_selector":
        uint64_t table
        uint64_t limit
        uint64_t total
        uint64_t need
        int unit

    const size_t BLOCK_BRANCHES
    bint lbr_count_wide() noexcept nogil
    uint64_t lbr_sum_wide(const selector* s, const lbr_branch* branches, size_t count,
                          uint64_t* seen) noexcept nogil


cdef inline uint64_t _amount(const selector* s, const lbr_branch* branch) noexcept nogil:
    """What one branch adds to one counter."""
    cdef uint64_t meta = lbr_meta(branch)
    cdef uint64_t hit = (s.table >> ((meta & 15) | ((meta >> 12) & 0x30))) & 1
    hit &= <uint64_t> ((meta >> 8 & s.need) == s.need)
    if s.unit == LBR_UNIT_BRANCHES:
        return hit
    return (branch.instructions if s.unit == LBR_UNIT_INSTRUCTIONS else branch.cycles) & -hit


cdef uint64_t _sum(
    const selector* s, const lbr_branch* branches, size_t n, uint64_t* seen, bint wide
) noexcept nogil:
    """What `n` branches add to one counter; `seen` gathers all bits of their small fields."""
    cdef uint64_t total = 0
    cdef size_t i, lanes = n & ~<size_t> 3 if wide else 0
    if lanes:
        total = lbr_sum_wide(s, branches, lanes, seen)
    for i in range(lanes, n):
        seen[0] |= lbr_meta(&branches[i])
        total += _amount(s, &branches[i])
    return total


cdef size_t _until(
    selector* selectors, int counters, const lbr_branch* branches, size_t n
) noexcept nogil:
    """Add branches to the totals up to and with the first that brings one to its limit."""
    cdef size_t i
    cdef int c
    cdef bint reached = False
    for i in range(n):
        for c in range(counters):
            selectors[c].total += _amount(&selectors[c], &branches[i])
            reached |= selectors[c].total >= selectors[c].limit
        if reached:
            return i + 1
    return n


cdef bint _add_block(
    selector* selectors, int counters, const lbr_branch* branches, size_t n, uint64_t* seen,
    bint wide
) noexcept nogil:
    """Add a whole block, or nothing and False if a limit lies within it."""
    cdef uint64_t[MAX_COUNTERS] sums
    cdef int c
    for c in range(counters):
        sums[c] = _sum(&selectors[c], branches, n, seen, wide)
        if selectors[c].total + sums[c] >= selectors[c].limit:
            return False
    for c in range(counters):
        selectors[c].total += sums[c]
    return True


cdef int64_t _run(
    lbr_state* state, const lbr_branch* branches, size_t count, selector* selectors, int counters
) noexcept nogil:
    """Branches taken, or -1 if one of those looked at is out of range; then nothing happened."""
    cdef size_t at = 0, n, half
    cdef uint64_t seen = 0
    cdef bint wide = lbr_count_wide()
    while at < count:
        n = min(count - at, <size_t> BLOCK_BRANCHES)
        if not _add_block(selectors, counters, &branches[at], n, &seen, wide):
            while n > FEW_BRANCHES:
                half = n // 2
                if _add_block(selectors, counters, &branches[at], half, &seen, wide):
                    at += half
                    n -= half
                else:
                    n = half
            at += _until(selectors, counters, &branches[at], n)
            break
        at += n
    if seen & LBR_META_INVALID:
        return -1
    if state != NULL:
        lbr_record_seen(state, branches, at, seen)
    return <int64_t> at


@cython.boundscheck(True)
cdef uint64_t _value(int place, list general, list fixed) except? 0xFFFFFFFFFFFFFFFF:
    # operator.index because a conversion to C would cut a float.
    value = (general if place < FIRST_FIXED else fixed)[place & (FIRST_FIXED - 1)]
    return value if type(value) is int else as_index(value)


@cython.final
cdef class Bank:
    """Bank(places, selectors, widths)\n--\n
    Counters that count at once; it never changes, the counters' values are the caller's.

    Parameters
    ----------
    places : sequence of int, 1 to 16
        The counters' bits in the global registers: 0 up are general, 32 up fixed ones.
    selectors : sequence of (table, need, unit)
        What each counts.  ``table`` has bit ``class | (cpl_from > 0) << 4`` set for what counts;
        ``need`` are flags that must all be set; ``unit`` is a `lbrcore.events.Unit`.
    widths : sequence of int
        Bits of each counter, 1 to 62.

    Raises
    ------
    TypeError, ValueError, OverflowError
        An argument is of another type, length or range.
    """
    cdef selector[MAX_COUNTERS] _selectors
    cdef uint64_t[MAX_COUNTERS] _masks
    cdef int[MAX_COUNTERS] _places
    cdef int _counters

    def __cinit__(self, places not None, selectors not None, widths not None):
        cdef int c
        cdef uint64_t both, user
        if not 1 <= len(places) <= MAX_COUNTERS or not (
                len(places) == len(selectors) == len(widths)):
            raise ValueError(f"places: {len(places)} with {len(selectors)} selectors and "
                             f"{len(widths)} widths; must be as many, 1 to {MAX_COUNTERS}")
        for c in range(<int> len(places)):
            table, need, unit = selectors[c]
            both = unsigned(table, "table", 0xFFFFFFFF)
            user = both >> 16
            self._selectors[c].table = both | user << 32 | user << 48
            self._selectors[c].need = unsigned(need, "need", 7)
            self._selectors[c].unit = <int> unsigned(unit, "unit", LBR_UNIT_CYCLES)
            self._places[c] = <int> unsigned(places[c], "places", 63)
            self._masks[c] = (
                <uint64_t> 1 << unsigned(widths[c], "widths", MAX_WIDTH)) - <uint64_t> 1
            if not self._masks[c]:
                raise ValueError("widths: must be above 0")
        self._counters = <int> len(places)

    cdef int _load(self, selector* selectors, list general, list fixed) except -1:
        """Selectors with the limits that follow from the counters' values."""
        cdef uint64_t value
        cdef int c
        for c in range(self._counters):
            value = _value(self._places[c], general, fixed)
            if value > self._masks[c]:
                raise OverflowError(f"counter {self._places[c]}: must be 0 to "
                                    f"{self._masks[c]:#x}, not {value:#x}")
            selectors[c] = self._selectors[c]
            selectors[c].total = value
            selectors[c].limit = self._masks[c] + 1
        return 0

    @cython.boundscheck(True)
    cdef uint64_t _store(
        self, const selector* selectors, list general, list fixed
    ) except? 0xFFFFFFFFFFFFFFFF:
        """The counters' new values; a bit for each that overflowed."""
        cdef uint64_t overflowed = 0
        cdef int c, place
        for c in range(self._counters):
            place = self._places[c]
            (general if place < FIRST_FIXED else fixed)[place & (FIRST_FIXED - 1)] = (
                selectors[c].total & self._masks[c])
            if selectors[c].total > self._masks[c]:
                overflowed |= <uint64_t> 1 << place
        return overflowed

    def count(self, branches not None, list general not None, list fixed not None,
              Py_ssize_t start=0, stop=None, LbrState state=None):
        """Count branches until a counter overflows.

        Parameters
        ----------
        branches : buffer of BRANCH_DTYPE, shape (n,), C-contiguous, oldest first
        general, fixed : list of int
            The counters' values, which change.
        start, stop : int
            Branches to look at; `stop` is n if left out.
        state : LbrState, optional
            Records the branches that are taken.

        Returns
        -------
        stop : int
            One past the first branch at which some counter overflowed, or `stop`.
        overflowed : int
            Their bits.

        Raises
        ------
        TypeError, ValueError
            As `LbrState.record`, for the branches looked at: those up to the end of the block in
            which a counter overflows.  Nothing is counted or recorded then.
        OverflowError
            A counter holds more than its width.
        """
        cdef selector[MAX_COUNTERS] selectors
        cdef Py_buffer view
        cdef int64_t taken
        cdef Py_ssize_t end
        cdef lbr_state* target = NULL if state is None else state.state
        self._load(selectors, general, fixed)
        acquire(branches, &view, "branches", BRANCH_FORMAT, sizeof(lbr_branch),
                "lbrcore.BRANCH_DTYPE", False)
        try:
            end = view.shape[0] if stop is None else stop
            if not 0 <= start <= end <= view.shape[0]:
                raise ValueError(f"start, stop: {start}, {end} of {view.shape[0]} branches")
            with nogil:
                taken = _run(target, <const lbr_branch*> view.buf + start,
                             <size_t> (end - start), selectors, self._counters)
            if taken < 0:
                raise ValueError("branches: a class, flag or CPL is out of range")
        finally:
            PyBuffer_Release(&view)
        return start + taken, self._store(selectors, general, fixed)

    def add(self, list general not None, list fixed not None, uint8_t cls, uint8_t cpl,
            uint8_t flags, bint branch, uint32_t instructions, uint32_t cycles):
        """Count one branch, or if not `branch` only the instructions and cycles that pass.

        Returns
        -------
        int
            The bits of the counters that overflowed.
        """
        cdef selector[MAX_COUNTERS] selectors
        cdef lbr_branch one
        cdef int c
        memset(&one, 0, sizeof(one))
        one.cls, one.cpl_from, one.flags = cls, cpl, flags
        one.instructions, one.cycles = instructions, cycles
        if cls > 15 or cpl > 3 or flags > 7:
            raise ValueError("a class, flag or CPL is out of range")
        self._load(selectors, general, fixed)
        for c in range(self._counters):
            if branch or selectors[c].unit != LBR_UNIT_BRANCHES:
                selectors[c].total += _amount(&selectors[c], &one)
        return self._store(selectors, general, fixed)
