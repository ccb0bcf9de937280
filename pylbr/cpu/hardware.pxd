"""The compiled level of `pylbr.cpu.Processor`, as host and hypervisor drive it: the LBR facility,
DEBUGCTL, and the VMX transitions that touch either.  No policy, no allocation."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbrcore.lbr cimport lbr_branch, lbr_entry, lbr_state

cdef enum:
    CTL_LBREN = 0x1
    CTL_OS = 0x2
    CTL_USR = 0x4
    CTL_CALL_STACK = 0x8
    CTL_CLASSES = 0x7F0000
    CTL_ALL = 0x7F000F
    CTL_ANY = 0x7F0007          # LBREn, both rings, every class
    CTL_ANY_USR = 0x7F0005
    CTL_STACK_USR = 0x38000D    # LBREn, USR, CALL_STACK, near calls and RET
    SELECT_CPL_EQ_0 = 0x1       # MSR_LBR_SELECT: suppress the kernel's branches
    SELECT_STACK_USR = 0x3C5    # ... all but near calls and RET too; EN_CALLSTACK
    DEBUGCTL_LBR = 0x1
    DEBUGCTL_FREEZE_LBRS_ON_PMI = 0x800

# The registers of component 15, laid out as XSAVES writes them (SDM vol. 1, 13.5.12).
ctypedef struct Image:
    uint64_t ctl
    uint64_t depth
    lbr_entry ler
    lbr_entry entry[32]

# What VM entry and exit look at (SDM vol. 3, 26-27; spec 4).
ctypedef struct Vmcs:
    uint64_t debugctl           # guest-state field 2802H; loaded and saved always
    uint64_t lbr_ctl            # guest-state field 2816H
    uint8_t load_lbr_ctl        # VM-entry control 21
    uint8_t clear_lbr_ctl       # VM-exit control 26

ctypedef struct Hardware:
    lbr_state lbr
    uint64_t debugctl
    # Counters, not state
    uint64_t msr_accesses, xsaves, entries, exits

cdef void hw_set_debugctl(Hardware* hw, uint64_t value) noexcept nogil
cdef void hw_set_ctl(Hardware* hw, uint64_t value) noexcept nogil
cdef uint64_t hw_ctl(Hardware* hw) noexcept nogil
cdef void hw_write_depth(Hardware* hw, uint64_t depth) noexcept nogil
cdef void hw_clear_ler(Hardware* hw) noexcept nogil
cdef void hw_init(Hardware* hw) noexcept nogil
cdef void hw_save(Hardware* hw, Image* image) noexcept nogil
cdef void hw_restore(Hardware* hw, const Image* image) noexcept nogil
cdef void hw_save_msrs(Hardware* hw, Image* image) noexcept nogil
cdef void hw_restore_msrs(Hardware* hw, const Image* image) noexcept nogil
cdef void hw_reset_records(Hardware* hw) noexcept nogil
cdef void hw_write_entry(Hardware* hw, uint32_t i, const lbr_entry* entry) noexcept nogil
cdef void hw_peek(const Hardware* hw, Image* image) noexcept nogil
cdef void hw_vm_entry(Hardware* hw, const Vmcs* vmcs) noexcept nogil
cdef void hw_vm_exit(Hardware* hw, Vmcs* vmcs) noexcept nogil
cdef void hw_freeze(Hardware* hw) noexcept nogil
cdef bint image_empty(const Image* image) noexcept nogil
cdef void image_clear(Image* image) noexcept nogil
