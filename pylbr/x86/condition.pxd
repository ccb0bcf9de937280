"""Was a conditional branch taken?  Judged by the registers that it left."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pylbr.x86.block_flags cimport (
    CONDITION_32BIT, CONDITION_JRCXZ, CONDITION_LOOP, CONDITION_LOOPE, CONDITION_LOOPNE,
)

cdef enum:
    CF = 0x1
    PF = 0x4
    ZF = 0x40
    SF = 0x80
    OF = 0x800


cdef inline bint condition_of(uint8_t condition, uint64_t flags, uint64_t count) noexcept nogil:
    """Twin: ``pylbr.x86.blocks_reference.condition_holds``."""
    cdef int kind = condition & 31
    cdef bint zero = (flags & ZF) != 0, sign = (flags & SF) != 0, overflow = (flags & OF) != 0
    cdef bint result
    if condition & CONDITION_32BIT:
        count = <uint32_t> count
    if kind == CONDITION_JRCXZ:
        return count == 0
    if kind >= CONDITION_LOOPNE:
        return count != 0 and (kind == CONDITION_LOOP or zero == (kind == CONDITION_LOOPE))
    kind >>= 1
    if kind == 0:
        result = overflow
    elif kind == 1:
        result = (flags & CF) != 0
    elif kind == 2:
        result = zero
    elif kind == 3:
        result = (flags & (CF | ZF)) != 0
    elif kind == 4:
        result = sign
    elif kind == 5:
        result = (flags & PF) != 0
    elif kind == 6:
        result = sign != overflow
    else:
        result = zero or sign != overflow
    return result != (condition & 1)
