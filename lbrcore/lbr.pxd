"""The facility for Cython: data layout, and the record path to be inlined.

    from lbrcore.lbr cimport LbrState, lbr_branch, lbr_record

    with nogil:
        lbr_record(state.state, &branch)

Thread rule: an `lbr_state` is used by one thread at a time; different states need no lock and
no GIL.  Nothing here allocates, raises or touches a Python object.
"""

cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from lbrcore.choices cimport EMPTY_STACK_CLEARS_LER, OTHER_BRANCH_TYPE, POP_RESTARTS_CYCLES

cdef extern from "lbrcore.h" nogil:
    enum:
        LBRCORE_ABI_VERSION
        LBR_SLOTS
        LBR_MAX_DEPTH

    # IA32_LBR_x_INFO
    enum:
        INFO_EVENTS_SHIFT "LBR_INFO_PMCN_CNT_SHIFT"
        INFO_TYPE_SHIFT "LBR_INFO_BR_TYPE_SHIFT"
        CYC_CNT_MAX "LBR_INFO_CYC_CNT"
    const uint64_t LBR_INFO_CYC_CNT_VALID
    const uint64_t LBR_INFO_FLAGS

    enum lbr_class:
        LBR_COND, LBR_NEAR_IND_JMP, LBR_NEAR_REL_JMP, LBR_NEAR_IND_CALL, LBR_NEAR_REL_CALL
        LBR_NEAR_RET, LBR_NOT_TAKEN, LBR_ZERO_CALL, LBR_FAR_BRANCH, LBR_SYSCALL, LBR_SYSRET
        LBR_IRET, LBR_INTERRUPT, LBR_EXCEPTION, LBR_SOFT_INT, LBR_TSX_ABORT

    enum lbr_flag:
        LBR_FLAG_TSX_ABORT, LBR_FLAG_IN_TSX, LBR_FLAG_MISPRED

    enum lbr_unit:
        LBR_UNIT_BRANCHES, LBR_UNIT_INSTRUCTIONS, LBR_UNIT_CYCLES

    enum lbr_ctl:
        LBR_CTL_LBREN, LBR_CTL_OS, LBR_CTL_USR, LBR_CTL_CALL_STACK, LBR_CTL_COND
        LBR_CTL_NEAR_REL_JMP, LBR_CTL_NEAR_IND_JMP, LBR_CTL_NEAR_REL_CALL, LBR_CTL_NEAR_IND_CALL
        LBR_CTL_NEAR_RET, LBR_CTL_OTHER_BRANCH, LBR_CTL_CPL, LBR_CTL_CLASSES, LBR_CTL_ALL

    enum lbr_select:
        LBR_SELECT_CPL_EQ_0, LBR_SELECT_CPL_NEQ_0, LBR_SELECT_JCC, LBR_SELECT_NEAR_REL_CALL
        LBR_SELECT_NEAR_IND_CALL, LBR_SELECT_NEAR_RET, LBR_SELECT_NEAR_IND_JMP
        LBR_SELECT_NEAR_REL_JMP, LBR_SELECT_FAR_BRANCH, LBR_SELECT_EN_CALLSTACK, LBR_SELECT_ALL

    enum lbr_flavour:
        LBR_ARCHITECTURAL, LBR_LEGACY

    enum lbr_quirk:
        LBR_QUIRK_JMPS_INCLUDE_CALLS

    enum lbr_result:
        LBR_OK, LBR_EINVAL, LBR_GP, LBR_ENOMEM, LBR_ESHORT, LBR_ENULL, LBR_EABI, LBR_ESIZE
        LBR_ECONFIG, LBR_EMODEL, LBR_ESTATE, LBR_ENOTSUP, LBR_EIO

    ctypedef struct lbr_branch:
        uint64_t from_ "from"
        uint64_t to
        uint32_t cycles
        uint32_t instructions
        uint8_t cls
        uint8_t flags
        uint8_t cpl_from
        uint8_t cpl_to
        uint8_t events[4]

    ctypedef struct lbr_entry:
        uint64_t from_ "from"
        uint64_t to
        uint64_t info

    ctypedef struct lbr_config:
        uint8_t flavour
        uint8_t depth_bitmap
        uint8_t depth
        uint8_t linear_width
        uint8_t event_counters
        uint8_t quirks
        uint64_t ctl_mask
        uint64_t info_mask

    ctypedef struct lbr_state:
        lbr_entry ring[64]
        uint64_t accept
        uint64_t pop
        uint64_t ctl
        uint64_t cycles
        lbr_entry ler
        uint32_t head
        uint32_t depth
        uint8_t events[4]
        uint8_t event_mask
        uint8_t mode
        uint8_t active
        uint8_t from_ones
        uint8_t cycles_valid
        uint8_t enable
        uint8_t frozen
        uint8_t xinuse
        uint8_t quick
        uint16_t ler_classes
        lbr_config config

    ctypedef struct lbr_xsave_layout:
        uint32_t size[63]
        uint64_t aligned


cdef enum:
    INFO_CLASS_SHIFT = 48  # in bits 55:48 of INFO, which the manual leaves undefined
    EVENT_COUNT_MAX = 3

# What a record loop has to look at; chosen when control changes.
cdef enum lbr_mode:
    MODE_FILTERED = 1
    MODE_CALL_STACK = 2
    MODE_TIMED = 4
    MODE_EVENTS = 8
    MODE_OFF = 16

# The part of lbr_state that changes with every branch, to be held in registers.
ctypedef struct lbr_cursor:
    uint64_t cycles
    bint cycles_valid
    uint64_t events        # four counts, one byte per counter
    uint32_t head

# Everything but the class, flag, CPL and event bits that a branch may have set.
cdef extern from *:
    """
    #define LBR_META_INVALID 0x00000000FCFCF8F0ull
    #define LBR_RECORDABLE 0xFF3Fu
    """
    const uint64_t LBR_META_INVALID
    const uint64_t LBR_RECORDABLE


cdef inline uint64_t lbr_meta(const lbr_branch* branch) noexcept nogil:
    """Class, flags, CPLs and event counts of a branch in one word."""
    cdef uint64_t meta
    memcpy(&meta, &branch.cls, 8)
    return meta


cdef inline void lbr_set_meta(
    lbr_branch* branch, uint8_t cls, uint8_t flags, uint8_t cpl_from, uint8_t cpl_to
) noexcept nogil:
    """Class, flags and CPLs of a branch that logs no events."""
    branch.cls = cls
    branch.flags = flags
    branch.cpl_from = cpl_from
    branch.cpl_to = cpl_to
    branch.events[0] = branch.events[1] = branch.events[2] = branch.events[3] = 0


cdef inline uint64_t lbr_br_type(uint64_t cls) noexcept nogil:
    """BR_TYPE of a class, looked up in a word of nibbles: 0..5 as they are, then OTHER_BRANCH."""
    cdef uint64_t types = ((<uint64_t> OTHER_BRANCH_TYPE * 0x11111111) << 32) | 0x543210
    return (types >> (4 * cls)) & 15


cdef inline uint32_t lbr_table_bit(uint64_t meta) noexcept nogil:
    """Place of a branch in the truth tables: class | cpl_to << 4."""
    return <uint32_t> ((meta & 15) | ((meta >> 20) & 0x30))


cdef inline uint64_t lbr_from_ones(const lbr_state* state, uint64_t meta) noexcept nogil:
    """All ones if the branch comes out of a ring that is filtered out and hidden, else 0."""
    return -<uint64_t> ((state.from_ones >> ((meta >> 16) & 3)) & 1)


cdef inline lbr_entry* lbr_slot(lbr_state* state, uint32_t position) noexcept nogil:
    return &state.ring[position & (LBR_SLOTS - 1)]


cdef inline uint64_t lbr_add_events(uint64_t counts, uint64_t meta, uint8_t mask) noexcept nogil:
    """Add the four event counts of a branch, each saturating at EVENT_COUNT_MAX."""
    cdef uint64_t result = 0, count
    cdef int i
    for i in range(4):
        count = ((counts >> (8 * i)) & 0xFF) + ((meta >> (32 + 8 * i)) & 0xFF)
        if count > EVENT_COUNT_MAX:
            count = EVENT_COUNT_MAX
        if (mask >> i) & 1:
            result |= count << (8 * i)
    return result


cdef inline uint64_t lbr_info_events(uint64_t counts) noexcept nogil:
    """PMCn_CNT, two bits each from bit 32."""
    return ((counts & 3) | ((counts >> 6) & 0xC) | ((counts >> 12) & 0x30)
            | ((counts >> 18) & 0xC0)) << INFO_EVENTS_SHIFT


cdef inline void lbr_load_ler(lbr_state* state, uint32_t head) noexcept nogil:
    """LER takes the newest record: the last branch before an exception or interrupt."""
    cdef lbr_entry* newest = lbr_slot(state, head)
    if newest.from_ | newest.to or EMPTY_STACK_CLEARS_LER:
        state.ler.from_ = newest.from_
        state.ler.to = newest.to
        state.ler.info = newest.info & (LBR_INFO_FLAGS | (<uint64_t> 0xF << INFO_TYPE_SHIFT))


cdef inline void lbr_step(
    lbr_state* state, lbr_cursor* at, const lbr_branch* branch, const int mode
) noexcept nogil:
    """Take one branch.  No data-dependent jump but for the rare load of LER: a store that
    turns out not to count costs less than a mispredicted `if`.  The slot after the newest
    record never shows, so it may hold rubbish."""
    cdef uint64_t meta = lbr_meta(branch)
    cdef uint64_t cls = meta & 15
    cdef uint64_t accept, ones = 0, pop = 0, keep, info, cycles
    cdef uint32_t bit
    cdef lbr_entry* entry
    if cython.unlikely((state.ler_classes >> cls) & 1):
        lbr_load_ler(state, at.head)
    if mode & (MODE_FILTERED | MODE_CALL_STACK):
        bit = lbr_table_bit(meta)
        accept = (state.accept >> bit) & 1
        if state.from_ones:
            ones = lbr_from_ones(state, meta)
        if mode & MODE_CALL_STACK:
            pop = (state.pop >> bit) & 1
    else:
        accept = (LBR_RECORDABLE >> cls) & 1

    info = (meta << 53) & LBR_INFO_FLAGS
    info |= lbr_br_type(cls) << INFO_TYPE_SHIFT | cls << INFO_CLASS_SHIFT
    if mode & MODE_TIMED:
        cycles = at.cycles + branch.cycles
        at.cycles = cycles & ((accept | (pop if POP_RESTARTS_CYCLES else 0)) - 1)
        if cycles > CYC_CNT_MAX:
            cycles = CYC_CNT_MAX
        if cython.likely(at.cycles_valid):
            info |= cycles | LBR_INFO_CYC_CNT_VALID
        else:
            at.cycles_valid = <bint> accept
    if mode & MODE_EVENTS:
        at.events = lbr_add_events(at.events, meta, state.event_mask)
        info |= lbr_info_events(at.events)
        at.events &= accept - 1
    info &= state.config.info_mask

    if mode & MODE_CALL_STACK:
        # A pop uncovers a slot at the far end, which must read as empty.
        entry = lbr_slot(state, <uint32_t> (at.head - state.depth if pop else at.head + 1))
        keep = -accept
        entry.from_ = (branch.from_ | ones) & keep
        entry.to = branch.to & keep
        entry.info = info & keep
        at.head += <uint32_t> (accept - pop)
    else:
        entry = lbr_slot(state, at.head + 1)
        entry.from_ = branch.from_ | ones
        entry.to = branch.to
        entry.info = info
        at.head += <uint32_t> accept


cdef enum:
    QUICK_PLAIN = 1         # by filter
    QUICK_CALL_STACK = 2
    QUICK_ALL = 3           # every class


cdef inline void lbr_find_quick(lbr_state* state) noexcept nogil:
    """Which quick part `lbr_record` may take, if any."""
    cdef uint64_t needed = (LBR_INFO_FLAGS | LBR_INFO_CYC_CNT_VALID | CYC_CNT_MAX
                            | (<uint64_t> 0xF << INFO_TYPE_SHIFT))
    cdef uint64_t kept = needed | <uint64_t> 0xF << INFO_CLASS_SHIFT
    state.quick = 0
    if state.cycles_valid and (state.config.info_mask & kept) == needed:
        if state.mode == MODE_TIMED:
            state.quick = QUICK_ALL
        elif state.mode == MODE_FILTERED | MODE_TIMED:
            state.quick = QUICK_PLAIN
        elif state.mode == MODE_CALL_STACK | MODE_TIMED and not POP_RESTARTS_CYCLES:
            state.quick = QUICK_CALL_STACK


cdef inline lbr_cursor lbr_begin(const lbr_state* state, const int mode) noexcept nogil:
    cdef lbr_cursor at
    cdef uint32_t events = 0
    if mode & MODE_EVENTS:
        memcpy(&events, &state.events[0], 4)
    at.cycles = state.cycles
    at.cycles_valid = state.cycles_valid
    at.events = events
    at.head = state.head
    return at


cdef inline void lbr_end(lbr_state* state, const lbr_cursor* at, const int mode) noexcept nogil:
    cdef uint32_t events
    if mode & MODE_EVENTS:
        events = <uint32_t> at.events
        memcpy(&state.events[0], &events, 4)
    if mode & MODE_TIMED:
        state.cycles = at.cycles
        if cython.unlikely(state.cycles_valid != at.cycles_valid):
            state.cycles_valid = <uint8_t> at.cycles_valid
            lbr_find_quick(state)
    state.head = at.head


cdef inline void lbr_record_in(
    lbr_state* state, const lbr_branch* branch, const int mode
) noexcept nogil:
    cdef lbr_cursor at = lbr_begin(state, mode)
    lbr_step(state, &at, branch, mode)
    lbr_end(state, &at, mode)


cdef int lbr_record_rare(lbr_state* state, const lbr_branch* branch) noexcept nogil
cdef int lbr_record_any(lbr_state* state, const lbr_branch* branch) noexcept nogil


# The commonest cases have quick parts of their own (`lbr_find_quick`): recording with cycles, of
# a class that is its own BR_TYPE, within one ring.

cdef inline bint lbr_in_quick_range(const lbr_branch* branch) noexcept nogil:
    """Is it a branch that the quick parts take?  Implies `lbr_check`.  Looks at single bytes,
    which may have been stored one by one: a wider load would wait for the store buffer."""
    return (not (branch.cls | branch.flags) & ~<int> 7
            and branch.cpl_from == branch.cpl_to and branch.cpl_to < 4)


cdef inline uint64_t lbr_quick_info(const lbr_branch* branch) noexcept nogil:
    """Flags, CYC_CNT_VALID (10H) and BR_TYPE."""
    return (<uint64_t> branch.flags * 32 + branch.cls + 16) << INFO_TYPE_SHIFT


cdef inline void lbr_record_all(lbr_state* state, const lbr_branch* branch) noexcept nogil:
    """Every class.  What is no taken branch is rare, so a jump costs less than a mask, by which
    the counts of one record would wait for those of the last."""
    cdef uint64_t cycles = state.cycles + branch.cycles
    cdef lbr_entry* entry = lbr_slot(state, state.head + 1)
    entry.from_ = branch.from_
    entry.to = branch.to
    entry.info = lbr_quick_info(branch) | min(cycles, <uint64_t> CYC_CNT_MAX)
    if cython.likely(branch.cls < LBR_NOT_TAKEN):
        state.cycles = 0
        state.head += 1
    else:
        state.cycles = cycles


cdef inline void lbr_record_plain(lbr_state* state, const lbr_branch* branch) noexcept nogil:
    """By filter."""
    cdef uint64_t accept = (state.accept >> (branch.cls | branch.cpl_to << 4)) & 1
    cdef uint64_t cycles = state.cycles + branch.cycles
    cdef lbr_entry* entry = lbr_slot(state, state.head + 1)
    entry.from_ = branch.from_
    entry.to = branch.to
    entry.info = lbr_quick_info(branch) | min(cycles, <uint64_t> CYC_CNT_MAX)
    state.cycles = cycles & (accept - 1)
    state.head += <uint32_t> accept


cdef inline void lbr_record_stack(lbr_state* state, const lbr_branch* branch) noexcept nogil:
    """Call-stack mode."""
    cdef int shift = ~(branch.cls | branch.cpl_to << 4) & 63
    cdef uint64_t keep = <uint64_t> (<int64_t> (state.accept << shift) >> 63)
    cdef uint64_t pop = <uint64_t> (<int64_t> (state.pop << shift) >> 63)
    cdef uint64_t cycles = state.cycles + branch.cycles
    cdef uint32_t head = state.head
    # As in `lbr_step`: a pop clears the slot at the far end, head - depth.
    cdef lbr_entry* entry = lbr_slot(state, head + 1 + (<uint32_t> pop & ~state.depth))
    state.cycles = cycles & ~keep
    state.head = head + (<uint32_t> pop - <uint32_t> keep)
    entry.from_ = branch.from_ & keep
    entry.to = branch.to & keep
    entry.info = (lbr_quick_info(branch) | min(cycles, <uint64_t> CYC_CNT_MAX)) & keep


cdef inline int lbr_record(lbr_state* state, const lbr_branch* branch) noexcept nogil:
    """Record one branch whose fields are known to be in range (`lbr_check`); LBR_OK."""
    cdef lbr_branch copy
    if cython.likely(lbr_in_quick_range(branch)):
        if cython.likely(state.quick == QUICK_ALL):
            lbr_record_all(state, branch)
            return LBR_OK
        if state.quick == QUICK_PLAIN:
            lbr_record_plain(state, branch)
            return LBR_OK
    # The copy lets a caller's branch stay in machine registers: its address goes nowhere.  It is
    # made field by field, as a copy of the whole would be laid out before the test above.
    copy.from_ = branch.from_
    copy.to = branch.to
    copy.cycles = branch.cycles
    copy.instructions = branch.instructions
    copy.cls = branch.cls
    copy.flags = branch.flags
    copy.cpl_from = branch.cpl_from
    copy.cpl_to = branch.cpl_to
    copy.events[0] = branch.events[0]
    copy.events[1] = branch.events[1]
    copy.events[2] = branch.events[2]
    copy.events[3] = branch.events[3]
    return lbr_record_rare(state, &copy)


cdef inline bint lbr_check(const lbr_branch* branch) noexcept nogil:
    """True if class, flags and CPLs are in range."""
    return not (branch.cls & ~<int> 15 | branch.flags & ~<int> 7
                | (branch.cpl_from | branch.cpl_to) & ~<int> 3)


cdef inline bint lbr_kind_valid(uint64_t kind) noexcept nogil:
    """`lbr_check` of a kind's class, flags and CPLs (kind.pxd)."""
    return not kind & (LBR_META_INVALID & 0xFFFFFFFFu)


cdef inline uint64_t lbr_canonical(const lbr_state* state, uint64_t address) noexcept nogil:
    """Address as MSRs and XSAVE show it: bits above MAXLINADDR-1 copy bit MAXLINADDR-1."""
    cdef int shift = 64 - state.config.linear_width
    return <uint64_t> (<int64_t> (address << shift) >> shift)


cdef inline lbr_entry lbr_get(const lbr_state* state, uint32_t i) noexcept nogil:
    """Entry `i` from the newest, as it is read."""
    cdef lbr_entry entry = state.ring[(state.head - i) & (LBR_SLOTS - 1)]
    entry.from_ = lbr_canonical(state, entry.from_)
    entry.to = lbr_canonical(state, entry.to)
    return entry


cdef inline void lbr_clear(lbr_state* state) noexcept nogil:
    """Zero all records; TOS stays."""
    memset(&state.ring[0], 0, sizeof(state.ring))


# One definition each, in lbr.pyx.
cdef bint lbr_config_valid(const lbr_config* config) noexcept nogil
cdef uint32_t lbr_max_depth(const lbr_config* config) noexcept nogil
cdef lbr_state* lbr_create(const lbr_config* config) noexcept nogil
cdef int lbr_open(lbr_state** state, const lbr_config* config, size_t config_size,
                  uint32_t abi_version) noexcept nogil
cdef const char* lbr_strerror(int result) noexcept nogil
cdef void lbr_destroy(lbr_state* state) noexcept nogil
cdef void lbr_copy(lbr_state* target, const lbr_state* source) noexcept nogil
cdef void lbr_reset(lbr_state* state) noexcept nogil
cdef int lbr_read_entry(const lbr_state* state, uint32_t i, lbr_entry* entry) noexcept nogil
cdef int lbr_write_entry(lbr_state* state, uint32_t i, const lbr_entry* entry) noexcept nogil
cdef uint32_t lbr_read_records(const lbr_state* state, lbr_entry* entries) noexcept nogil
cdef void lbr_read_ler(const lbr_state* state, lbr_entry* entry) noexcept nogil
cdef void lbr_write_ler(lbr_state* state, const lbr_entry* entry) noexcept nogil


@cython.final
cdef class LbrState:
    """The LBR facility of one logical processor."""
    cdef lbr_state* state
    cdef bint borrowed      # `state` is part of `owner`
    cdef object owner


# The facility at `state`, for Python; `owner` keeps it in place.
cdef LbrState lbr_view(lbr_state* state, object owner)
