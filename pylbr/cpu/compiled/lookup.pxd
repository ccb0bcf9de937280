"""Models by name, registers by number, CPUID."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

from pylbr.cpu.compiled.tables cimport lbr_cpu, lbr_model, lbr_register


cdef const lbr_model* lbr_model_find(const char* name) noexcept nogil
cdef const lbr_model* lbr_model_at(size_t i) noexcept nogil
cdef const lbr_register* lbr_register_of(const lbr_model* model, uint32_t index) noexcept nogil
cdef const lbr_register* lbr_kept_register(const lbr_model* model, int value) noexcept nogil
cdef bint lbr_known_elsewhere(uint32_t index) noexcept nogil
cdef int lbr_msr_name(const lbr_model* model, uint32_t index, char* text,
                      size_t size) noexcept nogil
cdef int lbr_cpuid(const lbr_cpu* cpu, uint32_t leaf, uint32_t subleaf,
                   uint32_t* registers) noexcept nogil
