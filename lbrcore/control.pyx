"""What the control registers make of the facility: filters, record loop, depth, TOS.

IA32_LBR_CTL and IA32_LBR_DEPTH (SDM vol. 4, 14CEH and 14CFH) of the architectural flavour;
MSR_LBR_SELECT, IA32_DEBUGCTL.LBR and MSR_LASTBRANCH_TOS (1C8H, 1D9H, 1C9H) of the legacy one.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from lbrcore.choices cimport (
    CALL_STACK_RECORDS_OTHERS, DEPTH_WRITE_CLEARS_LER, RESTART_KEEPS_CYCLES,
)
from lbrcore.lbr cimport (
    CYC_CNT_MAX, LBR_ARCHITECTURAL, LBR_COND, LBR_CTL_CALL_STACK, LBR_CTL_CLASSES, LBR_CTL_COND,
    LBR_CTL_CPL, LBR_CTL_LBREN, LBR_CTL_NEAR_IND_CALL, LBR_CTL_NEAR_IND_JMP,
    LBR_CTL_NEAR_REL_CALL, LBR_CTL_NEAR_REL_JMP, LBR_CTL_NEAR_RET, LBR_CTL_OS,
    LBR_CTL_OTHER_BRANCH, LBR_CTL_USR, LBR_EINVAL, LBR_GP, LBR_LEGACY, LBR_NEAR_IND_CALL,
    LBR_NEAR_IND_JMP, LBR_NEAR_REL_CALL, LBR_NEAR_REL_JMP, LBR_NEAR_RET, LBR_OK,
    LBR_QUIRK_JMPS_INCLUDE_CALLS, LBR_RECORDABLE, LBR_SELECT_CPL_EQ_0, LBR_SELECT_CPL_NEQ_0,
    LBR_SELECT_EN_CALLSTACK, LBR_SELECT_FAR_BRANCH, LBR_SELECT_JCC, LBR_SELECT_NEAR_IND_CALL,
    LBR_SELECT_NEAR_IND_JMP, LBR_SELECT_NEAR_REL_CALL, LBR_SELECT_NEAR_REL_JMP,
    LBR_SELECT_NEAR_RET, MODE_CALL_STACK, MODE_EVENTS, MODE_FILTERED,
    MODE_OFF, MODE_TIMED, lbr_clear, lbr_entry, lbr_find_quick, lbr_slot, lbr_state,
)

cdef enum:
    # Sets of classes, one bit per class
    CALLS = 0x18        # NEAR_IND_CALL, NEAR_REL_CALL
    RETURNS = 0x20
    IND_JMPS = 0x2A     # NEAR_IND_JMP, and on Nehalem NEAR_IND_CALL and NEAR_RET
    REL_JMPS = 0x14     # NEAR_REL_JMP, and on Nehalem NEAR_REL_CALL
    OTHER = 0xFF00
    EVENT_CLASSES = 0x7000  # INTERRUPT, EXCEPTION, SOFT_INT load LER


cdef uint64_t _included_classes(const lbr_state* state) noexcept nogil:
    """Classes that IA32_LBR_CTL includes, one bit per class."""
    cdef uint64_t ctl = state.ctl, classes = 0
    if not state.config.ctl_mask & LBR_CTL_CLASSES:
        return LBR_RECORDABLE  # no branch filter is offered
    if ctl & LBR_CTL_COND:
        classes |= 1 << LBR_COND
    if ctl & LBR_CTL_NEAR_REL_JMP:
        classes |= 1 << LBR_NEAR_REL_JMP
    if ctl & LBR_CTL_NEAR_IND_JMP:
        classes |= 1 << LBR_NEAR_IND_JMP
    if ctl & LBR_CTL_NEAR_REL_CALL:
        classes |= 1 << LBR_NEAR_REL_CALL
    if ctl & LBR_CTL_NEAR_IND_CALL:
        classes |= 1 << LBR_NEAR_IND_CALL
    if ctl & LBR_CTL_NEAR_RET:
        classes |= 1 << LBR_NEAR_RET
    if ctl & LBR_CTL_OTHER_BRANCH:
        classes |= OTHER
    return classes


cdef uint64_t _unsuppressed_classes(const lbr_state* state) noexcept nogil:
    """Classes that MSR_LBR_SELECT does not suppress, one bit per class."""
    cdef uint64_t select = state.ctl, classes = LBR_RECORDABLE
    cdef bint calls_too = (state.config.quirks & LBR_QUIRK_JMPS_INCLUDE_CALLS) != 0
    if select & LBR_SELECT_JCC:
        classes &= ~<uint64_t> (1 << LBR_COND)
    if select & LBR_SELECT_NEAR_REL_CALL:
        classes &= ~<uint64_t> (1 << LBR_NEAR_REL_CALL)
    if select & LBR_SELECT_NEAR_IND_CALL:
        classes &= ~<uint64_t> (1 << LBR_NEAR_IND_CALL)
    if select & LBR_SELECT_NEAR_RET:
        classes &= ~<uint64_t> RETURNS
    if select & LBR_SELECT_NEAR_IND_JMP:
        classes &= ~<uint64_t> (IND_JMPS if calls_too else 1 << LBR_NEAR_IND_JMP)
    if select & LBR_SELECT_NEAR_REL_JMP:
        classes &= ~<uint64_t> (REL_JMPS if calls_too else 1 << LBR_NEAR_REL_JMP)
    if select & LBR_SELECT_FAR_BRANCH:
        classes &= ~<uint64_t> OTHER
    return classes


cdef bint _active(const lbr_state* state) noexcept nogil:
    """Whether branches are recorded."""
    if state.config.flavour == LBR_ARCHITECTURAL:
        return state.ctl & LBR_CTL_LBREN and not state.frozen
    return state.enable and not state.frozen


cdef void lbr_control_changed(lbr_state* state) noexcept nogil:
    """Work out the truth tables and the record loop from the control registers."""
    cdef uint64_t classes, calls, returns
    cdef bint kernel = True, user = True, call_stack
    cdef int cpl
    cdef uint8_t mode = 0
    state.accept = state.pop = 0
    state.from_ones = 0
    if not _active(state):
        state.mode = MODE_OFF
        state.active = state.quick = 0
        state.ler_classes = 0
        return
    if state.config.flavour == LBR_ARCHITECTURAL:
        classes = _included_classes(state)
        if state.config.ctl_mask & LBR_CTL_CPL:
            kernel = (state.ctl & LBR_CTL_OS) != 0
            user = (state.ctl & LBR_CTL_USR) != 0
        call_stack = (state.ctl & LBR_CTL_CALL_STACK) != 0
    else:
        classes = _unsuppressed_classes(state)
        kernel = not state.ctl & LBR_SELECT_CPL_EQ_0
        user = not state.ctl & LBR_SELECT_CPL_NEQ_0
        call_stack = (state.ctl & LBR_SELECT_EN_CALLSTACK) != 0
    calls = classes
    if call_stack:
        calls &= ~<uint64_t> RETURNS if CALL_STACK_RECORDS_OTHERS else CALLS
    returns = classes & RETURNS if call_stack else 0

    # The CPL at the end of the operation decides; out of a filtered ring the
    # architectural flavour hides where the branch came from.
    for cpl in range(4):
        if kernel if cpl == 0 else user:
            state.accept |= calls << (16 * cpl)
            state.pop |= returns << (16 * cpl)
        elif state.config.flavour == LBR_ARCHITECTURAL:
            state.from_ones |= <uint8_t> (1 << cpl)
    if call_stack:
        mode = MODE_CALL_STACK
    elif state.accept != LBR_RECORDABLE * <uint64_t> 0x0001000100010001:
        mode = MODE_FILTERED
    if state.config.info_mask & CYC_CNT_MAX:
        mode |= MODE_TIMED
    if state.config.event_counters & state.event_mask:
        mode |= MODE_EVENTS
    state.mode = mode
    state.ler_classes = EVENT_CLASSES
    if not state.active and not RESTART_KEEPS_CYCLES:
        # CYC_CNT has nothing to count from until the first record.
        state.cycles = 0
        state.cycles_valid = 0
        memset(&state.events[0], 0, 4)
    state.active = 1
    lbr_find_quick(state)


cdef int lbr_write_ctl(lbr_state* state, uint64_t value) noexcept nogil:
    if value & ~state.config.ctl_mask:
        return LBR_GP
    state.ctl = value
    lbr_control_changed(state)
    return LBR_OK


cdef int lbr_write_depth(lbr_state* state, uint64_t value) noexcept nogil:
    """Any offered depth, the present one too, zeroes all records; CTL and LER stay."""
    if state.config.flavour != LBR_ARCHITECTURAL:
        return LBR_EINVAL
    if state.config.depth:
        if value != state.config.depth:
            return LBR_GP
    elif value == 0 or value & 7 or value > 64:
        return LBR_GP
    elif not (state.config.depth_bitmap >> (value // 8 - 1)) & 1:
        return LBR_GP
    state.depth = <uint32_t> value
    lbr_clear(state)
    if DEPTH_WRITE_CLEARS_LER:
        memset(&state.ler, 0, sizeof(lbr_entry))
    return LBR_OK


cdef void lbr_set_enable(lbr_state* state, int enable) noexcept nogil:
    if state.enable != (enable != 0):
        state.enable = enable != 0
        lbr_control_changed(state)


cdef void lbr_set_frozen(lbr_state* state, int frozen) noexcept nogil:
    if state.frozen != (frozen != 0):
        state.frozen = frozen != 0
        lbr_control_changed(state)


cdef void lbr_set_event_mask(lbr_state* state, int mask) noexcept nogil:
    cdef int i
    state.event_mask = <uint8_t> (mask & state.config.event_counters)
    for i in range(4):
        if not (state.event_mask >> i) & 1:
            state.events[i] = 0
    lbr_control_changed(state)


cdef int lbr_write_tos(lbr_state* state, uint32_t tos) noexcept nogil:
    """Move TOS; the physical registers keep what they hold."""
    cdef lbr_entry physical[32]
    cdef uint32_t depth = state.depth, p, old = state.head & (depth - 1)
    if state.config.flavour != LBR_LEGACY:
        return LBR_EINVAL
    if tos >= depth:
        return LBR_GP
    for p in range(depth):
        physical[p] = lbr_slot(state, state.head - ((old - p) & (depth - 1)))[0]
    state.head += tos - old
    for p in range(depth):
        lbr_slot(state, state.head - ((tos - p) & (depth - 1)))[0] = physical[p]
    return LBR_OK
