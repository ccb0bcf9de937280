"""Derived state: what counts, what logs, whether records freeze."""

from libc.stdint cimport uint64_t

from pylbr.cpu.compiled.tables cimport lbr_cpu

cdef enum:
    FIRST_FIXED = 32        # the first fixed counter among the bits of the global registers
    STOPPED_BY_SMM = 1
    STOPPED_BY_ENCLAVE = 2
    OPT_IN = 1
    OPT_OUT = 2


cdef bint lbr_tracing(const lbr_cpu* cpu) noexcept nogil
cdef void lbr_sync(lbr_cpu* cpu) noexcept nogil
cdef void lbr_pmu_changed(lbr_cpu* cpu) noexcept nogil
cdef void lbr_set_status(lbr_cpu* cpu, uint64_t value) noexcept nogil
cdef void lbr_cpu_set_debugctl(lbr_cpu* cpu, uint64_t value) noexcept nogil
cdef uint64_t lbr_in_use(const lbr_cpu* cpu) noexcept nogil
cdef uint64_t lbr_counter_mask(const lbr_cpu* cpu, int place) noexcept nogil
cdef void lbr_power_up(lbr_cpu* cpu) noexcept nogil
cdef void lbr_reset_pmu(lbr_cpu* cpu) noexcept nogil
cdef void lbr_reset_values(lbr_cpu* cpu) noexcept nogil
