"""One home of register values: how it is read and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pylbr.arch.register import MsrRegister
from pylbr.errors import GeneralProtection

if TYPE_CHECKING:
    from pylbr.cpu.base import Base

__all__ = ["Home", "Read", "Write", "refuse"]

Read = Callable[["Base", MsrRegister], int]
Write = Callable[["Base", MsrRegister, int], None]


@dataclass(frozen=True, slots=True)
class Home:
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
