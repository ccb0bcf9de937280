"""Policies in which the registers have one owner, and perf gets them by being attached."""

from libc.stdint cimport uint8_t

from pylbr.arbitration.microsteps cimport Cpu, Policy, System, Vcpu

# Deviations that `SingleOwner` itself knows, below those of its subclasses.
cdef enum SingleOwnerFlaw:
    NO_WIPE, WIPE_BY_DEPTH, XSAVES_DOOR, KEEP_CLEAR_OFF, NO_RESTORE_CTL, NO_PAUSE_CLEAR
    GUEST_RUNS_HOST_CTL, NO_RESET_AT_SWITCH, STEAL_IN_IRQ, KEEP_PASSTHROUGH, NO_RECHECK
    KEEP_WANTED, NO_ATTACH_AT_PUT, RESTORE_LOADS_CTL, KEEP_ENABLED, NO_SAVE, DROP_CTL
    NO_RESET_AT_CHANGE, NESTED_NO_CONTROLS, NESTED_KEEP_CTL, NESTED_NO_LOAD
    PMI_NO_FREEZE, NO_REFREEZE, KEEP_FROZEN, ACK_BY_HOST, DROP_DEBUGCTL, DROP_FROZEN
    PEBS_DOOR, KEEP_PEBS, RESET_KEEPS_RECORDS, STALE_STACK, SILENT_STACK
    OWNED_FLAWS


cdef class SingleOwner(Policy):
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
