"""Recording by kind, as liblbrcore exports it: nothing here calls it."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbrcore.lbr cimport (
    LBR_EINVAL, LBR_OK, lbr_branch, lbr_kind_valid, lbr_record_rare, lbr_set_meta, lbr_state,
)


cdef int lbr_record_kind_rare(
    lbr_state* state, uint64_t from_, uint64_t to, uint32_t cycles, uint64_t kind
) noexcept nogil:
    """A branch by kind that `lbr_record_kind` does not take itself."""
    cdef lbr_branch branch
    if not lbr_kind_valid(kind):
        return LBR_EINVAL
    branch.from_ = from_
    branch.to = to
    branch.cycles = cycles
    branch.instructions = 0
    lbr_set_meta(&branch, kind & 0xFF, (kind >> 8) & 0xFF, (kind >> 16) & 0xFF,
                 (kind >> 24) & 0xFF)
    return lbr_record_rare(state, &branch)


cdef uint64_t lbr_record_held_rare(
    lbr_state* state, uint64_t held, uint64_t from_, uint64_t to, uint32_t cycles, uint64_t kind
) noexcept nogil:
    """As `lbr_record_held`, for what it does not take itself."""
    cdef uint64_t refused = held >> KIND_RARE_SHIFT & HELD_EINVAL
    lbr_release(state, held)
    if lbr_record_kind_rare(state, from_, to, cycles, kind) != LBR_OK:
        refused = HELD_EINVAL
    return lbr_hold(state) | refused << KIND_RARE_SHIFT


cdef uint64_t _kind(uint8_t cls, uint8_t flags, uint8_t cpl_from, uint8_t cpl_to) noexcept nogil:
    return lbr_kind(cls, flags, cpl_from, cpl_to)


cdef int _record_kind(
    lbr_state* state, uint64_t from_, uint64_t to, uint32_t cycles, uint64_t kind
) noexcept nogil:
    return lbr_record_kind(state, from_, to, cycles, kind)


cdef uint64_t _hold(const lbr_state* state) noexcept nogil:
    return lbr_hold(state)


cdef uint64_t _record_held(
    lbr_state* state, uint64_t held, uint64_t from_, uint64_t to, uint32_t cycles, uint64_t kind
) noexcept nogil:
    return lbr_record_held(state, held, from_, to, cycles, kind)


cdef int _release(lbr_state* state, uint64_t held) noexcept nogil:
    return lbr_release(state, held)


cdef int _record_kinds(
    lbr_state* state, const uint64_t* from_, const uint64_t* to, const uint32_t* cycles,
    const uint64_t* kind, size_t count
) noexcept nogil:
    cdef uint64_t held
    cdef size_t i
    for i in range(count):
        if not lbr_kind_valid(kind[i]):
            return LBR_EINVAL
    held = lbr_hold(state)
    for i in range(count):
        held = lbr_record_held(state, held, from_[i], to[i], cycles[i], kind[i])
    return lbr_release(state, held)
