"""IA32_DEBUGCTL of a guest with VMX: which bits it may write, what it reads, what the VMCS holds.

Rules of KVM since 2025 (vmx.c: vmx_get_supported_debugctl, vmx_is_valid_debugctl; vmx.h:
vmx_guest_debugctl_write, vmx_guest_debugctl_read; nested.c: nested_vmx_check_guest_state):
FREEZE_WHILE_SMM is the host's, kept while the guest runs and never shown to it; RTM_DEBUG goes with
RTM; BTF, and LBR where it is not offered, are dropped without a fault; any other bit faults.
"""

from __future__ import annotations

from dataclasses import dataclass

from pylbr.arch.bits import (
    DEBUGCTL_BLD,
    DEBUGCTL_BTF,
    DEBUGCTL_FREEZE_LBRS_ON_PMI,
    DEBUGCTL_FREEZE_WHILE_SMM,
    DEBUGCTL_LBR,
    DEBUGCTL_RTM_DEBUG,
    IA32_DEBUGCTL,
)
from pylbr.errors import GeneralProtection

__all__ = ["GuestDebugctl"]


@dataclass(frozen=True)
class GuestDebugctl:
    """What CPUID and IA32_PERF_CAPABILITIES offer to a guest.

    Parameters
    ----------
    lbr : bool
        Legacy LBRs.
    bus_lock : bool
        CPUID.07H.0:ECX[24].
    rtm : bool
        CPUID.07H.0:EBX[11].
    """

    lbr: bool = True
    bus_lock: bool = False
    rtm: bool = False

    @property
    def supported(self) -> int:
        """Bits that keep what is written."""
        return ((DEBUGCTL_LBR | DEBUGCTL_FREEZE_LBRS_ON_PMI if self.lbr else 0)
                | (DEBUGCTL_BLD if self.bus_lock else 0)
                | (DEBUGCTL_RTM_DEBUG if self.rtm else 0))

    def write(self, value: int) -> int:
        """What a WRMSR of the guest leaves in the register.

        Raises
        ------
        GeneralProtection
            A bit that is not offered, other than BTF and LBR.
        """
        wrong = value & ~self.supported & ~(DEBUGCTL_BTF | DEBUGCTL_LBR)
        if wrong:
            raise GeneralProtection("IA32_DEBUGCTL", IA32_DEBUGCTL, value, wrong,
                                    "bits that the guest is not offered must be 0")
        return value & self.supported

    def field(self, value: int, host: int) -> int:
        """The VMCS field while the guest runs: its own value, and the host's FREEZE_WHILE_SMM."""
        return value & ~DEBUGCTL_FREEZE_WHILE_SMM | host & DEBUGCTL_FREEZE_WHILE_SMM

    def read(self, field: int) -> int:
        """What RDMSR shows of a VMCS field."""
        return field & ~DEBUGCTL_FREEZE_WHILE_SMM

    def vmcs12(self, value: int, allow_freeze_in_smm: bool = True) -> int:
        """DEBUGCTL that L2 gets of L1's vmcs12.

        Parameters
        ----------
        allow_freeze_in_smm : bool
            The quirk VMCS12_ALLOW_FREEZE_IN_SMM: L1 may set the bit, and it is dropped.

        Raises
        ------
        GeneralProtection
            VM entry fails: the check of the guest state does not pass.
        """
        if allow_freeze_in_smm:
            value &= ~DEBUGCTL_FREEZE_WHILE_SMM
        return self.write(value)
