"""Architectural LBRs on the mediated PMU, passed through lazily."""

from libc.stdint cimport uint8_t, uint64_t

from pylbr.arbitration.single_owner cimport SingleOwner

cdef class MediatedArchLbr(SingleOwner):
    cdef readonly frozenset flaws
    cdef uint64_t flaw_bits
    cdef bint has(self, int flaw) noexcept nogil
