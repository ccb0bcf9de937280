"""VM entry, VM exit and what exits: the processor's side of VMX."""

from __future__ import annotations

from pylbr.arch import choices
from pylbr.arch.features import CpuModel
from pylbr.arch.registers import registers
from pylbr.arch.vmx import CONTROLS, ExitReason, allowed
from pylbr.cpu.dispatch import Slot
from pylbr.cpu.errors import InvalidOpcode, VmEntryFailure, VmExit
from pylbr.cpu.msr import MsrAccess
from pylbr.cpu.vmcs import BITMAP_SIZE, Vmcs
from pylbr.errors import GeneralProtection, UnsupportedFeature

__all__ = ["EXIT_MSR_ABORT", "Vmx", "check_controls", "check_guest_state", "check_host_state"]

IA32_DEBUGCTL, IA32_LBR_CTL, IA32_PERF_GLOBAL_CTRL = 0x1D9, 0x14CE, 0x38F
IA32_FS_BASE, IA32_GS_BASE, IA32_SMBASE = 0xC0000100, 0xC0000101, 0x9E
#: SDM vol. 3, 30.4.
INVALID_CONTROLS, INVALID_HOST_STATE = 7, 8
#: IA32_VMX_MISC[27:25] = 0: 512 entries a list are recommended at most.
MAX_MSR_LIST = 512
EXIT_MSR_ABORT = "an MSR of a VM-exit list cannot be stored or loaded: VMX abort"


def check_controls(model: CpuModel, vmcs: Vmcs) -> None:
    """Checks on VMX controls (SDM vol. 3, 26.2.1).

    Raises
    ------
    VmEntryFailure
        With VM-instruction error 7.
    """
    for word in ("pin", "primary", "secondary", "exit", "entry"):
        value = getattr(vmcs, f"{word}_controls")
        if word == "secondary" and not vmcs.has("activate secondary controls"):
            continue
        must, may = allowed(model, word, true=True)
        if value & must != must or value & ~may:
            wrong = (~value & must) | (value & ~may)
            raise VmEntryFailure(f"{word} controls: bits {wrong:#x} have no legal value",
                                 error=INVALID_CONTROLS)
    for name in ("entry_msr_load", "exit_msr_store", "exit_msr_load"):
        if len(getattr(vmcs, name)) > MAX_MSR_LIST:
            raise VmEntryFailure(f"{name} has more than {MAX_MSR_LIST} entries",
                                 error=INVALID_CONTROLS)
    if vmcs.has("use MSR bitmaps") and len(vmcs.msr_bitmap) != BITMAP_SIZE:
        raise VmEntryFailure(f"the MSR bitmap must have {BITMAP_SIZE} bytes",
                             error=INVALID_CONTROLS)


def _reserved(model: CpuModel, index: int) -> int:
    register = registers(model).get(index)
    return -1 if register is None else register.reserved


def check_guest_state(model: CpuModel, vmcs: Vmcs) -> None:
    """Checks on the guest-state fields that touch LBRs (SDM vol. 3, 26.3.1.1).

    Raises
    ------
    VmEntryFailure
        With exit reason 33.
    """
    rules = (
        ("load debug controls", "guest_debugctl", IA32_DEBUGCTL),
        ("load IA32_LBR_CTL", "guest_lbr_ctl", IA32_LBR_CTL),
        ("load guest IA32_PERF_GLOBAL_CTRL", "guest_perf_global_ctrl", IA32_PERF_GLOBAL_CTRL),
    )
    for control, name, index in rules:
        value = getattr(vmcs, name)
        if (CONTROLS[control].offered(model) and vmcs.has(control)
                and value & _reserved(model, index)):
            raise VmEntryFailure(f"{name}: {value:#x} has reserved bits",
                                 reason=ExitReason.ENTRY_GUEST_STATE)
    if vmcs.has("load debug controls") and vmcs.guest_dr7 >> 32:
        raise VmEntryFailure("guest_dr7: bits 63:32 must be 0",
                             reason=ExitReason.ENTRY_GUEST_STATE)


def check_host_state(model: CpuModel, vmcs: Vmcs) -> None:
    """Checks on the host-state fields that touch LBRs (SDM vol. 3, 26.2.2).

    Raises
    ------
    VmEntryFailure
        With VM-instruction error 8.
    """
    if vmcs.loads_host_global_ctrl() and (
            vmcs.host_perf_global_ctrl & _reserved(model, IA32_PERF_GLOBAL_CTRL)):
        raise VmEntryFailure("host_perf_global_ctrl has reserved bits", error=INVALID_HOST_STATE)


class Vmx(MsrAccess):
    """VMX of `Processor`.  VM entries and VM exits make no record."""

    def vm_entry(self, vmcs: Vmcs) -> None:
        """VMLAUNCH or VMRESUME.

        The guest's IA32_LBR_CTL, IA32_DEBUGCTL and IA32_PERF_GLOBAL_CTRL are loaded as the
        entry controls say, then the entry's MSR list.  The records and IA32_LBR_DEPTH cross
        unchanged.  An injected event, of vector 1 too, changes no debug control; its own
        jump is for the caller to retire.

        Raises
        ------
        VmEntryFailure
            The entry fails; `vmcs` has the exit reason where the architecture writes one.
        UnsupportedFeature
            In a guest, in SMM, or without VMX; a VMX abort when an entry has failed.
        """
        if not self.model.vmx or not self.model.intel:
            raise UnsupportedFeature(f"{self.model.name} has no VMX")
        if self.in_smm:
            raise UnsupportedFeature("SMM is outside of VMX operation")
        if self.vmcs is not None:
            raise UnsupportedFeature("VM entry in a guest exits to its hypervisor")
        check_controls(self.model, vmcs)
        check_host_state(self.model, vmcs)
        try:
            check_guest_state(self.model, vmcs)
        except VmEntryFailure as failed:
            self._entry_failed(vmcs, failed)
            raise
        if vmcs.has("load debug controls"):
            self._load(IA32_DEBUGCTL, vmcs.guest_debugctl)
        if self.model.arch and vmcs.has("load IA32_LBR_CTL"):
            self._load(IA32_LBR_CTL, vmcs.guest_lbr_ctl)
        if vmcs.has("load guest IA32_PERF_GLOBAL_CTRL"):
            self._load(IA32_PERF_GLOBAL_CTRL, vmcs.guest_perf_global_ctrl)
        for place, (index, value) in enumerate(vmcs.entry_msr_load, 1):
            try:
                self._load_of_list(index, value)
            except GeneralProtection as fault:
                failure = VmEntryFailure(
                    f"entry_msr_load[{place - 1}]: {fault}",
                    reason=ExitReason.ENTRY_MSR_LOADING, qualification=place)
                self._entry_failed(vmcs, failure)
                raise failure from None
        self.vmcs = vmcs
        if vmcs.entry_interruption_info >> 31 & 1:
            vector, kind = (vmcs.entry_interruption_info & 0xFF,
                            vmcs.entry_interruption_info >> 8 & 7)
            if vector == 1 and kind == 3 and choices.INJECTED_DB_CLEARS_LBREN and self.model.arch:
                self.lbr.ctl &= ~1

    def vm_exit(self, reason: ExitReason, qualification: int = 0) -> Vmcs:
        """Leave the guest: save, clear and load what the exit controls say.

        IA32_DEBUGCTL is 0 afterwards, always.

        Returns
        -------
        Vmcs
            The VMCS that was in force, with exit reason and guest state filled in.

        Raises
        ------
        UnsupportedFeature
            Outside of a guest; a VMX abort.
        """
        vmcs = self.guest
        if vmcs is None:
            raise UnsupportedFeature("a VM exit happens in a guest only")
        vmcs.exit_reason, vmcs.exit_qualification = int(reason), qualification
        vmcs.entry_interruption_info &= ~(1 << 31)
        if vmcs.has("save debug controls"):
            vmcs.guest_debugctl = self.debugctl
        if self.model.arch and (choices.VM_EXIT_ALWAYS_SAVES_LBR_CTL
                                or vmcs.has("load IA32_LBR_CTL")):
            vmcs.guest_lbr_ctl = self.lbr.ctl
        if vmcs.has("save IA32_PERF_GLOBAL_CTRL"):
            vmcs.guest_perf_global_ctrl = self.pmu.global_ctrl
        self.vmcs = None
        try:
            vmcs.exit_msr_store = [(index, self._store_of_list(index))
                                   for index, _ in vmcs.exit_msr_store]
        except GeneralProtection as fault:
            raise UnsupportedFeature(f"{EXIT_MSR_ABORT}: {fault}") from None
        self._load_host(vmcs)
        return vmcs

    def _load_host(self, vmcs: Vmcs) -> None:
        self.debugctl = 0
        if self.model.arch and vmcs.has("clear IA32_LBR_CTL"):
            self.lbr.ctl = 0
        if vmcs.loads_host_global_ctrl():
            self._load(IA32_PERF_GLOBAL_CTRL, vmcs.host_perf_global_ctrl)
        self.sync()
        try:
            for index, value in vmcs.exit_msr_load:
                self._load_of_list(index, value)
        except GeneralProtection as fault:
            raise UnsupportedFeature(f"{EXIT_MSR_ABORT}: {fault}") from None

    def _entry_failed(self, vmcs: Vmcs, failure: VmEntryFailure) -> None:
        """A failure behind the control checks: the host's part of a VM exit, no guest state."""
        vmcs.exit_reason = 1 << 31 | int(failure.reason or 0)
        vmcs.exit_qualification = failure.qualification
        self._load_host(vmcs)

    def _load(self, index: int, value: int) -> None:
        """WRMSR of a checked value past every intercept."""
        slot = self._slots[index]
        slot.write(self, slot.register, value)

    def _load_of_list(self, index: int, value: int) -> None:
        slot = self.slot_of_list(index, value)
        slot.write(self, slot.register, value)

    def slot_of_list(self, index: int, value: int) -> Slot:
        """Where an MSR of a load list goes: as WRMSR, but some numbers are refused (26.4, 27.6).

        Raises
        ------
        GeneralProtection
            The rule that it breaks.
        """
        if index in (IA32_FS_BASE, IA32_GS_BASE, IA32_SMBASE) or 0x800 <= index < 0x900:
            raise GeneralProtection(f"MSR {index:#x}", index, value, 0,
                                    "the number may not be in a VMX MSR list")
        slot = self._slots.get(index)
        if slot is None:
            raise self._no_such(index, value)
        if value & slot.reserved:
            raise self._reserved(slot, value)
        if not slot.guest_writes:
            raise self._read_only(slot, value)
        return slot

    def _store_of_list(self, index: int) -> int:
        slot = self._slots.get(index)
        if slot is None:
            raise self._no_such(index, None)
        return slot.read(self, slot.register)

    # What exits

    def intercept_xsaves(self, rfbm: int, restoring: bool) -> None:
        """XSAVES and XRSTORS in a guest: #UD, VM exit or nothing (SDM vol. 3, 25.1.3, 25.3)."""
        vmcs = self.guest
        if vmcs is None:
            return
        if not (vmcs.has("activate secondary controls")
                and vmcs.has("enable XSAVES/XRSTORS")):
            raise InvalidOpcode("XSAVES is not enabled for the guest")
        if rfbm & self.xss & vmcs.xss_exiting_bitmap:
            raise VmExit(ExitReason.XRSTORS if restoring else ExitReason.XSAVES,
                         value=rfbm & self.xss)
