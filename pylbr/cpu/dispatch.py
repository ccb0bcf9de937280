"""RDMSR and WRMSR: from a number to the functions of its home, compiled once a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from pylbr.arch.features import CpuModel
from pylbr.arch.models import MODELS
from pylbr.arch.register import Access, MsrRegister
from pylbr.arch.registers import REGISTERS, registers
from pylbr.cpu.home import Home, Read, Write
from pylbr.cpu.homes import HOMES, LEGACY_HOMES

if TYPE_CHECKING:
    from pylbr.cpu.base import Base

__all__ = ["Slot", "known_elsewhere", "slots"]


@dataclass(frozen=True, slots=True)
class Slot:
    """One MSR number of one model, ready to be called.

    Attributes
    ----------
    register : MsrRegister
    read, write : callable
        Of the register's home.
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


def _hidden_by_pt(home: Home) -> Home:
    """LBR MSRs where Intel PT excludes LBRs: with TraceEn set reads give 0, writes vanish."""

    def read(cpu: Base, register: MsrRegister) -> int:
        return 0 if cpu.tracing else home.read(cpu, register)

    def write(cpu: Base, register: MsrRegister, value: int) -> None:
        if not cpu.tracing:
            home.write(cpu, register, value)

    return Home(read, write)


@lru_cache(maxsize=256)
def slots(model: CpuModel) -> dict[int, Slot]:
    """MSR number -> slot.  The dictionary is shared and not to be changed."""
    table = {}
    homes = {**HOMES, **LEGACY_HOMES} if model.legacy else HOMES
    for index, register in registers(model).items():
        home = homes[register.row.home]
        if model.pt_excludes_lbr and home.of_lbr:
            home = _hidden_by_pt(home)
        table[index] = Slot(register, home.read, home.write, register.reserved,
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
