"""Facts of a block in machine code; see `pylbr.x86.facts` for what they are."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    MOST_PRIVILEGED = 16

ctypedef struct block_facts:
    uint64_t last
    uint64_t target
    uint32_t instructions
    uint8_t cls          # enum lbr_class, or X86_NO_BRANCH
    uint8_t condition
    uint8_t flags
    uint8_t direct       # `target` is known
    uint32_t privileged  # instructions that the engine must not execute by itself
    uint64_t privileged_at[MOST_PRIVILEGED]

# False: the decoder refuses an instruction, or cannot determine whether one stores.
cdef bint decode_block(
    const uint8_t* code, uint32_t size, uint64_t address, block_facts* out) noexcept nogil

# Whole instructions in the first `size` bytes; -1 as above.
cdef int count_instructions(const uint8_t* code, uint32_t size) noexcept nogil
