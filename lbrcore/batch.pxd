"""Many branches at once, for Cython; no allocation, no Python object, no GIL."""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from lbrcore.lbr cimport lbr_branch, lbr_state

# Record all branches, or none if one of them is out of range: LBR_OK or LBR_EINVAL.
cdef int lbr_record_batch(
    lbr_state* state, const lbr_branch* branches, size_t count) noexcept nogil

# The same; all are in range, and `seen` has at least the bits that any class has set.
cdef void lbr_record_seen(
    lbr_state* state, const lbr_branch* branches, size_t count, uint64_t seen) noexcept nogil

# The same one by one; the branches are known to be in range.
cdef void lbr_record_each(
    lbr_state* state, const lbr_branch* branches, size_t count) noexcept nogil

# The same from the newest backwards, as far as records still show; LER is not loaded.
cdef void lbr_record_back(
    lbr_state* state, const lbr_branch* branches, size_t count) noexcept nogil
