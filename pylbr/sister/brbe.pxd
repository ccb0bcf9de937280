"""Arm's branch record buffer: its state."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbrcore.lbr cimport lbr_entry

from pylbr.sister.facility cimport BranchFacility

ctypedef struct brbe_state:
    lbr_entry ring[64]      # BRBSRC, BRBTGT, BRBINF; record i lies in (head - i) % records
    lbr_entry injected      # BRBSRCINJ, BRBTGTINJ, BRBINFINJ
    uint64_t control[2]     # BRBCR_EL1, BRBCR_EL2
    uint64_t function       # BRBFCR_EL1
    uint64_t time           # BRBTS_EL1
    uint64_t cycles         # since the last record, at most 2**20
    uint64_t wanted         # bit per class: filters let it pass
    uint32_t head
    uint32_t records
    uint8_t allowed         # bit per EL: not a prohibited region
    uint8_t exceptions      # bit per EL: exceptions to it make records
    uint8_t returns         # bit per EL: exception returns from it do
    uint8_t counting        # cycle counts are on
    uint8_t mispredicts     # mispredicts are on
    uint8_t known           # `cycles` counts from a record
    uint8_t host            # HCR_EL2.TGE


cdef class BrbeState(BranchFacility):
    cdef brbe_state state
    cdef object _config
    cdef dict _rows         # number -> (row, n)
    cdef uint64_t info_mask, control_mask, function_mask
