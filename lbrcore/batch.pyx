"""Many branches at once.

The state after a batch depends on its last few recorded branches alone, so it is taken from
its end: backwards until `depth` records are found, each with the cycles and events since the one
before it.  In call-stack mode, going back, a call survives where the stack is lower than ever
since; and where it was `depth` or more above such a call, overflow has lost it.

`lbr_record_each` does the same branch by branch, for short batches and for comparison.
"""

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from lbrcore.lbr cimport (
    CYC_CNT_MAX, INFO_CLASS_SHIFT, INFO_TYPE_SHIFT, LBR_EINVAL, LBR_INFO_CYC_CNT_VALID,
    LBR_INFO_FLAGS, LBR_LEGACY, LBR_META_INVALID, LBR_OK, MODE_CALL_STACK, MODE_EVENTS,
    MODE_FILTERED, MODE_OFF, MODE_TIMED, lbr_add_events, lbr_begin, lbr_br_type, lbr_cursor,
    lbr_end, lbr_entry, lbr_from_ones, lbr_info_events, lbr_load_ler, lbr_meta, lbr_slot, lbr_step,
    lbr_table_bit,
)
from lbrcore.choices cimport POP_RESTARTS_CYCLES

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define lbr_fetch(p) __builtin_prefetch(p)
    #else
    #define lbr_fetch(p) ((void)(p))
    #endif
    """
    void lbr_fetch(const void* p) noexcept nogil

cdef enum:
    SHORT_BATCH = 96  # below this one by one is quicker
    AHEAD = 256       # branches; the processor's own guesses end with the page


cdef void lbr_record_each(
    lbr_state* state, const lbr_branch* branches, size_t count
) noexcept nogil:
    cdef lbr_cursor at
    cdef size_t i
    if state.mode & MODE_OFF:
        return
    at = lbr_begin(state, state.mode)
    for i in range(count):
        lbr_step(state, &at, &branches[i], state.mode)
    lbr_end(state, &at, state.mode)


# What happened since the newest record found so far, going back.
cdef struct Since:
    uint64_t cycles
    uint64_t events


cdef inline void _add(
    Since* since, const lbr_state* state, const lbr_branch* branch, uint64_t meta, const int mode
) noexcept nogil:
    if mode & MODE_TIMED:
        since.cycles += branch.cycles
    if mode & MODE_EVENTS:
        since.events = lbr_add_events(since.events, meta, state.event_mask)


cdef inline void _fill(
    lbr_state* state, lbr_entry* entry, const lbr_branch* branch, uint64_t meta, const int mode
) noexcept nogil:
    """A record but for what counts since the one before it."""
    entry.from_ = branch.from_
    if mode & (MODE_FILTERED | MODE_CALL_STACK):
        entry.from_ |= lbr_from_ones(state, meta)
    entry.to = branch.to
    entry.info = ((meta << 53) & LBR_INFO_FLAGS) | (lbr_br_type(meta & 15) << INFO_TYPE_SHIFT)
    entry.info |= (meta & 15) << INFO_CLASS_SHIFT


cdef inline void _finish(
    lbr_state* state, lbr_entry* entry, const Since* since, bint valid, const int mode
) noexcept nogil:
    """Add the counts since the record before this one, which is known if `valid`."""
    cdef uint64_t cycles = since.cycles
    if mode & MODE_TIMED and valid and state.mode & MODE_TIMED:  # `mode` may ask for too much
        if cycles > CYC_CNT_MAX:
            cycles = CYC_CNT_MAX
        entry.info |= cycles | LBR_INFO_CYC_CNT_VALID
    if mode & MODE_EVENTS:
        entry.info |= lbr_info_events(since.events)
    entry.info &= state.config.info_mask


cdef inline void _carry(lbr_state* state, Since* since) noexcept nogil:
    """Continue with what the state counted before the batch."""
    cdef uint32_t events
    memcpy(&events, &state.events[0], 4)
    since.cycles += state.cycles
    since.events = lbr_add_events(since.events, <uint64_t> events << 32, state.event_mask)


cdef inline void _keep(
    lbr_state* state, const Since* tail, bint valid, uint32_t head
) noexcept nogil:
    """Leave the batch: what counts since its newest record, and where that is."""
    cdef lbr_cursor at
    at.cycles = tail.cycles
    at.cycles_valid = valid
    at.events = tail.events
    at.head = head
    lbr_end(state, &at, state.mode)


cdef long _height_before(
    const lbr_state* state, const lbr_branch* branches, size_t count
) noexcept nogil:
    """How far the first `count` branches, whose records are gone, moved the newest one on.

    Only the legacy flavour shows it, as TOS.
    """
    cdef uint64_t accept = state.accept, pop = state.pop
    cdef long height = 0
    cdef uint32_t bit
    cdef size_t i
    if state.config.flavour == LBR_LEGACY:
        for i in range(count):
            bit = lbr_table_bit(lbr_meta(&branches[i]))
            height += <long> ((accept >> bit) & 1) - <long> ((pop >> bit) & 1)
    return height


cdef inline void _back(
    lbr_state* state, const lbr_branch* branches, size_t count, const int mode
) noexcept nogil:
    """Plain and filtered recording."""
    cdef lbr_entry found[32]
    cdef lbr_entry* entry = NULL
    cdef Since since, tail
    cdef uint64_t meta
    cdef uint32_t k = 0, i, head
    cdef bint ended = False
    memset(&since, 0, sizeof(since))
    tail = since
    while count and not ended:
        count -= 1
        meta = lbr_meta(&branches[count])
        if (state.accept >> lbr_table_bit(meta)) & 1:
            if entry == NULL:
                tail = since
            else:
                _finish(state, entry, &since, True, mode)
            memset(&since, 0, sizeof(since))
            ended = k == state.depth
            if not ended:
                entry = &found[k]
                k += 1
                _fill(state, entry, &branches[count], meta, mode)
        _add(&since, state, &branches[count], meta, mode)
    if not ended:
        _carry(state, &since)
        if entry == NULL:
            tail = since
        else:
            _finish(state, entry, &since, state.cycles_valid, mode)
    head = state.head + k + <uint32_t> _height_before(state, branches, count)
    if ended:
        head += 1  # the one that ended the search
    for i in range(k):
        lbr_slot(state, head - i)[0] = found[i]
    _keep(state, &tail, k or state.cycles_valid, head)


cdef inline void _count_since(
    lbr_state* state, const lbr_branch* branches, size_t count, Since* since, bint* valid,
    const int mode
) noexcept nogil:
    """Counts since the last record among the first `count` branches, or since the one before
    them."""
    cdef uint64_t meta
    memset(since, 0, sizeof(Since))
    valid[0] = True
    while count:
        count -= 1
        meta = lbr_meta(&branches[count])
        if (state.accept >> lbr_table_bit(meta)) & 1:
            return
        _add(since, state, &branches[count], meta, mode)
    _carry(state, since)
    valid[0] = state.cycles_valid


cdef inline void _back_call_stack(
    lbr_state* state, const lbr_branch* branches, size_t count, const int mode
) noexcept nogil:
    """Call-stack mode.  Heights are relative to the end of the batch."""
    cdef lbr_entry stack[32]
    cdef Since since, tail
    cdef uint64_t meta, accept = state.accept, pop = state.pop
    cdef long height = 0, highest = 0, lowest = 0, depth = state.depth, i, k = 0, kept
    cdef uint32_t bit
    cdef size_t at = count
    cdef bint valid, tail_valid
    _count_since(state, branches, count, &tail, &tail_valid, mode)
    while at and highest + k < depth:
        at -= 1
        meta = lbr_meta(&branches[at])
        bit = lbr_table_bit(meta)
        height += <long> ((pop >> bit) & 1) - <long> ((accept >> bit) & 1)
        highest = max(highest, height)
        if cython.unlikely(height < lowest):
            lowest = height
            _fill(state, &stack[k], &branches[at], meta, mode)
            _count_since(state, branches, at, &since, &valid, mode)
            _add(&since, state, &branches[at], meta, mode)
            _finish(state, &stack[k], &since, valid, mode)
            k += 1
    kept = max(depth - highest - k, 0) if highest + k < depth else 0
    height -= _height_before(state, branches, at)
    for i in range(k, depth):
        # Of the old stack the top `height + k` are popped and `kept` of the rest remain.
        if i - k < kept and height + i < depth:
            stack[i] = lbr_slot(state, state.head - <uint32_t> (height + i))[0]
        else:
            memset(&stack[i], 0, sizeof(lbr_entry))
    for i in range(depth):
        lbr_slot(state, state.head - <uint32_t> (height + i))[0] = stack[i]
    _keep(state, &tail, tail_valid, state.head - <uint32_t> height)


cdef void lbr_record_back(
    lbr_state* state, const lbr_branch* branches, size_t count
) noexcept nogil:
    # A constant mode makes gcc build a loop of its own for each case.
    if state.mode & MODE_OFF:
        return
    if state.mode & MODE_EVENTS:
        if state.mode & MODE_CALL_STACK:
            _back_call_stack(state, branches, count, state.mode)
        else:
            _back(state, branches, count, state.mode)
    elif state.mode & MODE_CALL_STACK:
        _back_call_stack(state, branches, count, MODE_CALL_STACK | MODE_TIMED)
    else:
        _back(state, branches, count, MODE_FILTERED | MODE_TIMED)


cdef size_t _last_event(
    const lbr_state* state, const lbr_branch* branches, size_t count
) noexcept nogil:
    """Index of the last branch that loads LER; `count` if there is none."""
    cdef size_t i
    for i in range(count):
        if (state.ler_classes >> (branches[count - 1 - i].cls)) & 1:
            return count - 1 - i
    return count


cdef void _record_event(lbr_state* state, const lbr_branch* branches, size_t at) noexcept nogil:
    """Record the branches before the event at index `at` and load LER."""
    cdef lbr_state before = state[0]
    cdef lbr_entry* newest
    lbr_record_back(state, branches, at)
    newest = lbr_slot(state, state.head)
    if not newest.from_ | newest.to:
        # This event may leave LER to an earlier one.
        state[0] = before
        lbr_record_each(state, branches, at)
    lbr_load_ler(state, state.head)


cdef uint64_t _seen(const lbr_branch* branches, size_t count) noexcept nogil:
    """All bits that the class, flags and CPLs of any branch have set."""
    cdef uint64_t seen = 0
    cdef size_t i = 0
    while i + 4 <= count:
        # Past the end of the array it does no harm.
        lbr_fetch(&branches[i + AHEAD])
        lbr_fetch(&branches[i + AHEAD + 2])
        seen |= (lbr_meta(&branches[i]) | lbr_meta(&branches[i + 1])
                 | lbr_meta(&branches[i + 2]) | lbr_meta(&branches[i + 3]))
        i += 4
    while i < count:
        seen |= lbr_meta(&branches[i])
        i += 1
    return seen


cdef int lbr_record_batch(
    lbr_state* state, const lbr_branch* branches, size_t count
) noexcept nogil:
    cdef uint64_t seen = _seen(branches, count)
    if seen & LBR_META_INVALID:
        return LBR_EINVAL
    lbr_record_seen(state, branches, count, seen)
    return LBR_OK


cdef void lbr_record_seen(
    lbr_state* state, const lbr_branch* branches, size_t count, uint64_t seen
) noexcept nogil:
    cdef size_t event
    if count < SHORT_BATCH or POP_RESTARTS_CYCLES:
        lbr_record_each(state, branches, count)
        return
    if seen & 8 and state.ler_classes:  # all classes that load LER have this bit
        event = _last_event(state, branches, count)
        if event < count:
            _record_event(state, branches, event)
            branches += event
            count -= event
    lbr_record_back(state, branches, count)
