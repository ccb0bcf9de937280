"""A facility and the counters that sample it, driven by a trace."""

cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from lbrcore.lbr cimport LbrState, lbr_entry, lbr_state
from lbrcore.lookback cimport lbr_look
from lbrcore.rows cimport Rows
from lbrcore.scan cimport lbr_predicate, lbr_scan

cdef enum:
    MAX_COUNTERS = 16

ctypedef struct lbr_counter:
    lbr_predicate predicate
    lbr_scan scan            # bound to the rows at hand
    int64_t left             # events until it overflows; <= 0 since it has
    uint64_t period          # of the period that runs
    uint64_t ordinal         # its number
    uint64_t base, jitter, seed
    uint32_t skid
    uint8_t overflowed       # 0, AHEAD or HAPPENED
    size_t overflow          # row of the overflow
    size_t counted           # rows below are in `left`


@cython.final
cdef class SampleBuffer:
    cdef readonly object row, event, period, nr, hw_idx, entries, classes
    cdef readonly size_t capacity, depth
    cdef public size_t count
    cdef int64_t* _row
    cdef uint16_t* _event
    cdef uint64_t* _period
    cdef uint32_t* _nr
    cdef uint64_t* _hw_idx
    cdef lbr_entry* _entries
    cdef uint8_t* _classes
    cdef void _add(
        self, const lbr_state* state, int64_t row, uint16_t event, uint64_t period) noexcept nogil


@cython.final
cdef class Replay:
    cdef readonly LbrState lbr
    cdef readonly bint freeze, whole
    cdef lbr_counter counters[MAX_COUNTERS]
    cdef readonly int count
    cdef int64_t pending     # rows until the PMI is taken; -1: none is on its way
    cdef lbr_look look       # tables of the facility, bound to the rows at hand
    cdef size_t window       # rows that the last summary looked at
    cdef readonly tuple events
    cdef size_t _run(self, Rows rows, size_t first, size_t last, SampleBuffer out) noexcept nogil
    cdef void _advance(self, Rows rows, size_t first, size_t last) noexcept nogil
    cdef void _look_ahead(self, size_t last) noexcept nogil
    cdef void _count_to(self, size_t row, bint all) noexcept nogil
    cdef void _foresee(self, Rows rows, size_t due, size_t last) noexcept nogil
    cdef void _pmi(self, size_t row, SampleBuffer out) noexcept nogil
