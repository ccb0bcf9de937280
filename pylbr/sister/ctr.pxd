"""RISC-V's control transfer records: their state."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from lbrcore.lbr cimport lbr_entry

from pylbr.sister.facility cimport BranchFacility

ctypedef struct ctr_state:
    lbr_entry ring[256]     # ctrsource, ctrtarget, ctrdata, by physical index
    uint64_t machine        # mctrctl; sctrctl is a part of it
    uint64_t guest          # vsctrctl
    uint64_t cycles         # CtrCycleCounter
    uint64_t most_cycles    # where it saturates
    uint32_t depth
    uint32_t next           # sctrstatus.WRPTR
    uint16_t select         # siselect, vsiselect
    uint16_t guest_select
    uint8_t frozen
    uint8_t valid           # the next record has CCV = 1
    uint8_t enabled         # bit per level of cpl_from and cpl_to: the mode is enabled
    uint8_t misp            # these fields exist
    uint8_t timed


cdef class CtrState(BranchFacility):
    cdef ctr_state state
    cdef object _config
    cdef dict _rows         # number -> row
    cdef uint64_t machine_mask, supervisor_mask, guest_mask, data_mask
    # The entry that siselect or vsiselect names; NULL where none lies
    cdef lbr_entry* selected(self, bint guest) except? NULL
