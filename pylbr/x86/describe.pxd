"""A translated block, described for liblbrcore."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "lbrcore_cpu.h" nogil:
    enum:
        LBR_NO_BRANCH

    ctypedef struct lbr_block:
        uint64_t start, end, last, target
        uint32_t instructions
        uint8_t cls, direct, repeats, condition

    ctypedef struct lbr_cpu:
        const lbr_block* block
        uint8_t held


cdef int lbr_block_describe(lbr_block* block, uint64_t start, const void* code,
                            size_t size) noexcept nogil
cdef int lbr_block_ends(lbr_block* block, uint64_t start, uint32_t instructions, uint64_t last,
                        const void* code, size_t size) noexcept nogil
cdef int lbr_cpu_flags(lbr_cpu* cpu, uint64_t rflags, uint64_t rcx) noexcept nogil
