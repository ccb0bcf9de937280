"""What an instruction can end in besides #GP: values of the model, not failures of it."""

from __future__ import annotations

from pylbr.arch.vmx import ExitReason
from pylbr.errors import LbrError

__all__ = ["InvalidOpcode", "VmEntryFailure", "VmExit"]


class InvalidOpcode(LbrError):
    """The guest's #UD."""


class VmExit(LbrError):
    """The instruction or event causes a VM exit instead; the processor is still in the guest.

    The hypervisor calls ``cpu.vm_exit(error.reason)``.

    Attributes
    ----------
    reason : ExitReason
    qualification : int
    index, value : int or None
        MSR number and, for WRMSR, the value; for XSAVES and XRSTORS `value` is the components
        of IA32_XSS that they ask for.
    """

    def __init__(self, reason: ExitReason, qualification: int = 0, *, index: int | None = None,
                 value: int | None = None) -> None:
        self.reason, self.qualification = ExitReason(reason), qualification
        self.index, self.value = index, value
        super().__init__(f"VM exit, reason {reason} ({self.reason.name})")


class VmEntryFailure(LbrError):
    """The VM entry fails; the processor stays in the host.

    Attributes
    ----------
    error : int or None
        VM-instruction error, 7 or 8 (SDM vol. 3, 30.4): no exit information.
    reason : ExitReason or None
        33 or 34: a failure after the checks on controls; the exit-reason field has bit 31 set.
    qualification : int
        Reason 34: number of the entry in the list, from 1.
    rule : str
    """

    def __init__(self, rule: str, *, error: int | None = None,
                 reason: ExitReason | None = None, qualification: int = 0) -> None:
        self.rule, self.error, self.reason = rule, error, reason
        self.qualification = qualification
        what = f"VM-instruction error {error}" if error else f"exit reason {reason}"
        super().__init__(f"VM entry fails, {what}: {rule}")
