"""A translated block, described for liblbrcore by the decoder.  Twin: `pylbr.x86.classify`."""

from libc.stdint cimport int64_t
from libc.string cimport memset

from lbrcore.lbr cimport (
    LBR_COND, LBR_EINVAL, LBR_NEAR_REL_CALL, LBR_NEAR_REL_JMP, LBR_OK, LBR_ZERO_CALL,
)

from pylbr.x86.block_flags cimport CONDITION_32BIT, CONDITION_LOOPNE
from pylbr.x86.condition cimport condition_of

cdef extern from "decode.h" nogil:
    enum:
        X86_NO_BRANCH, X86_REP

    struct x86_insn:
        uint8_t length, cls, condition, address_size
        uint32_t flags
        int64_t displacement

    int x86_decode(const uint8_t* bytes_, size_t available, x86_insn* out)


cdef void _end(
    lbr_block* block, uint64_t last, const x86_insn* insn, size_t size
) noexcept nogil:
    """The block ends in `insn`, of `size` bytes at `last`."""
    block.last = last
    block.end = last + size
    block.cls = <uint8_t> (insn.cls if insn.length else LBR_NO_BRANCH)
    block.repeats = 0
    if insn.length and insn.flags & X86_REP:
        block.repeats = 1
    block.direct = (block.cls == LBR_COND or block.cls == LBR_NEAR_REL_JMP
                    or block.cls == LBR_NEAR_REL_CALL or block.cls == LBR_ZERO_CALL)
    block.target = block.end + <uint64_t> insn.displacement if block.direct else 0
    block.condition = 0
    if block.cls == LBR_COND:
        block.condition = insn.condition
        if insn.condition >= CONDITION_LOOPNE and insn.address_size == 4:
            block.condition |= CONDITION_32BIT


cdef int lbr_block_describe(
    lbr_block* block, uint64_t start, const void* code, size_t size
) noexcept nogil:
    cdef lbr_block found
    cdef x86_insn insn
    cdef size_t at = 0, length = 0
    memset(&found, 0, sizeof(found))
    found.start = start
    if not size or size > 1 << 20:
        return LBR_EINVAL
    while at < size:
        x86_decode(<const uint8_t*> code + at, size - at, &insn)
        if not insn.length:
            return LBR_EINVAL
        length = insn.length
        at += length
        found.instructions += 1
    _end(&found, start + at - length, &insn, length)
    block[0] = found
    return LBR_OK


cdef int lbr_block_ends(
    lbr_block* block, uint64_t start, uint32_t instructions, uint64_t last, const void* code,
    size_t size
) noexcept nogil:
    cdef x86_insn insn
    if not size or not instructions:
        return LBR_EINVAL
    memset(block, 0, sizeof(lbr_block))
    memset(&insn, 0, sizeof(insn))
    x86_decode(<const uint8_t*> code, size, &insn)
    block.start, block.instructions = start, instructions
    _end(block, last, &insn, size)
    return LBR_OK


cdef int lbr_cpu_flags(lbr_cpu* cpu, uint64_t rflags, uint64_t rcx) noexcept nogil:
    cdef const lbr_block* block = cpu.block
    cpu.held = 0
    if block != NULL and block.cls == LBR_COND and condition_of(block.condition, rflags, rcx):
        cpu.held = 1
    return LBR_OK
