"""The properties, each where it can be seen broken."""

from libc.stdint cimport uint32_t

from pylbr.arbitration.microsteps cimport Policy
from pylbr.cpu.hardware cimport Image
from pylbr.verify.world cimport World

cdef uint32_t check_exposure(
    World* w, Policy policy, int guest, const Image* image, bint cut, int exposure) noexcept nogil
cdef uint32_t check_sample(World* w, Policy policy, int cpu) noexcept nogil
cdef uint32_t check_invariants(World* w, Policy policy, bint xsaves) noexcept nogil
