"""One processor that the host's perf and a guest share, for Cython."""

from libc.stdint cimport uint64_t

from lbrcore.lbr cimport LbrState, lbr_entry
from pylbr.cpu.hardware cimport Image
from pylbr.embed.host_side cimport HostSide

cdef enum:
    LER = -1                    # in place of a record's number


cdef class ContendedCpu(HostSide):
    cdef void _emulate(self, int instruction) noexcept nogil
    cdef void _swap(self, int n) noexcept nogil
    cdef void _write(self, int n, const lbr_entry* entry) noexcept nogil
    cdef void _control(self, uint64_t value) noexcept nogil
    cdef void _position(self, LbrState view) noexcept nogil
    cdef void _show(self, LbrState view, const Image* image) noexcept nogil
