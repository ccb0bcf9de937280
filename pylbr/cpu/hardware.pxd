"""The compiled level of `pylbr.cpu.Processor`, as host and hypervisor drive it: the LBR facility,
DEBUGCTL, and the VMX transitions that touch either.  No policy, no allocation."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbrcore.lbr cimport LbrState, lbr_branch, lbr_entry, lbr_state
from pylbr.arch.bits cimport (
    CTL_CALL_STACK, CTL_CLASSES, CTL_CPL, CTL_LBREN, CTL_NEAR_IND_CALL, CTL_NEAR_REL_CALL,
    CTL_NEAR_RET, CTL_USR, SELECT_CPL_EQ_0, SELECT_EN_CALLSTACK, SELECT_FAR_BRANCH, SELECT_JCC,
    SELECT_NEAR_IND_JMP, SELECT_NEAR_REL_JMP,
)

# What perf and the hypervisors set, of bits that `pylbr.arch.bits` has.
cdef enum:
    CTL_ANY = CTL_LBREN | CTL_CPL | CTL_CLASSES
    CTL_ANY_USR = CTL_LBREN | CTL_USR | CTL_CLASSES
    CTL_STACK_USR = (CTL_LBREN | CTL_USR | CTL_CALL_STACK | CTL_NEAR_REL_CALL | CTL_NEAR_IND_CALL
                     | CTL_NEAR_RET)
    SELECT_STACK_USR = (SELECT_CPL_EQ_0 | SELECT_JCC | SELECT_NEAR_IND_JMP | SELECT_NEAR_REL_JMP
                        | SELECT_FAR_BRANCH | SELECT_EN_CALLSTACK)

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


# The same for Python, over the facility of a `Processor`.
@cython.final
cdef class Facility:
    cdef readonly LbrState lbr
    cdef readonly uint64_t debugctl
    cdef bint switched


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
