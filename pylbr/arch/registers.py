"""All register rows, and what they are on one model."""

from __future__ import annotations

import re
from functools import lru_cache
from types import MappingProxyType

from pylbr.arch.features import CpuModel
from pylbr.arch.register import Access, MsrRegister, Register
from pylbr.arch.rows_lbr import LBR_ROWS
from pylbr.arch.rows_pmu import PMU_ROWS
from pylbr.arch.rows_system import SYSTEM_ROWS
from pylbr.errors import ConfigurationError

__all__ = ["Access", "MsrRegister", "REGISTERS", "Register", "find", "registers"]

#: 0x1d9, 1d9h, 473: `int` is not asked whether a text is a number, for while it words its error
#: Python can lose a signal's exception.
_NUMBER = re.compile("0x([0-9a-f]{1,8})|([0-9a-f]{1,8})h|([0-9]{1,10})")

#: Every row, in the order of the documentation.
REGISTERS: tuple[Register, ...] = LBR_ROWS + PMU_ROWS + SYSTEM_ROWS


@lru_cache(maxsize=256)
def registers(model: CpuModel) -> MappingProxyType[int, MsrRegister]:
    """The registers that `model` has, by MSR number.

    Raises
    ------
    ConfigurationError
        If two of them share a number.
    """
    known: dict[int, MsrRegister] = {}
    for row in REGISTERS:
        for n in range(row.count(model)):
            register = MsrRegister.of(row, model, n)
            other = known.setdefault(register.index, register)
            if other is not register:
                raise ConfigurationError(
                    f"{model.name}: {other.name} and {register.name} share MSR "
                    f"{register.index:#x}"
                )
    return MappingProxyType(dict(sorted(known.items())))


def find(model: CpuModel, name: str) -> MsrRegister:
    """The register called `name`, or numbered so (``"0x1D9"``, or as manuals write it ``"1D9H"``).

    Raises
    ------
    ConfigurationError
        If `model` has none.
    """
    table = registers(model)
    index = next((r.index for r in table.values() if r.name.lower() == name.lower()), -1)
    if index < 0 and (number := _NUMBER.fullmatch(name.lower())):
        hexadecimal, manual, decimal = number.groups()
        index = int(decimal) if decimal else int(hexadecimal or manual, 16)
    if index not in table:
        raise ConfigurationError(f"{model.name} has no register {name}{_hint(table, name.lower())}")
    return table[index]


def _hint(table: MappingProxyType[int, MsrRegister], name: str) -> str:
    """How to give a number that was meant as hexadecimal; empty if none was."""
    if re.fullmatch("[0-9a-f]{1,8}", name) and int(name, 16) in table:
        return f"; of the number write 0x{name} or {name.upper()}H"
    return ""
