"""VM entry, VM exit and what exits: the processor's side of VMX."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pylbr.arch import choices
from pylbr.arch.bits import CTL_LBREN, IA32_DEBUGCTL, IA32_LBR_CTL, IA32_PERF_GLOBAL_CTRL
from pylbr.arch.features import CpuModel
from pylbr.arch.registers import registers
from pylbr.arch.vmx import CONTROLS, ExitReason, allowed
from pylbr.cpu.errors import InvalidOpcode, VmEntryFailure, VmExit
from pylbr.cpu.msr.access import MsrAccess
from pylbr.cpu.msr.dispatch import Slot
from pylbr.cpu.saved.state import is_number, need
from pylbr.cpu.vmcs import BITMAP_SIZE, Vmcs
from pylbr.errors import GeneralProtection, StateError, UnsupportedFeature

__all__ = ["EXIT_MSR_ABORT", "Vmx", "check_controls", "check_guest_state", "check_host_state",
           "check_msr", "check_xsaves"]

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


class Vmx:
    """VMX of one processor.  VM entries and VM exits make no record.

    Parameters
    ----------
    access : MsrAccess

    Attributes
    ----------
    vmcs : Vmcs or None
        The VMCS in force; None outside of VMX non-root operation.
    """

    def __init__(self, access: MsrAccess) -> None:
        self.access, self.msrs = access, access.msrs
        self.reset()

    def reset(self) -> None:
        """Outside of VMX non-root operation."""
        self.vmcs: Vmcs | None = None

    def copy(self, access: MsrAccess) -> Vmx:
        """The same for a copy of the registers, with a copy of the VMCS."""
        other = Vmx(access)
        other.vmcs = None if self.vmcs is None else self.vmcs.copy()
        return other

    def save(self) -> tuple[tuple[str, Any], ...] | None:
        """The VMCS in force as plain data."""
        vmcs = self.vmcs
        return None if vmcs is None else tuple(sorted(
            (f.name, _frozen(getattr(vmcs, f.name))) for f in fields(vmcs)))

    def load(self, saved: tuple[tuple[str, Any], ...] | None) -> None:
        """Take over a saved VMCS; what a VM entry with it has checked is checked again.

        Raises
        ------
        StateError
            For a value that the model cannot hold.
        """
        self.vmcs = None if saved is None else _loaded(self.msrs.model, saved)

    def enter(self, vmcs: Vmcs) -> None:
        """VMLAUNCH or VMRESUME; see `Processor.vm_entry`."""
        msrs, model = self.msrs, self.msrs.model
        if self.vmcs is not None:
            raise UnsupportedFeature("VM entry in a guest exits to its hypervisor")
        check_controls(model, vmcs)
        check_host_state(model, vmcs)
        try:
            check_guest_state(model, vmcs)
        except VmEntryFailure as failed:
            self._entry_failed(vmcs, failed)
            raise
        debugctl = vmcs.guest_debugctl if vmcs.has("load debug controls") else None
        lbr_ctl = vmcs.guest_lbr_ctl if model.arch and vmcs.has("load IA32_LBR_CTL") else None
        if debugctl is not None:
            debugctl &= registers(model)[IA32_DEBUGCTL].writable
        msrs.hardware.vm_entry(debugctl, lbr_ctl)
        if vmcs.has("load guest IA32_PERF_GLOBAL_CTRL"):
            self.access.set(IA32_PERF_GLOBAL_CTRL, vmcs.guest_perf_global_ctrl)
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
            if vector == 1 and kind == 3 and choices.INJECTED_DB_CLEARS_LBREN and model.arch:
                msrs.lbr.ctl &= ~CTL_LBREN

    def leave(self, reason: ExitReason, qualification: int) -> Vmcs:
        """VM exit; see `Processor.vm_exit`."""
        vmcs = self.vmcs
        if vmcs is None:
            raise UnsupportedFeature("a VM exit happens in a guest only")
        vmcs.exit_reason, vmcs.exit_qualification = int(reason), qualification
        vmcs.entry_interruption_info &= ~(1 << 31)
        if vmcs.has("save debug controls"):
            vmcs.guest_debugctl = self.msrs.debugctl
        if self.msrs.model.arch and (choices.VM_EXIT_ALWAYS_SAVES_LBR_CTL
                                     or vmcs.has("load IA32_LBR_CTL")):
            vmcs.guest_lbr_ctl = self.msrs.lbr.ctl
        if vmcs.has("save IA32_PERF_GLOBAL_CTRL"):
            vmcs.guest_perf_global_ctrl = self.msrs.pmu.global_ctrl
        self.vmcs = None
        try:
            vmcs.exit_msr_store = [(index, self.access.store(index))
                                   for index, _ in vmcs.exit_msr_store]
        except GeneralProtection as fault:
            raise UnsupportedFeature(f"{EXIT_MSR_ABORT}: {fault}") from None
        self._load_host(vmcs)
        return vmcs

    def _load_host(self, vmcs: Vmcs) -> None:
        clear = self.msrs.model.arch is not None and vmcs.has("clear IA32_LBR_CTL")
        self.msrs.hardware.vm_exit(clear)
        if vmcs.loads_host_global_ctrl():
            self.access.set(IA32_PERF_GLOBAL_CTRL, vmcs.host_perf_global_ctrl)
        try:
            for index, value in vmcs.exit_msr_load:
                self._load_of_list(index, value)
        except GeneralProtection as fault:
            raise UnsupportedFeature(f"{EXIT_MSR_ABORT}: {fault}") from None

    def _entry_failed(self, vmcs: Vmcs, failure: VmEntryFailure) -> None:
        """A failure after the control checks: the host's part of a VM exit, no guest state."""
        vmcs.exit_reason = 1 << 31 | int(failure.reason or 0)
        vmcs.exit_qualification = failure.qualification
        self._load_host(vmcs)

    def _load_of_list(self, index: int, value: int) -> None:
        slot = self.slot_of_list(index, value)
        slot.write(self.msrs, slot.register, value)

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
        return self.access.slot_of_list(index, value)


def check_msr(vmcs: Vmcs, index: int, value: int | None) -> None:
    """RDMSR, or WRMSR of `value`, in a guest that `vmcs` controls: VM exit or nothing."""
    if vmcs.intercepts(index, write=value is not None):
        raise VmExit(ExitReason.RDMSR if value is None else ExitReason.WRMSR, index=index,
                     value=value)


def check_xsaves(vmcs: Vmcs, components: int, restoring: bool) -> None:
    """XSAVES or XRSTORS of supervisor components in a guest that `vmcs` controls: #UD, VM exit
    or nothing (SDM vol. 3, 25.1.3, 25.3)."""
    if not (vmcs.has("activate secondary controls") and vmcs.has("enable XSAVES/XRSTORS")):
        raise InvalidOpcode("XSAVES is not enabled for the guest")
    if components & vmcs.xss_exiting_bitmap:
        raise VmExit(ExitReason.XRSTORS if restoring else ExitReason.XSAVES, value=components)


def _frozen(value: Any) -> Any:
    if isinstance(value, bytearray):
        return bytes(value)
    return tuple(value) if isinstance(value, list) else value


def _list_of_pairs(value: Any) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2
        and is_number(pair[0], (1 << 32) - 1) and is_number(pair[1], (1 << 64) - 1)
        for pair in value)


def _loaded(model: CpuModel, saved: tuple[tuple[str, Any], ...]) -> Vmcs:
    need(model.vmx, f"vmcs: {model.name} has no VMX")
    values, made = dict(saved), Vmcs()
    need(set(values) == {f.name for f in fields(Vmcs)}, "vmcs: fields are missing or unknown")
    for name, value in values.items():
        kind = type(getattr(made, name))
        if kind is int:
            need(is_number(value, (1 << 64) - 1), f"vmcs: {name} must fit in 64 bits")
        elif kind is bytearray:
            need(isinstance(value, bytes) and len(value) == BITMAP_SIZE,
                 f"vmcs: {name} has {BITMAP_SIZE} bytes")
        else:
            need(_list_of_pairs(value), f"vmcs: {name} has pairs of MSR number and value")
        setattr(made, name, kind(value))
    try:
        check_controls(model, made)
        check_host_state(model, made)
        check_guest_state(model, made)
    except VmEntryFailure as failure:
        raise StateError(f"vmcs: {failure}") from None
    return made
