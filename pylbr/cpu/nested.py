"""Nested VMX: a hypervisor's emulation of VM entry and VM exit for its own guest's guest.

L0 runs L1 with `vmcs01`.  L1's VMLAUNCH exits to L0, which runs L2 with the merged VMCS that
`entry` makes of L1's `vmcs12`; an exit that L1 asked for is handed on by `leave`.  L1 and L2
see the LBR controls as on a processor of their own.
"""

from __future__ import annotations

from pylbr.arch import choices
from pylbr.arch.bits import IA32_DEBUGCTL, IA32_LBR_CTL, IA32_PERF_GLOBAL_CTRL
from pylbr.arch.vmx import ExitReason
from pylbr.cpu.errors import VmEntryFailure
from pylbr.cpu.processor import Processor
from pylbr.cpu.vmcs import BITMAP_SIZE, Vmcs
from pylbr.cpu.vmx import (
    EXIT_MSR_ABORT,
    check_controls,
    check_guest_state,
    check_host_state,
)
from pylbr.errors import GeneralProtection, UnsupportedFeature

__all__ = ["entry", "leave", "wants_exit"]

#: Guest-state field -> (control that loads it at entry, its MSR).
LOADED = {
    "guest_debugctl": ("load debug controls", IA32_DEBUGCTL),
    "guest_lbr_ctl": ("load IA32_LBR_CTL", IA32_LBR_CTL),
    "guest_perf_global_ctrl": ("load guest IA32_PERF_GLOBAL_CTRL", IA32_PERF_GLOBAL_CTRL),
}
FIELDS = {index: name for name, (_, index) in LOADED.items()}


def _merged_bitmap(vmcs01: Vmcs, vmcs12: Vmcs) -> bytearray:
    """MSR accesses that exit to either hypervisor."""
    bitmap = bytearray(BITMAP_SIZE)
    for vmcs in (vmcs01, vmcs12):
        if not vmcs.has("use MSR bitmaps"):
            return bytearray(b"\xff") * BITMAP_SIZE
        bitmap = bytearray(a | b for a, b in zip(bitmap, vmcs.msr_bitmap, strict=True))
    return bitmap


def entry(cpu: Processor, vmcs01: Vmcs, vmcs12: Vmcs) -> Vmcs:
    """The VMCS to run L2 with, for L1's VM entry with `vmcs12`.

    `vmcs01` holds what L1 was exited with; the caller then does ``cpu.vm_entry`` with the
    result.  L0 must load and save every control that is to be L1's (``vmcs01`` has "load
    IA32_LBR_CTL", "load debug controls" and so on).

    Raises
    ------
    VmEntryFailure
        L1's entry fails with this; L0 hands it on.  Where the architecture then writes an exit
        reason and loads the host's state, `vmcs12` and `vmcs01` have them.
    """
    check_controls(cpu.model, vmcs12)
    check_host_state(cpu.model, vmcs12)
    try:
        check_guest_state(cpu.model, vmcs12)
    except VmEntryFailure as refused:
        _failed(cpu, vmcs01, vmcs12, refused)
        raise
    vmcs02 = vmcs01.copy()
    for name, (control, _) in LOADED.items():
        source = vmcs12 if vmcs12.has(control) else vmcs01
        setattr(vmcs02, name, getattr(source, name))
    vmcs02.msr_bitmap = _merged_bitmap(vmcs01, vmcs12)
    vmcs02.set("use MSR bitmaps")
    vmcs02.exception_bitmap |= vmcs12.exception_bitmap
    vmcs02.xss_exiting_bitmap |= vmcs12.xss_exiting_bitmap
    if vmcs12.has("MWAIT exiting"):
        vmcs02.set("MWAIT exiting")
    vmcs02.secondary_controls &= vmcs12.secondary_controls if vmcs12.has(
        "activate secondary controls") else 0
    vmcs02.entry_interruption_info = vmcs12.entry_interruption_info
    for place, (index, value) in enumerate(vmcs12.entry_msr_load, 1):
        try:
            _load_of_list(cpu, vmcs02, index, value)
        except GeneralProtection as fault:
            failure = VmEntryFailure(f"entry_msr_load[{place - 1}]: {fault}",
                                     reason=ExitReason.ENTRY_MSR_LOADING, qualification=place)
            _hand_over(vmcs02, vmcs01)
            _failed(cpu, vmcs01, vmcs12, failure)
            raise failure from None
    return vmcs02


def _load_of_list(cpu: Processor, vmcs: Vmcs, index: int, value: int) -> None:
    """An MSR of L1's lists: into the field that the next VM entry loads, or at once."""
    slot = cpu.vmx.slot_of_list(index, value)
    if index in FIELDS:
        setattr(vmcs, FIELDS[index], value & slot.register.writable)
    else:
        slot.write(cpu.msrs, slot.register, value)


def _hand_over(source: Vmcs, target: Vmcs) -> None:
    for name in LOADED:
        setattr(target, name, getattr(source, name))


def _load_host(cpu: Processor, vmcs01: Vmcs, vmcs12: Vmcs) -> None:
    """What L1 continues with: the host's part of a VM exit by `vmcs12`."""
    vmcs01.guest_debugctl = 0
    if vmcs12.has("clear IA32_LBR_CTL"):
        vmcs01.guest_lbr_ctl = 0
    if vmcs12.loads_host_global_ctrl():
        vmcs01.guest_perf_global_ctrl = vmcs12.host_perf_global_ctrl
    try:
        for index, value in vmcs12.exit_msr_load:
            _load_of_list(cpu, vmcs01, index, value)
    except GeneralProtection as fault:
        raise UnsupportedFeature(f"{EXIT_MSR_ABORT}: {fault}") from None


def _failed(cpu: Processor, vmcs01: Vmcs, vmcs12: Vmcs, failure: VmEntryFailure) -> None:
    vmcs12.exit_reason = 1 << 31 | int(failure.reason or 0)
    vmcs12.exit_qualification = failure.qualification
    _load_host(cpu, vmcs01, vmcs12)


def wants_exit(vmcs12: Vmcs, reason: ExitReason, index: int | None = None,
               value: int | None = None) -> bool:
    """L1 asked for this exit of L2; else L0 deals with it and L1 does not learn of it.

    `index` and `value` are those of the `VmExit`.
    """
    if reason in (ExitReason.RDMSR, ExitReason.WRMSR):
        return vmcs12.intercepts(index or 0, write=reason == ExitReason.WRMSR)
    if reason == ExitReason.EXCEPTION_OR_NMI:
        return bool(vmcs12.exception_bitmap & 2)
    if reason == ExitReason.MWAIT:
        return vmcs12.has("MWAIT exiting")
    if reason in (ExitReason.XSAVES, ExitReason.XRSTORS):
        return bool((value or 0) & vmcs12.xss_exiting_bitmap)
    return reason not in (ExitReason.EPT_VIOLATION, ExitReason.EXTERNAL_INTERRUPT)


def leave(cpu: Processor, vmcs01: Vmcs, vmcs12: Vmcs, vmcs02: Vmcs, reason: ExitReason,
          qualification: int = 0) -> None:
    """Hand an exit of L2 on to L1; the caller then does ``cpu.vm_entry(vmcs01)``.

    `vmcs02` holds what L2 was exited with.  `vmcs12` gets L2's state as its exit controls
    specify, `vmcs01` the host state that L1 continues with.
    """
    vmcs12.exit_reason, vmcs12.exit_qualification = int(reason), qualification
    vmcs12.entry_interruption_info &= ~(1 << 31)
    if vmcs12.has("save debug controls"):
        vmcs12.guest_debugctl = vmcs02.guest_debugctl
    if choices.VM_EXIT_ALWAYS_SAVES_LBR_CTL or vmcs12.has("load IA32_LBR_CTL"):
        vmcs12.guest_lbr_ctl = vmcs02.guest_lbr_ctl
    if vmcs12.has("save IA32_PERF_GLOBAL_CTRL"):
        vmcs12.guest_perf_global_ctrl = vmcs02.guest_perf_global_ctrl
    held = {index: getattr(vmcs02, name) for name, (_, index) in LOADED.items()}
    vmcs12.exit_msr_store = [
        (index, held[index] if index in held else cpu.rdmsr(index))
        for index, _ in vmcs12.exit_msr_store
    ]
    _hand_over(vmcs02, vmcs01)
    _load_host(cpu, vmcs01, vmcs12)


