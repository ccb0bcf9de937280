"""Rows of the register table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from pylbr.arch.features import CpuModel
from pylbr.arch.fields import ALL_ONES, Field, FieldKind, Offered, mask_of

__all__ = ["Access", "MsrRegister", "PerModel", "Register", "once"]

PerModel = Callable[[CpuModel], int]


class Access(Enum):
    """Which accesses a register allows."""

    RW = "R/W"
    RO = "R/O"
    ACTION = "write acts, reads 0"


def once(test: Callable[[CpuModel], object]) -> PerModel:
    """Count of a single register that exists where `test` holds."""
    return lambda model: int(bool(test(model)))


@dataclass(frozen=True, slots=True)
class Register:
    """One register, or a run of numbered ones: a row.

    Parameters
    ----------
    name : str
        As the manual spells it; ``{}`` stands for the number of the register in its run.
    index : int or callable
        MSR number of the first.
    accessor : str
        How the processor reads and writes the value: a key of
        ``pylbr.cpu.msr.dispatch.ACCESSORS``; ``"plain"`` keeps it in a store of its own.
    source : str
        Manual section or kernel file.
    count : callable
        How many a model has; 0: none, and RDMSR and WRMSR fault.
    fields : tuple of Field
        Bits outside all of them are reserved: a write that sets one faults.
    reset : int or callable
        Value after a cold RESET.
    access : Access
    stride : int
        Distance of the run's MSR numbers.
    first : int
        Number of the first in its name.
    survives_warm_reset : bool
    per_core : callable, optional
        Models on which the threads of a core have it once; left out: none.
    rule : str
        What holds beyond the fields.
    """

    name: str
    index: int | PerModel
    accessor: str
    source: str
    count: PerModel
    fields: tuple[Field, ...] = (Field("VALUE", 63, 0),)
    reset: int | PerModel = 0
    access: Access = Access.RW
    stride: int = 1
    first: int = 0
    survives_warm_reset: bool = False
    per_core: Offered = lambda model: False
    rule: str = ""


@dataclass(frozen=True, slots=True)
class MsrRegister:
    """A row as it is on one model: one MSR number.

    Attributes
    ----------
    row : Register
    name : str
    index : int
    n : int
        Place in the row's run, from 0.
    writable, free : int
        Bits that hold what is written, and bits that may be written but need not.
    reserved : int
        Bits that fault when written as 1; negative, so that bits beyond 63 belong to it.
    reset : int
    """

    row: Register
    name: str
    index: int
    n: int
    writable: int
    free: int
    reserved: int
    reset: int

    @classmethod
    def of(cls, row: Register, model: CpuModel, n: int) -> MsrRegister:
        """Number `n` of a row on `model`."""
        base = row.index(model) if callable(row.index) else row.index
        reset = row.reset(model) if callable(row.reset) else row.reset
        known = mask_of(row.fields, model)
        return cls(
            row, row.name.format(row.first + n), base + n * row.stride, n,
            mask_of(row.fields, model, FieldKind.RW, FieldKind.FREE),
            mask_of(row.fields, model, FieldKind.FREE), ~known, reset,
        )

    @property
    def reserved_bits(self) -> int:
        """`reserved` within 64 bits."""
        return self.reserved & ALL_ONES
