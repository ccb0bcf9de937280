"""IA32_DEBUGCTL and the facility: what every form of the processor has in common.

`switched`: IA32_DEBUGCTL.LBR switches the facility, as with Intel's legacy LBRs; with architectural
ones the bit has no meaning (spec 1.7).
"""

from libc.stdint cimport uint64_t

from lbrcore.control cimport lbr_set_enable, lbr_set_frozen
from lbrcore.lbr cimport lbr_state
from pylbr.arch.bits cimport DEBUGCTL_FREEZE_LBRS_ON_PMI, DEBUGCTL_LBR


cdef inline void lbr_set_debugctl(
    lbr_state* lbr, uint64_t* debugctl, bint switched, uint64_t value
) noexcept nogil:
    """WRMSR IA32_DEBUGCTL."""
    debugctl[0] = value
    if switched:
        lbr_set_enable(lbr, value & DEBUGCTL_LBR)


cdef inline bint lbr_freeze(
    lbr_state* lbr, uint64_t* debugctl, bint switched, bint streamlined
) noexcept nogil:
    """A PMI with FREEZE_LBRS_ON_PMI set (spec 1.6); whether LBR_FRZ is set by it.

    A PMU of version 4 up sets LBR_FRZ (`streamlined`), an older one clears DEBUGCTL.LBR.
    """
    if not debugctl[0] & DEBUGCTL_FREEZE_LBRS_ON_PMI:
        return False
    if streamlined:
        lbr_set_frozen(lbr, 1)
        return True
    if switched:
        lbr_set_debugctl(lbr, debugctl, switched, debugctl[0] & ~<uint64_t> DEBUGCTL_LBR)
    return False
