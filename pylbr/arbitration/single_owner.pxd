"""Policies in which the registers have one owner, and perf gets them by being attached."""

from libc.stdint cimport uint8_t

from pylbr.arbitration.microsteps cimport Cpu, Policy, System, Vcpu

cdef class SingleOwner(Policy):
    cdef bint wants(self, Vcpu* v) noexcept nogil
    cdef void attach(self, System* s, Cpu* c) noexcept nogil
    cdef void detach(self, System* s, Cpu* c) noexcept nogil
    cdef void wipe(self, System* s, Cpu* c) noexcept nogil
    cdef void load_guest(self, System* s, Cpu* c, Vcpu* v) noexcept nogil
    cdef void save_guest(self, System* s, Cpu* c, Vcpu* v) noexcept nogil
    cdef int yield_guest(self, System* s, Cpu* c, Vcpu* v, int pc) noexcept nogil
    cdef void read_host(self, System* s, Cpu* c, bint present) noexcept nogil
    cdef void cold_reset(self, System* s, Cpu* c, Vcpu* v) noexcept nogil
    cdef void admit(self, Cpu* c, Vcpu* v) noexcept nogil
    cdef void keep_out(self, Cpu* c, Vcpu* v) noexcept nogil
