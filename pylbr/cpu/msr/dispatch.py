"""RDMSR and WRMSR: from a number to its accessor, compiled once per model.

A read never changes anything.  A write gets a value whose reserved bits have been checked
and masks the bits that the row ignores.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pylbr.arch.features import CpuModel
from pylbr.arch.models import MODELS
from pylbr.arch.register import Access, MsrRegister
from pylbr.arch.registers import REGISTERS, registers
from pylbr.cpu.msr.accessor import Accessor, Read, Write
from pylbr.cpu.msr.lbr import LBR
from pylbr.cpu.msr.lbr_legacy import AMD, LEGACY
from pylbr.cpu.msr.pmu import PMU
from pylbr.cpu.msr.system import SYSTEM
from pylbr.cpu.msr.values import Msrs

__all__ = ["ACCESSORS", "Slot", "known_elsewhere", "slots"]

#: What the rows' `accessor` names; `LEGACY` replaces some of them on legacy models.
ACCESSORS: dict[str, Accessor] = {**SYSTEM, **LBR, **PMU, **AMD}


@dataclass(frozen=True, slots=True)
class Slot:
    """One MSR number of one model, ready to be called.

    Attributes
    ----------
    register : MsrRegister
    read, write : callable
        Of the register's accessor.
    reserved : int
        Bits that fault; copied from the register for speed.
    guest_writes : bool
        False: a WRMSR that the host has not initiated faults.
    """

    register: MsrRegister
    read: Read
    write: Write
    reserved: int
    guest_writes: bool


def _hidden_by_pt(accessor: Accessor) -> Accessor:
    """LBR MSRs where Intel PT excludes LBRs: with TraceEn set reads give 0, writes vanish."""

    def read(msrs: Msrs, register: MsrRegister) -> int:
        return 0 if msrs.tracing else accessor.read(msrs, register)

    def write(msrs: Msrs, register: MsrRegister, value: int) -> None:
        if not msrs.tracing:
            accessor.write(msrs, register, value)

    return Accessor(read, write)


@lru_cache(maxsize=256)
def slots(model: CpuModel) -> dict[int, Slot]:
    """MSR number -> slot.  The dictionary is shared and not to be changed."""
    table = {}
    accessors = {**ACCESSORS, **LEGACY} if model.legacy else ACCESSORS
    for index, register in registers(model).items():
        accessor = accessors[register.row.accessor]
        if model.pt_excludes_lbr and accessor.of_lbr:
            accessor = _hidden_by_pt(accessor)
        table[index] = Slot(register, accessor.read, accessor.write, register.reserved,
                            register.row.access is not Access.RO)
    return table


@lru_cache(maxsize=1)
def _numbers() -> frozenset[int]:
    return frozenset(index for model in MODELS.values() for index in registers(model)) | {
        row.index for row in REGISTERS if not callable(row.index)
    }


def known_elsewhere(index: int) -> bool:
    """Some model has an MSR of that number."""
    return index in _numbers()
