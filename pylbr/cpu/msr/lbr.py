"""Accessors of the LBR control registers, the architectural records and LER."""

from __future__ import annotations

from lbrcore import Fault
from pylbr.arch.bits import DBG_EXTN_CFG_LBRV2EN
from pylbr.arch.refusals import depth_rule
from pylbr.arch.register import MsrRegister
from pylbr.cpu.msr.accessor import Accessor, Read, Write, refuse
from pylbr.cpu.msr.lbr_legacy import write_ler
from pylbr.cpu.msr.values import Msrs
from pylbr.errors import GeneralProtection

__all__ = ["LBR"]


def _beyond_depth(msrs: Msrs, register: MsrRegister, value: int | None = None
                  ) -> GeneralProtection:
    return refuse(register, value, f"the number is not below the depth, {msrs.lbr.depth}")


def _read_amd_config(msrs: Msrs, register: MsrRegister) -> int:
    return DBG_EXTN_CFG_LBRV2EN if msrs.lbr.enable else 0


def _write_amd_config(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.lbr.enable = bool(value & DBG_EXTN_CFG_LBRV2EN)


def _read_ctl(msrs: Msrs, register: MsrRegister) -> int:
    return msrs.lbr.ctl


def _write_ctl(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.lbr.ctl = value


def _write_select(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.set_select(value)


def _read_depth(msrs: Msrs, register: MsrRegister) -> int:
    return msrs.lbr.depth


def _write_depth(msrs: Msrs, register: MsrRegister, value: int) -> None:
    try:
        msrs.lbr.depth = value
    except Fault:
        raise refuse(register, value, depth_rule(msrs.model), value) from None


def _read_tos(msrs: Msrs, register: MsrRegister) -> int:
    return msrs.lbr.tos


def _write_tos(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.lbr.tos = value


# ---------------------------------------------------------------- architectural records

def _read_from(msrs: Msrs, register: MsrRegister) -> int:
    try:
        return msrs.lbr.read_entry(register.n)[0]
    except Fault:
        raise _beyond_depth(msrs, register) from None


def _read_to(msrs: Msrs, register: MsrRegister) -> int:
    try:
        return msrs.lbr.read_entry(register.n)[1]
    except Fault:
        raise _beyond_depth(msrs, register) from None


def _read_info(msrs: Msrs, register: MsrRegister) -> int:
    try:
        return msrs.lbr.read_entry(register.n)[2]
    except Fault:
        raise _beyond_depth(msrs, register) from None


def _writer(part: int) -> Write:
    def write(msrs: Msrs, register: MsrRegister, value: int) -> None:
        try:
            from_, to, info = msrs.lbr.read_entry(register.n)
        except Fault:
            raise _beyond_depth(msrs, register, value) from None
        parts = [from_, to, info]
        parts[part] = value
        msrs.lbr.write_entry(register.n, parts[0], parts[1], parts[2])

    return write


def _ler_reader(part: int) -> Read:
    def read(msrs: Msrs, register: MsrRegister) -> int:
        return msrs.lbr.ler[part]

    return read


#: Accessors of the architectural flavour, and of what all flavours have.
LBR: dict[str, Accessor] = {
    "lbr.ctl": Accessor(_read_ctl, _write_ctl),
    "lbr.depth": Accessor(_read_depth, _write_depth),
    "lbr.select": Accessor(_read_ctl, _write_select, of_lbr=True),
    "lbr.tos": Accessor(_read_tos, _write_tos, of_lbr=True),
    "lbr.from": Accessor(_read_from, _writer(0)),
    "lbr.to": Accessor(_read_to, _writer(1)),
    "lbr.info": Accessor(_read_info, _writer(2)),
    "ler.from": Accessor(_ler_reader(0), write_ler(0)),
    "ler.to": Accessor(_ler_reader(1), write_ler(1)),
    "ler.info": Accessor(_ler_reader(2), write_ler(2)),
    "amd.config": Accessor(_read_amd_config, _write_amd_config),
}
