"""Recording by kind: what is constant of a branch instruction in one word, made once.

    kind = lbr_kind(LBR_NEAR_REL_CALL, 0, 3, 3)         # when the instruction is translated
    lbr_record_kind(state, from_, to, cycles, kind)     # whenever it is executed

All goes through machine registers; a branch in memory is stored by its maker and loaded again.
A loop that holds the facility (`lbr_hold`) has head and cycle count in registers, too: else each
record waits for the last one's store of them.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbrcore.lbr cimport (
    CYC_CNT_MAX, INFO_TYPE_SHIFT, LBR_NOT_TAKEN, LBR_OK, QUICK_ALL, lbr_branch, lbr_entry,
    lbr_in_quick_range, lbr_quick_info, lbr_set_meta, lbr_slot, lbr_state,
)

cdef enum:
    KIND_RARE_SHIFT = 32        # set: no taken branch within one ring, or a field out of range

# A facility whose head and cycle count a loop keeps; it is not to be used otherwise until `lbr_release`.
ctypedef struct lbr_held:
    lbr_state* state
    uint64_t cycles
    uint32_t head
    bint quick


cdef int lbr_record_kind_rare(lbr_state* state, uint64_t from_, uint64_t to, uint32_t cycles,
                              uint64_t kind) noexcept nogil


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
    lbr_state* state, uint32_t head, uint64_t from_, uint64_t to, uint64_t cycles, uint64_t kind
) noexcept nogil:
    cdef lbr_entry* entry = lbr_slot(state, head)
    entry.from_ = from_
    entry.to = to
    entry.info = kind >> INFO_TYPE_SHIFT << INFO_TYPE_SHIFT | min(cycles, <uint64_t> CYC_CNT_MAX)


cdef inline int lbr_record_kind(
    lbr_state* state, uint64_t from_, uint64_t to, uint32_t cycles, uint64_t kind
) noexcept nogil:
    """LBR_OK, or LBR_EINVAL for a kind of fields out of range."""
    if cython.likely(not (kind >> KIND_RARE_SHIFT) & 1 and state.quick == QUICK_ALL):
        lbr_store_kind(state, state.head + 1, from_, to, state.cycles + cycles, kind)
        state.cycles = 0
        state.head += 1
        return LBR_OK
    return lbr_record_kind_rare(state, from_, to, cycles, kind)


cdef inline lbr_held lbr_hold(lbr_state* state) noexcept nogil:
    cdef lbr_held held
    held.state = state
    held.cycles = state.cycles
    held.head = state.head
    held.quick = state.quick == QUICK_ALL
    return held


cdef inline void lbr_release(const lbr_held* held) noexcept nogil:
    held.state.cycles = held.cycles
    held.state.head = held.head


cdef inline int lbr_record_held(
    lbr_held* held, uint64_t from_, uint64_t to, uint32_t cycles, uint64_t kind
) noexcept nogil:
    """As `lbr_record_kind`."""
    cdef int result
    if cython.likely(not (kind >> KIND_RARE_SHIFT) & 1 and held.quick):
        held.head += 1
        lbr_store_kind(held.state, held.head, from_, to, held.cycles + cycles, kind)
        held.cycles = 0
        return LBR_OK
    lbr_release(held)
    result = lbr_record_kind_rare(held.state, from_, to, cycles, kind)
    held[0] = lbr_hold(held.state)
    return result
