"""Branches through the counters into the facility."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from lbrcore.lbr cimport lbr_branch, lbr_entry
from pylbr.cpu.compiled.tables cimport lbr_cpu


cdef int lbr_cpu_branch(lbr_cpu* cpu, const lbr_branch* branch) noexcept nogil
cdef int lbr_cpu_record(lbr_cpu* cpu, const lbr_branch* branches, size_t count,
                        size_t* taken) noexcept nogil
cdef int lbr_cpu_retire(lbr_cpu* cpu, uint32_t instructions, uint32_t cycles,
                        int cpl) noexcept nogil
cdef uint32_t lbr_cpu_records(const lbr_cpu* cpu, lbr_entry* entries) noexcept nogil
cdef int lbr_cpu_raise_pmi(lbr_cpu* cpu) noexcept nogil
