"""The bytes of a block, read from an emulator's guest without asking Python."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

ctypedef int (*code_read)(
    void* engine, uint64_t address, int protection, void* out, size_t size) noexcept nogil
ctypedef int (*context_save)(void* engine, void* context) noexcept nogil

cdef enum:
    LONGEST_BLOCK = 4096 + 16  # a translated block has one page, its last instruction more
    READABLE = 1
    LONG_CODE = 1 << 15        # HF_CS64

ctypedef struct code_source:
    code_read read       # NULL: none
    context_save save
    uint8_t* context
    uint32_t flags_at    # of HF_ flags in the context


cdef inline bint _is_long(
    const code_source* source, void* engine, uint64_t address
) noexcept nogil:
    cdef uint32_t flags
    if address >> 32:
        return True  # other code has no addresses of more than 32 bits
    if source.save == NULL or source.save(engine, source.context):
        return False
    memcpy(&flags, source.context + source.flags_at, 4)
    return (flags & LONG_CODE) != 0


cdef inline bint guest_code(
    const code_source* source, void* engine, uint64_t address, uint32_t size, uint8_t* out
) noexcept nogil:
    """Read `size` bytes of the block at `address`, which is being executed; False if it is not
    64-bit code, or cannot be read like this."""
    return (
        source.read != NULL and 0 < size <= LONGEST_BLOCK
        and _is_long(source, engine, address)
        and source.read(engine, address, READABLE, out, size) == 0)
