"""Counting what a branch stream carries, and stopping at the branch that matters.

Knows no event and no register: a counter is a truth table over class and privilege level, flags
that must be set, and a weight.  Branches are counted in blocks; only the block in which a counter
reaches its limit is gone through again branch by branch.
"""

from cpython.buffer cimport Py_buffer, PyBuffer_Release
from libc.stdint cimport int64_t, uint64_t

from lbrcore.batch cimport lbr_record_seen
from lbrcore.buffers cimport BRANCH_FORMAT, acquire, unsigned
from lbrcore.lbr cimport LBR_META_INVALID, LbrState, lbr_branch, lbr_meta, lbr_state

cdef enum:
    MAX_COUNTERS = 16
    BLOCK_BRANCHES = 256

cdef enum weight:
    WEIGHT_BRANCH = 0
    WEIGHT_INSTRUCTIONS = 1
    WEIGHT_CYCLES = 2

ctypedef struct selector:
    uint64_t table     # bit: class | cpl_from << 4
    uint64_t limit     # the count at which to stop
    uint64_t total
    uint64_t need      # flags that must be set
    int weight


cdef inline uint64_t _hit(const selector* s, uint64_t meta) noexcept nogil:
    """1 if the branch with class, flags and CPLs `meta` counts, but for its flags."""
    return (s.table >> ((meta & 15) | ((meta >> 12) & 0x30))) & 1


cdef inline uint64_t _amount(
    const selector* s, const lbr_branch* branch, const int weight, const bint flags
) noexcept nogil:
    cdef uint64_t meta = lbr_meta(branch), hit = _hit(s, meta)
    if flags:
        hit &= <uint64_t> ((meta >> 8 & s.need) == s.need)
    if weight == WEIGHT_BRANCH:
        return hit
    return (branch.instructions if weight == WEIGHT_INSTRUCTIONS else branch.cycles) & -hit


cdef inline uint64_t _loop(
    const selector* s, const lbr_branch* branches, size_t n, uint64_t* seen, const int weight,
    const bint flags
) noexcept nogil:
    cdef uint64_t total = 0, bits = 0
    cdef size_t i
    for i in range(n):
        bits |= lbr_meta(&branches[i])
        total += _amount(s, &branches[i], weight, flags)
    seen[0] |= bits
    return total


cdef uint64_t _sum(
    const selector* s, const lbr_branch* branches, size_t n, uint64_t* seen
) noexcept nogil:
    """What `n` branches add to one counter; constants make gcc build a loop for each case."""
    cdef bint flags = s.need != 0
    if s.weight == WEIGHT_BRANCH:
        if flags:
            return _loop(s, branches, n, seen, WEIGHT_BRANCH, True)
        return _loop(s, branches, n, seen, WEIGHT_BRANCH, False)
    if s.weight == WEIGHT_INSTRUCTIONS:
        return _loop(s, branches, n, seen, WEIGHT_INSTRUCTIONS, flags)
    return _loop(s, branches, n, seen, WEIGHT_CYCLES, flags)


cdef size_t _until(
    selector* selectors, int counters, const lbr_branch* branches, size_t n
) noexcept nogil:
    """Add branches to the totals up to and with the first that brings one to its limit."""
    cdef size_t i
    cdef int c
    cdef bint reached = False
    for i in range(n):
        for c in range(counters):
            selectors[c].total += _amount(
                &selectors[c], &branches[i], selectors[c].weight, selectors[c].need != 0)
            reached |= selectors[c].total >= selectors[c].limit
        if reached:
            return i + 1
    return n


cdef bint _add_block(
    selector* selectors, int counters, const lbr_branch* branches, size_t n, uint64_t* seen
) noexcept nogil:
    """Add a whole block, or nothing and False if a limit lies within it."""
    cdef uint64_t[MAX_COUNTERS] sums
    cdef int c
    for c in range(counters):
        sums[c] = _sum(&selectors[c], branches, n, seen)
        if selectors[c].total + sums[c] >= selectors[c].limit:
            return False
    for c in range(counters):
        selectors[c].total += sums[c]
    return True


cdef int64_t _run(
    lbr_state* state, const lbr_branch* branches, size_t count, selector* selectors, int counters
) noexcept nogil:
    """Branches taken, or -1 if one of those looked at is out of range; then nothing happened."""
    cdef size_t at = 0, n
    cdef uint64_t seen = 0
    while at < count:
        n = min(count - at, <size_t> BLOCK_BRANCHES)
        if not _add_block(selectors, counters, &branches[at], n, &seen):
            at += _until(selectors, counters, &branches[at], n)
            break
        at += n
    if seen & LBR_META_INVALID:
        return -1
    if state != NULL:
        lbr_record_seen(state, branches, at, seen)
    return <int64_t> at


cdef int _fill(selector* selectors, object rows, object limits) except -1:
    cdef int c
    cdef uint64_t both, user
    if not 1 <= len(rows) <= MAX_COUNTERS or len(rows) != len(limits):
        raise ValueError(f"selectors: {len(rows)} with {len(limits)} limits; must be as many "
                         f"as those, 1 to {MAX_COUNTERS}")
    for c in range(<int> len(rows)):
        table, need, weight = rows[c]
        both = unsigned(table, "table", 0xFFFFFFFF)
        user = both >> 16
        selectors[c].table = both | user << 32 | user << 48
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
