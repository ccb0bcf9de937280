"""A vCPU as the hypervisor keeps it, between two VM entries."""

from libc.stdint cimport uint8_t, uint64_t

from pylbr.cpu.hardware cimport Image, Vmcs

# Vcpu.level2
cdef enum:
    LEVEL1 = 0
    LEVEL2 = 1                  # L2 runs with L1's control register
    LEVEL2_CONTROLS = 2         # ... with its own, by the VM-entry and VM-exit controls of vmcs12

ctypedef struct Vmcs12:         # what L1 has written for its guest, as far as LBRs go
    uint64_t control            # guest field: IA32_LBR_CTL, or IA32_DEBUGCTL with legacy LBRs
    uint64_t debugctl           # guest field IA32_DEBUGCTL with architectural LBRs

ctypedef struct Vcpu:
    Vmcs vmcs
    Image image                 # the guest's records, while they are not in the registers
    uint64_t ctl                # the guest's control: IA32_LBR_CTL, or MSR_LBR_SELECT
    uint64_t debugctl           # the guest's IA32_DEBUGCTL
    uint64_t smm_ctl            # IA32_LBR_CTL as saved by an SMI
    uint8_t loaded              # 1 + CPU between vcpu_load and vcpu_put
    uint8_t uses                # the guest has touched an LBR register
    uint8_t passthrough         # the records' MSRs are not intercepted
    uint8_t xss_exit            # XSAVES and XRSTORS of component 15 exit (XSS-exiting bitmap)
    uint8_t lost                # records were lost since the guest last reset them
    uint8_t cleanup             # the vPMU is to be cleaned up at the next safe point
    uint8_t smm                 # in system management mode
    uint8_t pmi                 # a counter of the guest has overflowed; inject at the next entry
    uint8_t frozen              # LBR_FRZ in the guest's IA32_PERF_GLOBAL_STATUS
    uint8_t pebs_lbrs           # MSR_PEBS_DATA_CFG.LBRS stays as the guest has set it
    uint8_t level2              # an L2 guest runs, and how
    Vmcs12 vmcs12
    uint64_t other_ctl          # IA32_LBR_CTL in whichever of vmcs01 and vmcs02 is not loaded
    uint64_t snapshot           # the host's control register, to be put back after the exit
