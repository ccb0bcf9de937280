"""Life of a processor, the events that touch LBRs, XSAVES."""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from pylbr.cpu.compiled.tables cimport lbr_cpu, lbr_pmi_callback


cdef int lbr_cpu_open(lbr_cpu** cpu, const char* name, size_t cpu_size,
                      uint32_t abi_version) noexcept nogil
cdef void lbr_cpu_destroy(lbr_cpu* cpu) noexcept nogil
cdef void lbr_cpu_copy(lbr_cpu* target, const lbr_cpu* source) noexcept nogil
cdef void lbr_cpu_on_pmi(lbr_cpu* cpu, lbr_pmi_callback callback, void* context) noexcept nogil
cdef void lbr_cpu_set_mode(lbr_cpu* cpu, int long_mode, uint64_t cs_base) noexcept nogil
cdef int lbr_cpu_set_tsx(lbr_cpu* cpu, int in_transaction) noexcept nogil
cdef int lbr_cpu_debug_exception(lbr_cpu* cpu) noexcept nogil
cdef int lbr_cpu_smi(lbr_cpu* cpu) noexcept nogil
cdef int lbr_cpu_rsm(lbr_cpu* cpu) noexcept nogil
cdef int lbr_cpu_init(lbr_cpu* cpu) noexcept nogil
cdef int lbr_cpu_reset(lbr_cpu* cpu, int warm, int in_c6) noexcept nogil
cdef int lbr_cpu_mwait(lbr_cpu* cpu, int deep, int lose) noexcept nogil
cdef int lbr_cpu_enclave_enter(lbr_cpu* cpu, uint64_t from_, int opt_in) noexcept nogil
cdef int lbr_cpu_enclave_leave(lbr_cpu* cpu, uint64_t* from_) noexcept nogil
cdef int lbr_cpu_xsaves(const lbr_cpu* cpu, void* area, size_t size, uint64_t address,
                        uint64_t rfbm, uint64_t xinuse) noexcept nogil
cdef int lbr_cpu_xrstors(lbr_cpu* cpu, const void* area, size_t size, uint64_t address,
                         uint64_t rfbm) noexcept nogil
