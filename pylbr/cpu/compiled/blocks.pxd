"""Entered blocks to branches."""

from libc.stdint cimport uint32_t, uint64_t

from pylbr.cpu.compiled.tables cimport lbr_block, lbr_cpu


cdef int lbr_cpu_enter(lbr_cpu* cpu, const lbr_block* block, int cpl) noexcept nogil
cdef int lbr_cpu_interrupt(lbr_cpu* cpu, int cls, uint64_t from_,
                           uint32_t instructions) noexcept nogil
cdef int lbr_cpu_settle(lbr_cpu* cpu, uint64_t next) noexcept nogil
