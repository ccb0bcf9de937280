"""Counting what a branch stream carries, and stopping at the branch that matters.

Knows no event and no register: a counter is a truth table over class and privilege level,
flags that must be set, and a weight.  Branches are taken in blocks: a block is counted and
recorded in one pass, and only if a counter reached its limit in it is it undone and taken again
branch by branch.
"""

from cpython.buffer cimport Py_buffer, PyBuffer_Release
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from lbrcore.buffers cimport BRANCH_FORMAT, acquire, unsigned
from lbrcore.lbr cimport (
    LBR_META_INVALID, LBR_OK, MODE_CALL_STACK, MODE_FILTERED, MODE_OFF, MODE_TIMED, LbrState,
    lbr_begin, lbr_branch, lbr_cursor, lbr_end, lbr_meta, lbr_record_batch, lbr_state, lbr_step, lbr_table_bit,
)

cdef enum:
    MAX_COUNTERS = 16
    BLOCK_BRANCHES = 1024

cdef enum weight:
    WEIGHT_BRANCH = 0
    WEIGHT_INSTRUCTIONS = 1
    WEIGHT_CYCLES = 2

ctypedef struct selector:
    uint64_t table     # places as `lbr_table_bit`, which the CPL after the branch is part of
    uint64_t levels    # places as `_place`
    uint64_t limit     # the count at which to stop
    uint64_t total
    uint64_t need      # flags that must be set
    int weight


cdef inline uint64_t _hit(uint64_t table, uint64_t need, uint64_t meta) noexcept nogil:
    """1 if the branch with class, flags and CPLs `meta` counts."""
    return ((table >> lbr_table_bit(meta)) & 1) & <uint64_t> ((meta >> 8 & need) == need)


cdef inline uint64_t _amount(const selector* s, const lbr_branch* branch) noexcept nogil:
    cdef uint64_t hit = _hit(s.table, s.need, lbr_meta(branch))
    if s.weight == WEIGHT_BRANCH:
        return hit
    return hit * (branch.instructions if s.weight == WEIGHT_INSTRUCTIONS else branch.cycles)


cdef inline uint32_t _place(uint64_t meta) noexcept nogil:
    """Place in a table over class | cpl_from << 4: fewer steps than `lbr_table_bit`, for loops
    that do not need that one anyway."""
    return <uint32_t> ((meta & 15) | ((meta >> 12) & 0x30))


cdef inline uint64_t _loop(
    lbr_state* state, const selector* s, const lbr_branch* branches, size_t n, uint64_t* seen,
    const int mode, const int weight
) noexcept nogil:
    """Record `n` branches; what they add to a counter that needs no flag."""
    cdef lbr_cursor at = lbr_begin(state)
    cdef uint64_t table = s.table, levels = s.levels, total = 0, bits = 0, meta, hit
    cdef size_t i
    for i in range(n):
        meta = lbr_meta(&branches[i])
        bits |= meta
        if mode & (MODE_FILTERED | MODE_CALL_STACK):
            hit = (table >> lbr_table_bit(meta)) & 1
        else:
            hit = (levels >> _place(meta)) & 1
        if weight == WEIGHT_BRANCH:
            total += hit
        elif weight == WEIGHT_INSTRUCTIONS:
            total += branches[i].instructions & -hit
        else:
            total += branches[i].cycles & -hit
        lbr_step(state, &at, &branches[i], mode)
    lbr_end(state, &at)
    seen[0] |= bits
    return total


cdef inline uint64_t _weighed(
    lbr_state* state, const selector* s, const lbr_branch* branches, size_t n, uint64_t* seen,
    const int mode
) noexcept nogil:
    if s.weight == WEIGHT_BRANCH:
        return _loop(state, s, branches, n, seen, mode, WEIGHT_BRANCH)
    if s.weight == WEIGHT_INSTRUCTIONS:
        return _loop(state, s, branches, n, seen, mode, WEIGHT_INSTRUCTIONS)
    return _loop(state, s, branches, n, seen, mode, WEIGHT_CYCLES)


cdef uint64_t _record(
    lbr_state* state, const selector* s, const lbr_branch* branches, size_t n, uint64_t* seen
) noexcept nogil:
    """`_loop`; constant modes and weights make gcc build a loop of its own for each case."""
    if state.mode == 0:
        return _weighed(state, s, branches, n, seen, 0)
    if state.mode == MODE_TIMED:
        return _weighed(state, s, branches, n, seen, MODE_TIMED)
    if state.mode == MODE_FILTERED:
        return _weighed(state, s, branches, n, seen, MODE_FILTERED)
    if state.mode == MODE_FILTERED | MODE_TIMED:
        return _weighed(state, s, branches, n, seen, MODE_FILTERED | MODE_TIMED)
    if state.mode == MODE_CALL_STACK:
        return _weighed(state, s, branches, n, seen, MODE_CALL_STACK)
    if state.mode == MODE_CALL_STACK | MODE_TIMED:
        return _weighed(state, s, branches, n, seen, MODE_CALL_STACK | MODE_TIMED)
    return _weighed(state, s, branches, n, seen, state.mode)


cdef uint64_t _sum(const selector* s, const lbr_branch* branches, size_t n) noexcept nogil:
    """What `n` branches add to one counter."""
    cdef uint64_t total = 0
    cdef size_t i
    for i in range(n):
        total += _amount(s, &branches[i])
    return total


cdef size_t _until(
    selector* selectors, int counters, const lbr_branch* branches, size_t n
) noexcept nogil:
    """Add branches to the totals up to and with the first that brings one to its limit."""
    cdef size_t i
    cdef int c
    cdef bint reached = False
    for i in range(n):
        for c in range(counters):
            selectors[c].total += _amount(&selectors[c], &branches[i])
            reached |= selectors[c].total >= selectors[c].limit
        if reached:
            return i + 1
    return n


cdef int _block(
    lbr_state* state, const lbr_branch* branches, size_t n, selector* selectors, int counters
) noexcept nogil:
    """Count and record a block.  1: done; 0: a limit lies within it; -1: a branch is out of
    range.  Unless done, nothing has changed."""
    cdef uint64_t[MAX_COUNTERS] sums
    cdef lbr_state before
    cdef uint64_t seen = 0
    cdef int c = 0, first = 0, result = 1
    if state != NULL:
        before = state[0]
        if counters and selectors[0].need == 0 and not state.mode & MODE_OFF:
            sums[0] = _record(state, &selectors[0], branches, n, &seen)
            first = 1
            result = -1 if seen & LBR_META_INVALID else 1
        elif lbr_record_batch(state, branches, n) != LBR_OK:
            result = -1
    for c in range(first, counters):
        sums[c] = _sum(&selectors[c], branches, n)
    for c in range(counters):
        if result == 1 and selectors[c].total + sums[c] >= selectors[c].limit:
            result = 0
    if result != 1:
        if state != NULL:
            state[0] = before
        return result
    for c in range(counters):
        selectors[c].total += sums[c]
    return 1


cdef int64_t _run(
    lbr_state* state, const lbr_branch* branches, size_t count, selector* selectors, int counters
) noexcept nogil:
    """Branches taken, or -1 if one is out of range (those before its block are recorded)."""
    cdef size_t at = 0, n, taken
    cdef int result
    while at < count:
        n = min(count - at, <size_t> BLOCK_BRANCHES)
        result = _block(state, &branches[at], n, selectors, counters)
        if result < 0:
            return -1
        if result == 0:
            taken = _until(selectors, counters, &branches[at], n)
            if state != NULL and lbr_record_batch(state, &branches[at], taken) != LBR_OK:
                return -1
            return <int64_t> (at + taken)
        at += n
    return <int64_t> at


cdef int _fill(selector* selectors, object rows, object limits) except -1:
    cdef int c
    cdef uint64_t both, user
    if len(rows) > MAX_COUNTERS or len(rows) != len(limits):
        raise ValueError(f"selectors: {len(rows)} with {len(limits)} limits; must be as many "
                         f"as those, {MAX_COUNTERS} at most")
    for c in range(<int> len(rows)):
        table, need, weight = rows[c]
        both = unsigned(table, "table", 0xFFFFFFFF)
        user = both >> 16
        selectors[c].table = both | both << 32
        selectors[c].levels = both | user << 32 | user << 48
        selectors[c].need = unsigned(need, "need", 7)
        selectors[c].weight = <int> unsigned(weight, "weight", WEIGHT_CYCLES)
        selectors[c].limit = unsigned(limits[c], "limits", <uint64_t> -1)
        selectors[c].total = 0
        if selectors[c].limit == 0:
            raise ValueError("limits: must be above 0")
    return 0


def count(branches not None, selectors not None, limits not None, *, start=0, LbrState state=None):
    cdef selector[MAX_COUNTERS] bank
    cdef Py_buffer view
    cdef int64_t taken
    cdef int c, counters = <int> len(selectors)
    cdef size_t first
    cdef lbr_state* target = NULL if state is None else state.state
    _fill(bank, selectors, limits)
    acquire(branches, &view, "branches", BRANCH_FORMAT, sizeof(lbr_branch),
            "lbrcore.BRANCH_DTYPE", False)
    try:
        first = <size_t> unsigned(start, "start", <uint64_t> view.shape[0])
        with nogil:
            taken = _run(target, <const lbr_branch*> view.buf + first,
                         <size_t> view.shape[0] - first, bank, counters)
        if taken < 0:
            raise ValueError("branches: a class, flag or CPL is out of range")
    finally:
        PyBuffer_Release(&view)
    return start + taken, tuple([bank[c].total for c in range(counters)])
