"""Branches where they lie: an array of BRANCH_DTYPE, or columns, or a mixture.

A field is a pointer and a stride, so that nothing is copied or gathered before it is needed; a
field that is not given has one value for all rows, at stride 0.
"""

cimport cython
from cpython.buffer cimport Py_buffer
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from lbrcore.lbr cimport lbr_branch

cdef enum:
    FIELD_FROM, FIELD_TO, FIELD_CYCLES, FIELD_INSTRUCTIONS, FIELD_CLASS, FIELD_FLAGS
    FIELD_CPL_FROM, FIELD_CPL_TO, FIELD_EVENTS, FIELDS

ctypedef struct lbr_column:
    const char* data
    size_t stride        # bytes from row to row; 0: one value for all
    uint8_t by_address   # a CPL: the byte is the highest of an address, set bit 7 means ring 0

ctypedef struct lbr_rows:
    lbr_column column[9]  # FIELD_FROM to FIELD_EVENTS
    size_t count
    const lbr_branch* array  # all of it lies here; NULL if there are columns


cdef inline uint8_t lbr_byte(const lbr_rows* rows, int field, size_t i) noexcept nogil:
    """Class, flags or CPL of row `i`."""
    cdef const lbr_column* column = &rows.column[field]
    cdef uint8_t value = (<const uint8_t*> column.data)[i * column.stride]
    if column.by_address:
        return 0 if value & 0x80 else 3
    return value


cdef inline uint32_t lbr_u32(const lbr_rows* rows, int field, size_t i) noexcept nogil:
    """Cycles, instructions or the four event counts of row `i`."""
    cdef uint32_t value
    memcpy(&value, rows.column[field].data + i * rows.column[field].stride, 4)
    return value


cdef inline uint64_t lbr_address(const lbr_rows* rows, int field, size_t i) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, rows.column[field].data + i * rows.column[field].stride, 8)
    return value


cdef inline lbr_branch lbr_row(const lbr_rows* rows, size_t i) noexcept nogil:
    """Row `i` as a branch, its small fields cut to their range."""
    cdef lbr_branch branch
    cdef uint32_t events = lbr_u32(rows, FIELD_EVENTS, i)
    branch.from_ = lbr_address(rows, FIELD_FROM, i)
    branch.to = lbr_address(rows, FIELD_TO, i)
    branch.cycles = lbr_u32(rows, FIELD_CYCLES, i)
    branch.instructions = lbr_u32(rows, FIELD_INSTRUCTIONS, i)
    branch.cls = lbr_byte(rows, FIELD_CLASS, i) & 15
    branch.flags = lbr_byte(rows, FIELD_FLAGS, i) & 7
    branch.cpl_from = lbr_byte(rows, FIELD_CPL_FROM, i) & 3
    branch.cpl_to = lbr_byte(rows, FIELD_CPL_TO, i) & 3
    memcpy(&branch.events, &events, 4)
    return branch


# Rows [first, first + count) as they are, out of range or not.
cdef void lbr_gather(
    const lbr_rows* rows, size_t first, size_t count, lbr_branch* block) noexcept nogil


cdef extern from *:
    """
    /* gcc takes a function that only calls __builtin_prefetch for one that does nothing.  Into
       the second level: the first has too few buffers for all lines of a window. */
    #if defined(__x86_64__) && defined(__GNUC__)
    #define LBR_PREFETCH(address) \\
        __asm__ volatile("prefetcht1 %0" : : "m"(*(const char *)(address)))
    #else
    #define LBR_PREFETCH(address) ((void)(address))
    #endif
    """
    void LBR_PREFETCH(const void* address) noexcept nogil


cdef inline void lbr_prefetch_rows(const lbr_rows* rows, size_t first, size_t last) noexcept nogil:
    """Ask for the cache lines of rows [first, last)."""
    cdef const char* at
    cdef const char* end
    cdef int field
    if rows.array != NULL:
        at, end = <const char*> (rows.array + first), <const char*> (rows.array + last)
        while at < end:
            LBR_PREFETCH(at)
            at += 64
        return
    for field in range(FIELDS):
        if rows.column[field].stride and not rows.column[field].by_address:
            at = rows.column[field].data + first * rows.column[field].stride
            end = rows.column[field].data + last * rows.column[field].stride
            while at < end:
                LBR_PREFETCH(at)
                at += 64


@cython.final
cdef class Rows:
    cdef lbr_rows rows
    cdef Py_buffer views[9]
    cdef uint8_t held[9]
    cdef uint64_t constant[9]
    cdef int _take(self, int field, object source) except -1
    cdef int _take_array(self, object branches) except -1


cdef Rows rows_of(object source)
