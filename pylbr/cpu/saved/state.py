"""The state of a processor as plain, frozen data: one class per part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pylbr.arch.features import CpuModel
from pylbr.arch.registers import find
from pylbr.errors import ConfigurationError, StateError

__all__ = [
    "EnclaveState", "Entry", "LbrSnapshot", "ModeState", "MsrState", "PmuSnapshot",
    "ProcessorState", "SmmState", "check_register", "is_number", "need",
]

Entry = tuple[int, int, int]


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
class MsrState:
    """The registers but for the PMU's.

    Attributes
    ----------
    lbr : LbrSnapshot
    values : tuple of (int, int)
        MSR number and value, ascending, of the registers that nothing else holds.
    debugctl, xcr0 : int
    """

    lbr: LbrSnapshot
    values: tuple[tuple[int, int], ...] = ()
    debugctl: int = 0
    xcr0: int = 1


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
class SmmState:
    """System management mode: whether in it, and what the SMI saved."""

    inside: bool = False
    lbren: bool = False
    debugctl: int | None = None


@dataclass(frozen=True, slots=True)
class EnclaveState:
    """`kind` is "" outside, "in" inside an opt-in enclave, "out" inside an opt-out one; `entry`
    is the address that it was entered from."""

    kind: str = ""
    entry: int = 0


@dataclass(frozen=True, slots=True)
class ModeState:
    """What records contain of a branch besides its own data, attributes as of `Mode`."""

    in_tsx: bool = False
    cs_base: int = 0
    long_mode: bool = True


@dataclass(frozen=True, slots=True)
class ProcessorState:
    """The whole state of a processor, by parts, but for its listener.

    `vmcs` has the fields of the VMCS in force as (name, value) pairs, ascending by name.
    """

    model: CpuModel
    msrs: MsrState
    pmu: PmuSnapshot
    smm: SmmState = field(default_factory=SmmState)
    enclave: EnclaveState = field(default_factory=EnclaveState)
    mode: ModeState = field(default_factory=ModeState)
    vmcs: tuple[tuple[str, Any], ...] | None = None


def need(condition: object, what: str) -> None:
    """Raise `StateError` with `what` unless `condition` holds."""
    if not condition:
        raise StateError(what)


def is_number(value: object, top: int) -> bool:
    """An integer, 0 to `top`."""
    return isinstance(value, int) and 0 <= value <= top


def check_register(model: CpuModel, name: str, value: int) -> None:
    """Refuse a value that has reserved bits of the register called `name`."""
    try:
        reserved = find(model, name).reserved
    except ConfigurationError:
        reserved = -1
    need(isinstance(value, int) and not value & reserved,
         f"{name}: {value!r} has reserved bits on {model.name}")
