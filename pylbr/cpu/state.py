"""The state of a processor as plain, frozen data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from lbrcore import Fault
from lbrcore.hidden import hidden, set_hidden
from pylbr.arch.features import CpuModel
from pylbr.arch.registers import find, registers
from pylbr.cpu.errors import VmEntryFailure
from pylbr.cpu.vmcs import BITMAP_SIZE, Vmcs
from pylbr.cpu.vmx import check_controls, check_guest_state, check_host_state
from pylbr.errors import ConfigurationError, GeneralProtection, StateError

if TYPE_CHECKING:
    from pylbr.cpu.processor import Processor

__all__ = ["LbrSnapshot", "PmuSnapshot", "ProcessorState", "restore", "take"]

Entry = tuple[int, int, int]
#: Homes of the registers that `ProcessorState.values` holds.
VALUE_HOMES = frozenset({"plain", "canonical", "capabilities", "rtit"})


@dataclass(frozen=True, slots=True)
class LbrSnapshot:
    """The facility.

    Attributes
    ----------
    ctl : int
        IA32_LBR_CTL, or LBR_SELECT.
    depth, tos : int
        `tos` is 0 in the architectural flavour.
    enable : bool
        AMD's LBRV2EN; the legacy enable is a bit of IA32_DEBUGCTL.
    entries : tuple of (from, to, info)
        `depth` of them, newest first.
    ler : (from, to, info)
    cycles : int or None
        Since the last record; None before the first.
    events : tuple of int
        Logged since the last record.
    xinuse : bool
    """

    ctl: int
    depth: int
    tos: int
    enable: bool
    entries: tuple[Entry, ...]
    ler: Entry
    cycles: int | None
    events: tuple[int, int, int, int]
    xinuse: bool


@dataclass(frozen=True, slots=True)
class PmuSnapshot:
    """The PMU, attributes as of `PmuState`."""

    pmc: tuple[int, ...]
    evtsel: tuple[int, ...]
    fixed: tuple[int, ...]
    fixed_ctrl: int
    global_ctrl: int
    status: int
    pebs_enable: int


@dataclass(frozen=True, slots=True)
class ProcessorState:
    """All that a processor is, but for who listens to it; attributes as of `Processor`.

    `values` are (MSR number, value) pairs, ascending; `vmcs` is one of (field, value) pairs,
    ascending by name.
    """

    model: CpuModel
    lbr: LbrSnapshot
    pmu: PmuSnapshot
    values: tuple[tuple[int, int], ...] = ()
    debugctl: int = 0
    xcr0: int = 1
    in_smm: bool = False
    smm_lbren: bool = False
    smm_debugctl: int | None = None
    in_tsx: bool = False
    enclave: str = ""
    enclave_entry: int = 0
    cs_base: int = 0
    long_mode: bool = True
    vmcs: tuple[tuple[str, Any], ...] | None = None


#: Fields that go between processor and state as they are.
PLAIN = ("debugctl", "xcr0", "in_smm", "smm_lbren", "smm_debugctl", "in_tsx", "enclave",
         "enclave_entry", "cs_base", "long_mode")


def _take_lbr(cpu: Processor) -> LbrSnapshot:
    lbr = cpu.lbr
    cycles, events, xinuse = hidden(lbr)
    return LbrSnapshot(
        lbr.ctl, lbr.depth, 0 if cpu.model.arch else lbr.tos,
        bool(cpu.model.amd) and lbr.enable,
        tuple(lbr.read_entry(i) for i in range(lbr.depth)), lbr.ler, cycles, events, xinuse,
    )


def _frozen(value: Any) -> Any:
    if isinstance(value, bytearray):
        return bytes(value)
    return tuple(value) if isinstance(value, list) else value


def take(cpu: Processor) -> ProcessorState:
    """The state of `cpu`; it is left as it was."""
    pmu, vmcs = cpu.pmu, cpu.vmcs
    reset = registers(cpu.model)
    return ProcessorState(
        cpu.model, _take_lbr(cpu),
        PmuSnapshot(tuple(pmu.pmc), tuple(pmu.evtsel), tuple(pmu.fixed), pmu.fixed_ctrl,
                    pmu.global_ctrl, pmu.status, pmu.pebs_enable),
        tuple(sorted((i, v) for i, v in cpu.values.items() if v != reset[i].reset)),
        vmcs=None if vmcs is None else tuple(sorted(
            (f.name, _frozen(getattr(vmcs, f.name))) for f in fields(vmcs))),
        **{name: getattr(cpu, name) for name in PLAIN},
    )


# ---------------------------------------------------------------- back

def _need(condition: object, what: str) -> None:
    if not condition:
        raise StateError(what)


def _is(value: object, top: int) -> bool:
    return isinstance(value, int) and 0 <= value <= top


def _restore_lbr(cpu: Processor, saved: LbrSnapshot) -> None:
    lbr = cpu.lbr
    try:
        if cpu.model.arch:
            lbr.depth = saved.depth
        _need(saved.depth == lbr.depth, f"depth: {saved.depth}, the model's is {lbr.depth}")
        _need(len(saved.entries) == lbr.depth,
              f"entries: {len(saved.entries)} records at depth {lbr.depth}")
        lbr.ctl = saved.ctl
        if cpu.model.arch:
            _need(saved.tos == 0 and not saved.enable, "tos, enable: not architectural")
        else:
            lbr.tos = saved.tos
        if cpu.model.amd:
            lbr.enable = saved.enable
        for i, entry in enumerate(saved.entries):
            lbr.write_entry(i, *entry)
        lbr.ler = saved.ler
        cpu.sync()
        cpu.pmu_changed()
        set_hidden(lbr, saved.cycles, saved.events, saved.xinuse)
    except (Fault, OverflowError, TypeError, ValueError) as error:
        raise StateError(f"LBR state: {error}") from None


def _check_register(model: CpuModel, name: str, value: int) -> None:
    try:
        reserved = find(model, name).reserved
    except ConfigurationError:
        reserved = -1
    _need(isinstance(value, int) and not value & reserved,
          f"{name}: {value!r} has reserved bits on {model.name}")


def _restore_pmu(cpu: Processor, saved: PmuSnapshot) -> None:
    model, pmu = cpu.model, cpu.pmu
    facts = model.pmu
    for name, count, mask in (("pmc", facts.counters, pmu.pmc_mask),
                              ("fixed", facts.fixed, pmu.fixed_mask)):
        values = getattr(saved, name)
        _need(len(values) == count and all(_is(v, mask) for v in values),
              f"{name}: {model.name} has {count} counters up to {mask:#x}")
        setattr(pmu, name, list(values))
    _need(len(saved.evtsel) == facts.counters, f"evtsel: {model.name} has {facts.counters}")
    amd = model.amd is not None
    prefix = "PERF_CTL" if amd else "IA32_PERFEVTSEL"
    for n, value in enumerate(saved.evtsel):
        _check_register(model, f"{prefix}{n}", value)
    pmu.evtsel = list(saved.evtsel)
    for field, name in (
        ("fixed_ctrl", "IA32_FIXED_CTR_CTRL"),
        ("global_ctrl", "PERF_CNTR_GLOBAL_CTL" if amd else "IA32_PERF_GLOBAL_CTRL"),
        ("status", "PERF_CNTR_GLOBAL_STATUS" if amd else "IA32_PERF_GLOBAL_STATUS"),
        ("pebs_enable", "IA32_PEBS_ENABLE"),
    ):
        value = getattr(saved, field)
        if value:
            _check_register(model, name, value)
        setattr(pmu, field, value)


def _restore_values(cpu: Processor, values: tuple[tuple[int, int], ...]) -> None:
    known = registers(cpu.model)
    for index, value in values:
        register = known.get(index)
        _need(register is not None and register.row.home in VALUE_HOMES,
              f"values: {cpu.model.name} keeps no MSR {index:#x}")
        try:
            cpu.wrmsr(index, value, host=True)
        except GeneralProtection as error:
            raise StateError(f"values: {error}") from None


def _list_of_pairs(value: Any) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2
        and _is(pair[0], (1 << 32) - 1) and _is(pair[1], (1 << 64) - 1) for pair in value)


def _restored_vmcs(model: CpuModel, saved: tuple[tuple[str, Any], ...]) -> Vmcs:
    """The VMCS in force; what a VM entry with it has checked is checked again."""
    _need(model.vmx, f"vmcs: {model.name} has no VMX")
    values, made = dict(saved), Vmcs()
    _need(set(values) == {f.name for f in fields(Vmcs)}, "vmcs: fields are missing or unknown")
    for name, value in values.items():
        kind = type(getattr(made, name))
        if kind is int:
            _need(_is(value, (1 << 64) - 1), f"vmcs: {name} must fit in 64 bits")
        elif kind is bytearray:
            _need(isinstance(value, bytes) and len(value) == BITMAP_SIZE,
                  f"vmcs: {name} has {BITMAP_SIZE} bytes")
        else:
            _need(_list_of_pairs(value), f"vmcs: {name} has pairs of MSR number and value")
        setattr(made, name, kind(value))
    try:
        check_controls(model, made)
        check_host_state(model, made)
        check_guest_state(model, made)
    except VmEntryFailure as failure:
        raise StateError(f"vmcs: {failure}") from None
    return made


def restore(cpu: Processor, state: ProcessorState) -> None:
    """Bring a fresh `cpu` of the state's model into `state`.

    Raises
    ------
    StateError
        For a value that the model cannot hold.
    """
    _restore_values(cpu, state.values)
    debugctl = "MSR_DEBUGCTLA" if cpu.model.netburst else "IA32_DEBUGCTL"
    for value in (state.debugctl, state.smm_debugctl or 0):
        _check_register(cpu.model, debugctl, value)
    _need(not (cpu.model.arch and state.debugctl & 1), "debugctl: bit 0 always reads 0")
    _need(state.enclave in ("", "in", "out"), f"enclave: {state.enclave!r} is none of '', in, out")
    _need(not state.enclave or cpu.model.sgx, f"enclave: {cpu.model.name} has no SGX")
    _need(not state.in_tsx or cpu.model.tsx, f"in_tsx: {cpu.model.name} has no transactions")
    for name in ("enclave_entry", "cs_base"):
        _need(_is(getattr(state, name), (1 << 64) - 1), f"{name}: must fit in 64 bits")
    _need(state.in_smm or not (state.smm_lbren or state.smm_debugctl is not None),
          "smm_lbren, smm_debugctl: held outside of SMM")
    try:
        if state.xcr0 != 1:
            cpu.xsetbv(state.xcr0)
    except GeneralProtection as error:
        raise StateError(f"xcr0: {error}") from None
    for name in PLAIN:
        setattr(cpu, name, getattr(state, name))
    _restore_pmu(cpu, state.pmu)
    cpu.pmu.stopped = state.enclave == "out" or state.smm_debugctl is not None
    _restore_lbr(cpu, state.lbr)
    if state.vmcs is not None:
        cpu.vmcs = _restored_vmcs(cpu.model, state.vmcs)
