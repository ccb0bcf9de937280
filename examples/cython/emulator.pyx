# cython: language_level=3
"""A random walk over a call graph, recorded by the facility without leaving C.

The record path is inlined from lbrcore's .pxd: no call, no lock, no Python object a branch.
"""

from libc.stdint cimport uint64_t

from lbrcore.lbr cimport (
    LBR_COND, LBR_NEAR_REL_JMP, LbrState, lbr_branch, lbr_record, lbr_set_meta, lbr_state,
)


def walk(LbrState facility, uint64_t steps, uint64_t seed=1):
    """Run `steps` branches of a made-up program at CPL 3.

    Returns
    -------
    int
        Address that the last branch went to.
    """
    cdef lbr_state* state = facility.state
    cdef lbr_branch branch
    cdef uint64_t place = 0x401000, _
    branch.cycles = branch.instructions = 4
    with nogil:
        for _ in range(steps):
            seed = seed * <uint64_t> 6364136223846793005 + <uint64_t> 1442695040888963407
            lbr_set_meta(&branch, LBR_COND if seed >> 63 else LBR_NEAR_REL_JMP, 0, 3, 3)
            branch.from_ = place
            place = 0x401000 + (seed >> 52)
            branch.to = place
            lbr_record(state, &branch)
    return place


def walk_unrecorded(uint64_t steps, uint64_t seed=1):
    """The same walk without the facility: what the walk itself costs."""
    cdef uint64_t place = 0x401000, sink = 0, _
    with nogil:
        for _ in range(steps):
            seed = seed * <uint64_t> 6364136223846793005 + <uint64_t> 1442695040888963407
            sink ^= place << (seed >> 63)
            place = 0x401000 + (seed >> 52)
    return place, sink
