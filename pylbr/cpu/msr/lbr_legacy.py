"""Accessors of records in the legacy flavour, by physical number, and in AMD's."""

from __future__ import annotations

from pylbr.arch import choices
from pylbr.arch.fields import is_canonical, sign_extend
from pylbr.arch.formats import FORMATS
from pylbr.arch.register import MsrRegister
from pylbr.cpu import facility
from pylbr.cpu.msr.accessor import Accessor, Write, refuse
from pylbr.cpu.msr.values import Msrs

__all__ = ["AMD", "LEGACY", "write_ler"]


def _newest_of(msrs: Msrs, register: MsrRegister) -> int:
    """Distance of a physical register from the newest record."""
    return (msrs.lbr.tos - register.n) % msrs.lbr.depth


def _canonical_part(msrs: Msrs, value: int, flags: int) -> bool:
    """Bits between the flags and the linear address are copies of the address's top bit."""
    width = msrs.model.linear_width
    if width <= 32:
        return True
    shown = sign_extend(value, width) & ((1 << (64 - flags)) - 1)
    return value & ((1 << (64 - flags)) - 1) == shown


def _read_legacy_from(msrs: Msrs, register: MsrRegister) -> int:
    from_, _, info = msrs.lbr.read_entry(_newest_of(msrs, register))
    return msrs.layout.encode_from(from_, info)


def _write_legacy_from(msrs: Msrs, register: MsrRegister, value: int) -> None:
    layout = msrs.layout
    if msrs.model.legacy and msrs.model.legacy.signext_quirk:
        # Bits 62:61 belong to the sign extension, though records have them 0 (spec 3.5).
        if not _canonical_part(msrs, value, 1):
            raise refuse(register, value, "bits 62:61 must be copies of the address's top bit",
                         3 << 61)
    elif (choices.LEGACY_NONCANONICAL_WRITE_FAULTS
          and not _canonical_part(msrs, value, layout.from_flags)):
        raise refuse(register, value, "the address is not canonical", value)
    i = _newest_of(msrs, register)
    _, to, info = msrs.lbr.read_entry(i)
    from_, info = layout.decode_from(value, info)
    msrs.lbr.write_entry(i, from_, to, info)


def _read_legacy_to(msrs: Msrs, register: MsrRegister) -> int:
    _, to, info = msrs.lbr.read_entry(_newest_of(msrs, register))
    return msrs.layout.encode_to(to, info)


def _write_legacy_to(msrs: Msrs, register: MsrRegister, value: int) -> None:
    layout = msrs.layout
    if (choices.LEGACY_NONCANONICAL_WRITE_FAULTS and not layout.to_cycles
            and not _canonical_part(msrs, value, 0)):
        raise refuse(register, value, "the address is not canonical", value)
    i = _newest_of(msrs, register)
    from_, _, info = msrs.lbr.read_entry(i)
    to, info = layout.decode_to(value, info)
    msrs.lbr.write_entry(i, from_, to, info)


def _read_single(msrs: Msrs, register: MsrRegister) -> int:
    from_, to, _ = msrs.lbr.read_entry(_newest_of(msrs, register))
    return FORMATS[0].encode_single(from_, to)


def _write_single(msrs: Msrs, register: MsrRegister, value: int) -> None:
    from_, to = FORMATS[0].decode_single(value)
    msrs.lbr.write_entry(_newest_of(msrs, register), from_, to, 0)


def _read_legacy_info(msrs: Msrs, register: MsrRegister) -> int:
    return msrs.lbr.read_entry(_newest_of(msrs, register))[2]


def _write_legacy_info(msrs: Msrs, register: MsrRegister, value: int) -> None:
    i = _newest_of(msrs, register)
    from_, to, _ = msrs.lbr.read_entry(i)
    msrs.lbr.write_entry(i, from_, to, value)


def _read_legacy_ler_from(msrs: Msrs, register: MsrRegister) -> int:
    from_, _, info = msrs.lbr.ler
    layout = msrs.layout
    return from_ & 0xFFFFFFFF if layout.single else layout.encode_from(from_, info)


def _read_legacy_ler_to(msrs: Msrs, register: MsrRegister) -> int:
    _, to, info = msrs.lbr.ler
    layout = msrs.layout
    return to & 0xFFFFFFFF if layout.single else layout.encode_to(to, info)


# ---------------------------------------------------------------- AMD records

def _read_amd_from(msrs: Msrs, register: MsrRegister) -> int:
    from_, _, info = msrs.lbr.read_entry(register.n)
    return facility.amd_encode_from(from_, info)


def _read_amd_to(msrs: Msrs, register: MsrRegister) -> int:
    return facility.amd_encode_to(*msrs.lbr.read_entry(register.n))


def _write_amd_from(msrs: Msrs, register: MsrRegister, value: int) -> None:
    entry = facility.amd_decode_from(msrs.lbr.read_entry(register.n), value)
    msrs.lbr.write_entry(register.n, *entry)


def _write_amd_to(msrs: Msrs, register: MsrRegister, value: int) -> None:
    entry = facility.amd_decode_to(msrs.lbr.read_entry(register.n), value)
    msrs.lbr.write_entry(register.n, *entry)


def write_ler(part: int) -> Write:
    """The write of LER's FROM, TO or INFO, 0 to 2."""
    def write(msrs: Msrs, register: MsrRegister, value: int) -> None:
        if (part < 2 and not choices.LER_WRITE_IGNORES_HIGH_BITS
                and not is_canonical(value, msrs.model.linear_width)):
            raise refuse(register, value, "the address is not canonical", value)
        ler = list(msrs.lbr.ler)
        ler[part] = value
        msrs.lbr.ler = ler[0], ler[1], ler[2]

    return write


#: AMD's records.
AMD: dict[str, Accessor] = {
    "amd.from": Accessor(_read_amd_from, _write_amd_from),
    "amd.to": Accessor(_read_amd_to, _write_amd_to),
}

#: What the legacy flavour does in the same places.
LEGACY: dict[str, Accessor] = {
    "lbr.single": Accessor(_read_single, _write_single, of_lbr=True),
    "lbr.from": Accessor(_read_legacy_from, _write_legacy_from, of_lbr=True),
    "lbr.to": Accessor(_read_legacy_to, _write_legacy_to, of_lbr=True),
    "lbr.info": Accessor(_read_legacy_info, _write_legacy_info, of_lbr=True),
    "ler.from": Accessor(_read_legacy_ler_from, write_ler(0), of_lbr=True),
    "ler.to": Accessor(_read_legacy_ler_to, write_ler(1), of_lbr=True),
}
