"""Branch predictors as models: gshare (McFarling 1993) and a small TAGE (Seznec 2006).

They fill in MISPRED where a trace has none, so that consumers of that bit can be tried.  No
claim is made that any processor predicts so.  `predictor_reference` is the plain twin.
"""

cimport cython
from cpython.buffer cimport Py_buffer, PyBuffer_Release
from libc.stdlib cimport calloc, free

from lbrcore.buffers cimport BRANCH_FORMAT, acquire
from lbrcore.lbr cimport (
    LBR_COND, LBR_FLAG_MISPRED, LBR_NEAR_IND_CALL, LBR_NEAR_IND_JMP, LBR_NEAR_REL_CALL,
    LBR_NEAR_RET, LBR_NOT_TAKEN,
)

cdef uint32_t* LENGTHS = [4, 10, 24, 60]
cdef enum:
    LONGEST_BRANCH = 15  # bytes of an instruction


cdef inline uint32_t mix(uint64_t address) noexcept nogil:
    """Address bits that differ between neighbouring branches."""
    return <uint32_t> (address ^ (address >> 12))


cdef inline uint32_t fold(uint64_t history, uint32_t length, uint32_t bits) noexcept nogil:
    """The newest `length` directions in `bits` bits."""
    cdef uint64_t rest = history & ((<uint64_t> 1 << length) - 1)
    cdef uint32_t result = 0
    while rest:
        result ^= <uint32_t> (rest & ((1 << bits) - 1))
        rest >>= bits
    return result


cdef inline uint8_t nudge(uint8_t counter, bint taken) noexcept nogil:
    if taken:
        return <uint8_t> (counter + (counter < 3))
    return <uint8_t> (counter - (counter > 0))


cdef inline bint gshare_step(predictor_state* state, uint64_t address, bint taken) noexcept nogil:
    """Predict, learn; True if the prediction was wrong."""
    cdef uint32_t mask = (1 << GSHARE_BITS) - 1
    cdef uint32_t i = (mix(address) ^ <uint32_t> (state.history & mask)) & mask
    cdef bint predicted = state.counters[i] >= 2
    state.counters[i] = nudge(state.counters[i], taken)
    return predicted != taken


cdef void tage_allocate(predictor_state* state, tagged_entry** row, const uint16_t* tag,
                        int first, bint taken) noexcept nogil:
    """After a wrong prediction, one table with a longer history takes the branch over."""
    cdef int t
    for t in range(first, TABLES):
        if row[t].useful == 0:
            row[t].tag, row[t].counter = tag[t], 0 if taken else -1
            return
    for t in range(first, TABLES):
        row[t].useful -= 1


cdef bint tage_step(predictor_state* state, uint64_t address, bint taken) noexcept nogil:
    """Predict, learn; True if the prediction was wrong."""
    cdef tagged_entry* row[TABLES]
    cdef uint16_t tag[TABLES]
    cdef uint32_t place = mix(address), base = place & ((1 << BASE_BITS) - 1)
    cdef int t, provider = -1, other = -1
    cdef bint predicted, alternative
    for t in range(TABLES):
        row[t] = &state.tables[t][
            (place ^ (place >> (t + 1)) ^ fold(state.history, LENGTHS[t], TAGGED_BITS))
            & ((1 << TAGGED_BITS) - 1)]
        tag[t] = <uint16_t> (
            (place ^ (fold(state.history, LENGTHS[t], TAG_BITS - 1) << 1))
            & ((1 << TAG_BITS) - 1)) + 1  # 0 is an empty entry's
        if row[t].tag == tag[t]:
            other, provider = provider, t
    alternative = row[other].counter >= 0 if other >= 0 else state.counters[base] >= 2
    if provider < 0:
        predicted = alternative
        state.counters[base] = nudge(state.counters[base], taken)
    else:
        predicted = row[provider].counter >= 0
        if predicted != alternative:
            row[provider].useful = nudge(row[provider].useful, predicted == taken)
        if taken:
            row[provider].counter = <int8_t> min(row[provider].counter + 1, 3)
        else:
            row[provider].counter = <int8_t> max(row[provider].counter - 1, -4)
    if predicted != taken:
        tage_allocate(state, row, tag, provider + 1, taken)
    return predicted != taken


cdef inline bint indirect_step(predictor_state* state, const lbr_branch* branch) noexcept nogil:
    """The last target under the same path of targets."""
    cdef uint32_t i = (mix(branch.from_) ^ <uint32_t> state.path) & ((1 << INDIRECT_BITS) - 1)
    cdef bint wrong = state.targets[i] != branch.to
    state.targets[i] = branch.to
    state.path = (state.path << 3) ^ mix(branch.to)
    return wrong


cdef inline bint return_step(predictor_state* state, uint64_t to) noexcept nogil:
    """A return is predicted if it returns to the instruction after the newest call."""
    state.top = (state.top - 1) % STACK_DEPTH
    cdef uint64_t distance = to - state.calls[state.top]
    return distance == 0 or distance > LONGEST_BRANCH


cdef bint predictor_step(predictor_state* state, const lbr_branch* branch) noexcept nogil:
    """Predict a branch, learn how it went; True if the prediction was wrong."""
    cdef bint wrong = False, taken
    cdef uint8_t cls = branch.cls
    if cls == LBR_COND or cls == LBR_NOT_TAKEN:
        taken = cls == LBR_COND
        if state.tage:
            wrong = tage_step(state, branch.from_, taken)
        else:
            wrong = gshare_step(state, branch.from_, taken)
        state.history = (state.history << 1) | taken
    elif cls == LBR_NEAR_IND_JMP or cls == LBR_NEAR_IND_CALL:
        wrong = indirect_step(state, branch)
    elif cls == LBR_NEAR_RET:
        wrong = return_step(state, branch.to)
    if cls == LBR_NEAR_REL_CALL or cls == LBR_NEAR_IND_CALL:
        state.calls[state.top] = branch.from_
        state.top = (state.top + 1) % STACK_DEPTH
    return wrong


@cython.final
cdef class Predictor:
    """Predictor(kind='tage')\n--\n
    A model of a branch predictor: directions, indirect targets, returns.

    Parameters
    ----------
    kind : str
        ``gshare``: 2**14 two-bit counters, 14 directions of history.  ``tage``: a base of
        2**13 counters and four tagged tables of 2**10 with 4, 10, 24 and 60 directions.
        Both: 2**10 last targets of indirect branches by path, and a stack of 16 calls.

    Notes
    -----
    An instance is used by one thread at a time.
    """

    cdef predictor_state* state

    def __cinit__(self, str kind="tage"):
        if kind not in ("gshare", "tage"):
            raise ValueError(f"kind: gshare or tage, not {kind!r}")
        self.state = <predictor_state*> calloc(1, sizeof(predictor_state))
        if self.state == NULL:
            raise MemoryError
        self.state.tage = kind == "tage"

    def __dealloc__(self):
        free(self.state)

    def mark(self, branches not None):
        """Set or clear MISPRED in `flags` of each branch, in place; how many were wrong.

        Parameters
        ----------
        branches : writable buffer of BRANCH_DTYPE, shape (n,), C-contiguous, oldest first
            With NOT_TAKEN branches: half of what a predictor of directions lives on.

        Raises
        ------
        TypeError, ValueError
            As `LbrState.record`; also if the buffer is read-only.
        """
        cdef Py_buffer view
        cdef Py_ssize_t i, count, wrong = 0
        cdef lbr_branch* branch
        acquire(branches, &view, "branches", BRANCH_FORMAT, sizeof(lbr_branch),
                "lbrcore.BRANCH_DTYPE", True)
        try:
            count = view.shape[0]
            branch = <lbr_branch*> view.buf
            with nogil:
                for i in range(count):
                    if predictor_step(self.state, &branch[i]):
                        branch[i].flags |= LBR_FLAG_MISPRED
                        wrong += 1
                    else:
                        branch[i].flags &= <uint8_t> ~LBR_FLAG_MISPRED
        finally:
            PyBuffer_Release(&view)
        return wrong
