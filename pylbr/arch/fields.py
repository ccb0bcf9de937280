"""Bit fields, the atoms of every row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from pylbr.arch.features import CpuModel

__all__ = [
    "ALL_ONES", "Field", "FieldKind", "Offered", "always", "is_canonical", "mask_of",
    "sign_extend",
]

ALL_ONES = (1 << 64) - 1

#: Does this processor have it?
Offered = Callable[[CpuModel], bool]


def always(model: CpuModel) -> bool:
    """The condition of what every processor with the register has."""
    return True


class FieldKind(Enum):
    """What a write does to a field."""

    RW = "R/W"
    IGNORED = "write ignored, reads 0"
    FREE = "may be written, what a read gives is undefined"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a register.

    Parameters
    ----------
    name : str
        As the manual spells it.
    hi, lo : int
        First and last bit, inclusive.
    meaning : str
    offered : callable
        On which models the bits exist; elsewhere they are reserved.
    kind : FieldKind
    """

    name: str
    hi: int
    lo: int
    meaning: str = ""
    offered: Offered = always
    kind: FieldKind = FieldKind.RW

    @property
    def mask(self) -> int:
        """The field's bits in place."""
        return ((1 << (self.hi - self.lo + 1)) - 1) << self.lo

    @property
    def bits(self) -> str:
        """``"hi:lo"`` or ``"bit"``."""
        return f"{self.hi}:{self.lo}" if self.hi != self.lo else f"{self.lo}"

    def get(self, value: int) -> int:
        """The field's value out of the register's."""
        return (value & self.mask) >> self.lo


def mask_of(fields: Iterable[Field], model: CpuModel, *kinds: FieldKind) -> int:
    """Union of the fields that `model` has, of the given kinds or of all."""
    mask = 0
    for field in fields:
        if field.offered(model) and (not kinds or field.kind in kinds):
            mask |= field.mask
    return mask


def sign_extend(value: int, width: int) -> int:
    """Copy bit `width` - 1 into all bits above it, up to bit 63."""
    value &= (1 << width) - 1
    return value | (ALL_ONES ^ ((1 << width) - 1)) if value >> (width - 1) else value


def is_canonical(address: int, width: int) -> bool:
    """An address of `width` linear bits; on 32-bit processors the upper half is 0."""
    return address >> 32 == 0 if width == 32 else address == sign_extend(address, width)
