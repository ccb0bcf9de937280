"""How one kind of register is read and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pylbr.arch.register import MsrRegister
from pylbr.cpu.msr.values import Msrs
from pylbr.errors import GeneralProtection

__all__ = ["Accessor", "Read", "Write", "refuse"]

Read = Callable[[Msrs, MsrRegister], int]
Write = Callable[[Msrs, MsrRegister, int], None]


@dataclass(frozen=True, slots=True)
class Accessor:
    """How one kind of register is read and written.

    `of_lbr` marks registers that vanish while Intel PT excludes LBRs.
    """

    read: Read
    write: Write
    of_lbr: bool = False


def refuse(register: MsrRegister, value: int | None, rule: str, bits: int = 0
           ) -> GeneralProtection:
    """The #GP of an access."""
    return GeneralProtection(register.name, register.index, value, bits, rule)
