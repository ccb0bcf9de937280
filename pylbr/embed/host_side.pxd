"""A host and its hypervisor on one CPU, for Cython."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pylbr.arbitration.microsteps cimport Policy, System


cdef class HostSide:
    cdef readonly Policy policy
    cdef System system
    cdef uint32_t serial
    cdef uint8_t freezes
    cdef bint by_event              # the guest's records are perf's to keep
    cdef readonly uint64_t exited
    cdef readonly int failures, broken
    cdef public bint waits, traces_guest
    cdef public object due
    cdef readonly uint64_t saved_control
    # Records of the host, and of the other guest, that the guest has read
    cdef public uint64_t leaked, mixed
    # Of the host's samples
    cdef readonly uint64_t samples, absent, cut, own, others, breaches, missed

    cdef bint intercepts(self, int instruction) noexcept nogil
    cdef void _give(self) noexcept nogil
    cdef void _look(self) noexcept nogil
    cdef void _step(self) noexcept nogil
    cdef void _sampled(self, int least) noexcept nogil
    cdef void _guest_reads(self) noexcept nogil
    cdef void _exit(self, int why) noexcept nogil
    cdef void _other_enters(self) noexcept nogil
    cdef void _other_leaves(self) noexcept nogil
    cdef void _other_executes(self, int instruction) noexcept nogil
    cdef void _branches(self, uint64_t count) noexcept nogil
    cdef void _forget(self, bint image) noexcept nogil
    cdef void _operation(self, int op, int arg) noexcept nogil
    cdef void _leave(self) noexcept nogil
    cdef void _return(self) noexcept nogil
