"""States as canonical bytes, and back."""

from libc.stdint cimport uint8_t

from pylbr.arbitration.microsteps cimport Policy
from pylbr.verify.world cimport World

cdef enum:
    MAX_STATE = 1024

cdef int encode(World* w, Policy policy, uint8_t* out, bint canonical) noexcept nogil
cdef void decode(World* w, Policy policy, const uint8_t* state) noexcept nogil
