"""A state of one processor on another: translated exactly, or refused with the reasons."""

from __future__ import annotations

from dataclasses import replace

from pylbr.arch.features import CpuModel
from pylbr.arch.fields import is_canonical
from pylbr.arch.formats import FORMATS
from pylbr.cpu.facility import config, effective
from pylbr.cpu.processor import Processor
from pylbr.cpu.saved.state import Entry, LbrSnapshot, PmuSnapshot, ProcessorState
from pylbr.errors import StateError

__all__ = ["migrate"]

BR_TYPE_OTHER = 8 << 56
EMPTY = (0, 0, 0)


def migrate(state: ProcessorState, target: CpuModel) -> ProcessorState:
    """The state as `target` holds it.

    Everything that software could read back reads back the same, but for what the two models
    encode differently of the same records.

    Raises
    ------
    StateError
        With every reason why not.
    """
    source = state.model
    reasons: list[str] = []
    if state.vmcs is not None:
        reasons.append("the processor is in a guest; a VMCS belongs to its processor")
    lbr = _lbr(state, target, reasons)
    pmu = _pmu(state.pmu, target, reasons)
    if not reasons:
        try:
            moved = replace(state, model=target, msrs=replace(state.msrs, lbr=lbr), pmu=pmu)
            Processor.from_state(moved)
            return moved
        except StateError as error:
            reasons.append(str(error))
    raise StateError(f"{source.name} to {target.name}: " + "; ".join(reasons))


def _flavour(model: CpuModel) -> str:
    if model.arch:
        return "architectural"
    return "legacy" if model.legacy else "AMD" if model.amd else "no"


def _lbr(state: ProcessorState, target: CpuModel, reasons: list[str]) -> LbrSnapshot:
    source, saved = state.model, state.msrs.lbr
    if _flavour(source) != _flavour(target):
        reasons.append(f"{_flavour(source)} LBRs do not become {_flavour(target)} ones")
        return saved
    depths = target.lbr.depths
    if saved.depth not in depths:
        reasons.append(f"depth {saved.depth} is none of {', '.join(map(str, depths))}")
    offered = config(target)
    if saved.ctl & ~offered.ctl_mask:
        reasons.append(f"filter bits {saved.ctl & ~offered.ctl_mask:#x} are not offered")
    shift = _shift(state, target, reasons)
    entries = tuple(_entry(f"record {i}", entry, target, shift, reasons)
                    for i, entry in enumerate(saved.entries))
    ler = _entry("LER", saved.ler, target, shift, reasons)
    if target.arch and any(saved.events[n] and not target.arch.event_logging >> n & 1
                           for n in range(4)):
        reasons.append("events are logged that the target does not log")
    return replace(saved, entries=entries, ler=ler)


def _shift(state: ProcessorState, target: CpuModel, reasons: list[str]) -> int:
    """What to add to the addresses of records: the base of CS, one way or the other."""
    if effective(state.model) == effective(target) or not state.mode.cs_base:
        return 0
    if any(info & BR_TYPE_OTHER for _, _, info in state.msrs.lbr.entries):
        reasons.append("records of far branches: the base of CS that each was made with is lost")
    elif not (state.model.arch and state.model.arch.branch_type) and any(
            entry != EMPTY for entry in state.msrs.lbr.entries):
        reasons.append("records without a branch type: whether the base of CS was the same "
                       "for all is not known")
    return state.mode.cs_base if effective(state.model) else -state.mode.cs_base


def _entry(name: str, entry: Entry, target: CpuModel, shift: int, reasons: list[str]) -> Entry:
    if entry == EMPTY:
        return entry
    from_, to, info = entry
    ones = (1 << 64) - 1
    from_ = from_ if from_ == ones else (from_ + shift) & ones
    to = (to + shift) & ones
    width = target.linear_width
    for address in (from_, to):
        if not target.amd and not is_canonical(address, width):
            reasons.append(f"{name}: address {address:#x} has more than {width} bits")
    if target.legacy:
        layout = FORMATS[target.legacy.format]
        if info & ~layout.info_mask:
            reasons.append(f"{name}: INFO bits {info & ~layout.info_mask:#x} have no place in "
                           f"LBR format {layout.number}")
        if layout.to_cycles and not is_canonical(to, 48):
            reasons.append(f"{name}: TO has 48 bits in LBR format {layout.number}")
    return from_, to, info


def _pmu(saved: PmuSnapshot, target: CpuModel, reasons: list[str]) -> PmuSnapshot:
    facts = target.pmu
    moved = {}
    for name, count in (("pmc", facts.counters), ("evtsel", facts.counters),
                        ("fixed", facts.fixed)):
        values = getattr(saved, name)
        if any(values[count:]):
            reasons.append(f"{name}: counter {count} and up are in use and absent there")
        moved[name] = (values + (0,) * count)[:count]
    for name, width in (("pmc", facts.counter_width), ("fixed", facts.fixed_width)):
        if any(value >> width for value in moved[name]):
            reasons.append(f"{name}: a count needs more than {width} bits")
    return replace(saved, **moved)
