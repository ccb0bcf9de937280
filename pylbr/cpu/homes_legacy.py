"""Homes of records in the legacy flavour, by physical number, and in AMD's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pylbr.arch import choices
from pylbr.arch.fields import is_canonical, sign_extend
from pylbr.arch.formats import FORMATS
from pylbr.arch.register import MsrRegister
from pylbr.cpu import facility
from pylbr.cpu.home import Home, Write, refuse

if TYPE_CHECKING:
    from pylbr.cpu.base import Base

__all__ = ["AMD_HOMES", "LEGACY_HOMES", "write_ler"]


def _newest_of(cpu: Base, register: MsrRegister) -> int:
    """Distance of a physical register from the newest record."""
    return (cpu.lbr.tos - register.n) % cpu.lbr.depth


def _canonical_part(cpu: Base, value: int, flags: int) -> bool:
    """Bits between the flags and the linear address are copies of the address's top bit."""
    width = cpu.model.linear_width
    if width <= 32:
        return True
    shown = sign_extend(value, width) & ((1 << (64 - flags)) - 1)
    return value & ((1 << (64 - flags)) - 1) == shown


def _read_legacy_from(cpu: Base, register: MsrRegister) -> int:
    from_, _, info = cpu.lbr.read_entry(_newest_of(cpu, register))
    return cpu.layout.encode_from(from_, info)


def _write_legacy_from(cpu: Base, register: MsrRegister, value: int) -> None:
    layout = cpu.layout
    if cpu.model.legacy and cpu.model.legacy.signext_quirk:
        # Bits 62:61 belong to the sign extension, though records have them 0 (spec 3.5).
        if not _canonical_part(cpu, value, 1):
            raise refuse(register, value, "bits 62:61 must be copies of the address's top bit",
                         3 << 61)
    elif (choices.LEGACY_NONCANONICAL_WRITE_FAULTS
          and not _canonical_part(cpu, value, layout.from_flags)):
        raise refuse(register, value, "the address is not canonical", value)
    i = _newest_of(cpu, register)
    _, to, info = cpu.lbr.read_entry(i)
    from_, info = layout.decode_from(value, info)
    cpu.lbr.write_entry(i, from_, to, info)


def _read_legacy_to(cpu: Base, register: MsrRegister) -> int:
    _, to, info = cpu.lbr.read_entry(_newest_of(cpu, register))
    return cpu.layout.encode_to(to, info)


def _write_legacy_to(cpu: Base, register: MsrRegister, value: int) -> None:
    layout = cpu.layout
    if (choices.LEGACY_NONCANONICAL_WRITE_FAULTS and not layout.to_cycles
            and not _canonical_part(cpu, value, 0)):
        raise refuse(register, value, "the address is not canonical", value)
    i = _newest_of(cpu, register)
    from_, _, info = cpu.lbr.read_entry(i)
    to, info = layout.decode_to(value, info)
    cpu.lbr.write_entry(i, from_, to, info)


def _read_single(cpu: Base, register: MsrRegister) -> int:
    from_, to, _ = cpu.lbr.read_entry(_newest_of(cpu, register))
    return FORMATS[0].encode_single(from_, to)


def _write_single(cpu: Base, register: MsrRegister, value: int) -> None:
    from_, to = FORMATS[0].decode_single(value)
    cpu.lbr.write_entry(_newest_of(cpu, register), from_, to, 0)


def _read_legacy_info(cpu: Base, register: MsrRegister) -> int:
    return cpu.lbr.read_entry(_newest_of(cpu, register))[2]


def _write_legacy_info(cpu: Base, register: MsrRegister, value: int) -> None:
    i = _newest_of(cpu, register)
    from_, to, _ = cpu.lbr.read_entry(i)
    cpu.lbr.write_entry(i, from_, to, value)


def _read_legacy_ler_from(cpu: Base, register: MsrRegister) -> int:
    from_, _, info = cpu.lbr.ler
    layout = cpu.layout
    return from_ & 0xFFFFFFFF if layout.single else layout.encode_from(from_, info)


def _read_legacy_ler_to(cpu: Base, register: MsrRegister) -> int:
    _, to, info = cpu.lbr.ler
    layout = cpu.layout
    return to & 0xFFFFFFFF if layout.single else layout.encode_to(to, info)


# ---------------------------------------------------------------- AMD records

def _read_amd_from(cpu: Base, register: MsrRegister) -> int:
    from_, _, info = cpu.lbr.read_entry(register.n)
    return facility.amd_encode_from(from_, info)


def _read_amd_to(cpu: Base, register: MsrRegister) -> int:
    return facility.amd_encode_to(*cpu.lbr.read_entry(register.n))


def _write_amd_from(cpu: Base, register: MsrRegister, value: int) -> None:
    entry = facility.amd_decode_from(cpu.lbr.read_entry(register.n), value)
    cpu.lbr.write_entry(register.n, *entry)


def _write_amd_to(cpu: Base, register: MsrRegister, value: int) -> None:
    entry = facility.amd_decode_to(cpu.lbr.read_entry(register.n), value)
    cpu.lbr.write_entry(register.n, *entry)


def write_ler(part: int) -> Write:
    def write(cpu: Base, register: MsrRegister, value: int) -> None:
        if (part < 2 and not choices.LER_WRITE_IGNORES_HIGH_BITS
                and not is_canonical(value, cpu.model.linear_width)):
            raise refuse(register, value, "the address is not canonical", value)
        ler = list(cpu.lbr.ler)
        ler[part] = value
        cpu.lbr.ler = ler[0], ler[1], ler[2]

    return write


#: AMD's records.
AMD_HOMES: dict[str, Home] = {
    "amd.from": Home(_read_amd_from, _write_amd_from),
    "amd.to": Home(_read_amd_to, _write_amd_to),
}

#: What the legacy flavour does in the same places.
LEGACY_HOMES: dict[str, Home] = {
    "lbr.single": Home(_read_single, _write_single, of_lbr=True),
    "lbr.from": Home(_read_legacy_from, _write_legacy_from, of_lbr=True),
    "lbr.to": Home(_read_legacy_to, _write_legacy_to, of_lbr=True),
    "lbr.info": Home(_read_legacy_info, _write_legacy_info, of_lbr=True),
    "ler.from": Home(_read_legacy_ler_from, write_ler(0), of_lbr=True),
    "ler.to": Home(_read_legacy_ler_to, write_ler(1), of_lbr=True),
}
