"""Counting and finding rows of a trace by their small fields, a byte or less a row.

    cdef lbr_scan scan
    lbr_scan_rows(&scan, &rows, &predicate)
    found = lbr_find(&scan, first, last, &need)

Nothing here allocates, raises or touches a Python object.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from lbrcore.rows cimport lbr_rows

# Which rows count, and how much.  A row counts if all three tables hold 0xFF.
ctypedef struct lbr_predicate:
    uint8_t classes[16]
    uint8_t flags[16]
    uint8_t cpls[16]
    uint8_t cpl_field     # FIELD_CPL_FROM or FIELD_CPL_TO
    uint8_t unit          # enum lbr_unit: each row counts 1, its instructions, or its cycles

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>
    #if defined(__x86_64__) && defined(__GNUC__)
    #include <immintrin.h>
    #define LBR_AVX2 1
    #endif

    /* A predicate bound to rows: only the columns that can make a difference. */
    typedef struct {
        const uint8_t *data[3];
        size_t stride[3];
        uint8_t by_address[3];
        uint8_t table[3][16];
        const char *weight;      /* column of uint32 that rows count by; NULL: each counts 1 */
        size_t weight_stride;
        uint8_t columns;
        uint8_t never;           /* no row can match */
        uint8_t contiguous;      /* every column has stride 1 */
        uint8_t wide;            /* vector instructions may be used */
    } lbr_scan;
    """
    ctypedef struct lbr_scan:
        const uint8_t* data[3]
        size_t stride[3]
        uint8_t by_address[3]
        uint8_t table[3][16]
        const char* weight
        size_t weight_stride
        uint8_t columns
        uint8_t never
        uint8_t contiguous
        uint8_t wide

cdef void lbr_scan_rows(
    lbr_scan* scan, const lbr_rows* rows, const lbr_predicate* predicate) noexcept nogil

# What the rows [first, last) count.
cdef uint64_t lbr_total(const lbr_scan* scan, size_t first, size_t last) noexcept nogil

# The row at which the count reaches `need`, which becomes <= 0; or `last`, with `need` reduced by
# what [first, last) counts.
cdef size_t lbr_find(
    const lbr_scan* scan, size_t first, size_t last, int64_t* need) noexcept nogil

# Which of the rows [first, first + count) match, one bit per row; at most 64.
cdef uint64_t lbr_mask(const lbr_scan* scan, size_t first, size_t count) noexcept nogil

# The last `wanted` rows of [first, last) that match, newest first; how many there are.
cdef size_t lbr_last_rows(
    const lbr_scan* scan, size_t first, size_t last, size_t wanted, size_t* rows) noexcept nogil

# Table of 16 bytes from a set, a bit a member.
cdef void lbr_set_table(uint8_t* table, uint64_t members) noexcept nogil

# Predicate of a `lbrcore.events.CountedEvent`.
cdef lbr_predicate lbr_predicate_of(object event) except *
