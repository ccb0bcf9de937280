"""One processor that the host's perf and one guest share, for Cython."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbrcore.lbr cimport LbrState, lbr_entry
from pylbr.arbitration.microsteps cimport Policy, System
from pylbr.cpu.hardware cimport Image

cdef enum:
    LER = -1                    # in place of a record's number


cdef class ContendedCpu:
    cdef readonly Policy policy
    cdef System system
    cdef uint32_t serial
    cdef uint8_t freezes
    cdef bint by_event              # the guest's records are perf's to keep
    cdef readonly uint64_t exited
    cdef readonly int failures
    cdef public uint64_t leaked     # records of the host that the guest has read

    cdef bint intercepts(self, int instruction) noexcept nogil
    cdef void _give(self) noexcept nogil
    cdef void _branches(self, uint64_t count) noexcept nogil
    cdef void _forget(self, bint image) noexcept nogil
    cdef void _operation(self, int op, int arg) noexcept nogil
    cdef void _leave(self) noexcept nogil
    cdef void _return(self) noexcept nogil
    cdef void _emulate(self, int instruction) noexcept nogil
    cdef void _swap(self, int n) noexcept nogil
    cdef void _write(self, int n, const lbr_entry* entry) noexcept nogil
    cdef void _control(self, uint64_t value) noexcept nogil
    cdef void _position(self, LbrState view) noexcept nogil
    cdef void _show(self, LbrState view, const Image* image) noexcept nogil
