"""What every branch recorder of this package offers to C.

Thread rule: as for `lbr_state`, one thread at a time.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbrcore.lbr cimport lbr_branch, lbr_entry

cdef enum:
    MOST_RECORDS = 256


cdef class BranchFacility:
    cdef uint32_t levels    # bitmap of the values that cpl_from and cpl_to may have

    # Record branches that are in range, oldest first.
    cdef void take(self, const lbr_branch* branches, size_t count) noexcept nogil
    # All records, newest first, INFO as IA32_LBR_x_INFO with the class in 51:48; their number.
    cdef uint32_t give(self, lbr_entry* entries) noexcept nogil
    # The same in the layout of the facility's own registers.
    cdef uint32_t give_raw(self, lbr_entry* entries) noexcept nogil
    cdef void forget(self) noexcept nogil
    cdef uint32_t count(self) noexcept nogil
    cdef int check(self, const lbr_branch* branches, size_t count) except -1


# INFO of a record in the layout of IA32_LBR_x_INFO.
cdef uint64_t common_info(uint8_t cls, bint mispredicted, bint transaction, bint timed,
                          uint64_t cycles) noexcept nogil
