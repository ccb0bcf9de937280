"""Rows of the register tables: system registers of AArch64, CSRs of RISC-V."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pylbr.arch.fields import Field

__all__ = ["SystemField", "SystemRegister", "field_mask", "implemented"]


@dataclass(frozen=True, slots=True)
class SystemField(Field):
    """A field that some implementations lack: it is then read-only 0.

    Parameters
    ----------
    needs : str
        Attribute of the configuration that decides whether it exists; empty: it always does.
    """

    needs: str = ""


@dataclass(frozen=True, slots=True)
class SystemRegister:
    """One register, or a run of numbered ones.

    Parameters
    ----------
    name : str
        As the manual spells it; ``{}`` stands for the number within its run.
    number : int
        CSR number, or `sysreg` of op0, op1, CRn, CRm and op2.
    source : str
        Where it is specified.
    fields : tuple of Field
        Bits outside all of them read 0 and ignore writes.
    writable : bool
    level : int
        Least privileged level that may access it: 3 is the least privileged of all.
    count : int
    needs : str
        Attribute of the configuration that decides whether it exists; empty: it always does.
    rule : str
        What holds beyond the fields.
    """

    name: str
    number: int
    source: str
    fields: tuple[Field, ...]
    writable: bool = True
    level: int = 2
    count: int = 1
    needs: str = ""
    rule: str = ""


def field_mask(register: SystemRegister, *names: str) -> int:
    """Union of the named fields of a register."""
    masks = {field.name: field.mask for field in register.fields}
    mask = 0
    for name in names:
        mask |= masks[name]
    return mask


def implemented(register: SystemRegister, config: Any) -> int:
    """Bits of a register that an implementation has."""
    mask = 0
    for field in register.fields:
        needs = getattr(field, "needs", "")
        if not needs or getattr(config, needs):
            mask |= field.mask
    return mask
