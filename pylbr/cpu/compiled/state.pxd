"""The state of a processor as bytes."""

from libc.stddef cimport size_t

from pylbr.cpu.compiled.tables cimport lbr_cpu


cdef int lbr_cpu_save(const lbr_cpu* cpu, void* data, size_t size, size_t* used) noexcept nogil
cdef int lbr_cpu_load(lbr_cpu* cpu, const void* data, size_t size) noexcept nogil
