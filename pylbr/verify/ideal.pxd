"""What each owner must see."""

from libc.stdint cimport uint64_t

from lbrcore.lbr cimport lbr_entry
from pylbr.arbitration.microsteps cimport Policy
from pylbr.host.perf cimport CALL_STACK, EXCLUDE_GUEST, USER_ONLY
from pylbr.verify.world cimport Ideal, World

cdef enum:
    ASKED = USER_ONLY | CALL_STACK | EXCLUDE_GUEST

cdef lbr_entry record_of(World* w, int owner, int flags) noexcept nogil
cdef void push(Ideal* ideal, const lbr_entry* entry, int flags, bint classes) noexcept nogil
cdef void written(Ideal* ideal, const lbr_entry* entry, bint whole) noexcept nogil
cdef void retire(World* w, Policy policy) noexcept nogil
cdef void keep_window(World* w, int cpu) noexcept nogil
cdef void host_window(World* w, int cpu, int task, int hosts, int filter) noexcept nogil
