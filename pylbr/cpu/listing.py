"""A processor as text: its registers that are not at their reset values, and its records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pylbr.arch.features import CpuModel
from pylbr.arch.registers import registers
from pylbr.errors import GeneralProtection

if TYPE_CHECKING:
    from collections.abc import Callable

    from pylbr.tables import Table

__all__ = ["changed", "table_of"]

#: Rows of the records themselves, which the facility shows with their classes.
_RECORDS: Final = re.compile(r"(LBR|LASTBRANCH|SAMP_BR)(_[A-Z]+)?_\{\}")


def changed(model: CpuModel, read: Callable[[int], int]) -> Iterator[tuple[str, int, int, int]]:
    """Name, number, value and reset value of the registers that are not at it, by number.

    Parameters
    ----------
    model : CpuModel
    read : callable
        RDMSR by the host, which changes nothing.
    """
    for register in registers(model).values():
        if _RECORDS.search(register.row.name):
            continue
        try:
            value = read(register.index)
        except GeneralProtection:  # it cannot be read
            continue
        if value != register.reset:
            yield register.name, register.index, value, register.reset


def table_of(model: CpuModel, read: Callable[[int], int]) -> Table:
    """`changed` as a table."""
    from pylbr.tables import Table  # not before: it takes long to load

    return Table([(f"{index:X}H", name, f"{value:#x}", f"{reset:#x}")
                  for name, index, value, reset in changed(model, read)],
                 ("MSR", "register", "value", "at reset"), frozenset({0, 2, 3}))
