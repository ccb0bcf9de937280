"""RDMSR and WRMSR."""

from libc.stdint cimport uint32_t, uint64_t

from pylbr.cpu.compiled.tables cimport lbr_cpu, lbr_fault


cdef bint lbr_is_canonical(uint64_t address, int width) noexcept nogil
cdef int lbr_rdmsr(const lbr_cpu* cpu, uint32_t index, uint64_t* value,
                   lbr_fault* fault) noexcept nogil
cdef int lbr_wrmsr(lbr_cpu* cpu, uint32_t index, uint64_t value, lbr_fault* fault) noexcept nogil
cdef int lbr_host_rdmsr(const lbr_cpu* cpu, uint32_t index, uint64_t* value,
                        lbr_fault* fault) noexcept nogil
cdef int lbr_host_wrmsr(lbr_cpu* cpu, uint32_t index, uint64_t value,
                        lbr_fault* fault) noexcept nogil
cdef int lbr_xsetbv(lbr_cpu* cpu, uint64_t value, lbr_fault* fault) noexcept nogil
