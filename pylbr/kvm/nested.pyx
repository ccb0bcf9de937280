"""Nested VM entry and exit on a vCPU.

The records have no VMCS field: L1 and L2 share them, and L1 has to keep them apart.
L0 switches the control register.  Architectural: without controls 21 and 26 in vmcs12, L2 keeps
L1's IA32_LBR_CTL and L1 keeps L2's; with them L2 has its own and L1 finds 0.  Legacy: the
debug controls in vmcs12 decide whether L2 has its own IA32_DEBUGCTL.  L1 always finds IA32_DEBUGCTL
0 (spec 4).
`pylbr.cpu.nested` is the same on whole VMCSs.
"""

from libc.stdint cimport uint64_t

from pylbr.kvm.vcpu cimport LEVEL1, LEVEL2, LEVEL2_CONTROLS


cdef void nested_entry(Vcpu* v, bint controls, bint legacy, bint keep=False) noexcept nogil:
    """VMLAUNCH or VMRESUME of L1 succeeds; `keep` leaves entry control 21 out."""
    cdef uint64_t* control = &v.debugctl if legacy else &v.ctl
    v.level2 = LEVEL2_CONTROLS if controls else LEVEL2
    if controls and not keep:
        control[0] = v.vmcs12.control


cdef void nested_exit(Vcpu* v, bint legacy, bint keep=False) noexcept nogil:
    """L2 exits to L1; `keep` leaves exit control 26 out."""
    cdef uint64_t* control = &v.debugctl if legacy else &v.ctl
    cdef bint controls = v.level2 == LEVEL2_CONTROLS
    if controls or not legacy:  # VM_EXIT_ALWAYS_SAVES_LBR_CTL of pylbr.arch.choices
        v.vmcs12.control = control[0]
    if (legacy or controls) and not keep:
        control[0] = 0
    v.debugctl = 0
    v.level2 = LEVEL1
