"""Recording by kind: what is constant of a branch instruction in one word, made once.

    kind = lbr_kind(LBR_NEAR_REL_CALL, 0, 3, 3)         # when the instruction is translated
    lbr_record_kind(state, from_, to, cycles, kind)     # whenever it is executed

All goes through machine registers; a branch in memory is stored by its maker and loaded again.
A loop that holds the facility (`lbr_hold`) keeps its head in a register: else each record waits for
the last one's store of it, which takes longer than a call.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbrcore.lbr cimport (
    CYC_CNT_MAX, INFO_TYPE_SHIFT, LBR_EINVAL, LBR_NOT_TAKEN, LBR_OK, QUICK_ALL, lbr_branch, lbr_entry,
    lbr_in_quick_range, lbr_quick_info, lbr_set_meta, lbr_slot, lbr_state,
)

cdef enum:
    KIND_RARE_SHIFT = 32        # set: no taken branch within one ring, or a field out of range
    HELD_EINVAL = 1 << 1        # in bits 63:32 of what `lbr_hold` gives: a kind was refused


cdef int lbr_record_kind_rare(lbr_state* state, uint64_t from_, uint64_t to, uint32_t cycles,
                              uint64_t kind) noexcept nogil
cdef uint64_t lbr_record_held_rare(lbr_state* state, uint64_t held, uint64_t from_, uint64_t to,
                                   uint32_t cycles, uint64_t kind) noexcept nogil


cdef inline uint64_t lbr_kind(
    uint8_t cls, uint8_t flags, uint8_t cpl_from, uint8_t cpl_to
) noexcept nogil:
    """Bits 63:56 as in INFO, KIND_RARE_SHIFT, and class, flags and CPLs in a byte each."""
    cdef lbr_branch branch
    cdef uint64_t rare
    lbr_set_meta(&branch, cls, flags, cpl_from, cpl_to)
    rare = not (lbr_in_quick_range(&branch) and cls < LBR_NOT_TAKEN)
    return (lbr_quick_info(&branch) | rare << KIND_RARE_SHIFT | <uint64_t> cpl_to << 24
            | cpl_from << 16 | flags << 8 | cls)


cdef inline void lbr_store_kind(
    lbr_state* state, uint32_t head, uint64_t from_, uint64_t to, uint32_t cycles, uint64_t kind
) noexcept nogil:
    cdef lbr_entry* entry = lbr_slot(state, head)
    entry.from_ = from_
    entry.to = to
    entry.info = kind >> INFO_TYPE_SHIFT << INFO_TYPE_SHIFT | cycles


cdef inline int lbr_record_kind(
    lbr_state* state, uint64_t from_, uint64_t to, uint32_t cycles, uint64_t kind
) noexcept nogil:
    """LBR_OK, or LBR_EINVAL for a kind of fields out of range."""
    if cython.likely(not (kind >> KIND_RARE_SHIFT) & 1 and state.quick == QUICK_ALL):
        lbr_store_kind(state, state.head + 1, from_, to,
                       <uint32_t> min(state.cycles + cycles, <uint64_t> CYC_CNT_MAX), kind)
        state.cycles = 0
        state.head += 1
        return LBR_OK
    return lbr_record_kind_rare(state, from_, to, cycles, kind)


cdef inline uint64_t lbr_hold(const lbr_state* state) noexcept nogil:
    """The head, to be kept by the caller: the facility is not to be used otherwise until `lbr_release`.

    KIND_RARE_SHIFT: the next record takes the long way, as the first one after a cycle count does.
    """
    cdef uint64_t rare
    rare = not (state.quick == QUICK_ALL and state.cycles == 0)
    return state.head | rare << KIND_RARE_SHIFT


cdef inline int lbr_release(lbr_state* state, uint64_t held) noexcept nogil:
    """LBR_EINVAL if a kind of fields out of range was refused since `lbr_hold`."""
    state.head = <uint32_t> held
    return LBR_EINVAL if held >> KIND_RARE_SHIFT & HELD_EINVAL else LBR_OK


cdef inline uint64_t lbr_record_held(
    lbr_state* state, uint64_t held, uint64_t from_, uint64_t to, uint32_t cycles, uint64_t kind
) noexcept nogil:
    """What to hold from now on.  A head that wraps takes the long way once."""
    if cython.likely(not ((kind | held) >> KIND_RARE_SHIFT) & 1):
        held += 1
        lbr_store_kind(state, <uint32_t> held, from_, to, min(cycles, <uint32_t> CYC_CNT_MAX), kind)
        return held
    return lbr_record_held_rare(state, held, from_, to, cycles, kind)
