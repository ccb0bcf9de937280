"""Policies built on KVM's pinned perf event, which stands for a guest's LBRs (spec 5.6)."""

from libc.stdint cimport uint8_t, uint64_t

from pylbr.arbitration.microsteps cimport Cpu, Policy, System, Vcpu
from pylbr.host.perf cimport Event


cdef class PinnedEvent(Policy):
    cdef readonly frozenset flaws
    cdef uint64_t flaw_bits
    cdef int set_flaws(self, flaws) except -1
    cdef bint has(self, int flaw) noexcept nogil
    cdef Event* event(self, System* s, Vcpu* v) noexcept nogil
    cdef bint active(self, System* s, Vcpu* v) noexcept nogil
    cdef void create(self, System* s, Cpu* c, Vcpu* v) noexcept nogil
    cdef void release(self, System* s, Cpu* c, Vcpu* v) noexcept nogil
    cdef void reset(self, System* s, Cpu* c) noexcept nogil
    cdef bint late_freeze       # LBRs freeze when the PMI is injected, not at the overflow
    cdef void vpmu_reset(self, System* s, Cpu* c, Vcpu* v) noexcept nogil
    cdef void freeze(self, Vcpu* v) noexcept nogil
    cdef bint guest_records(self, Vcpu* v) noexcept nogil
    cdef void access(self, System* s, Cpu* c, Vcpu* v, bint real) noexcept nogil
