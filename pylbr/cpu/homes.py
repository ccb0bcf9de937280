"""Where register values live: one pair of functions a home, named by the rows' `home`.

A read never changes anything.  A write gets a value whose reserved bits have been checked
and masks what the row says is ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbrcore import Fault
from pylbr.arch.fields import is_canonical
from pylbr.arch.register import MsrRegister
from pylbr.cpu.home import Home, Read, Write, refuse
from pylbr.cpu.homes_legacy import AMD_HOMES, LEGACY_HOMES, write_ler
from pylbr.cpu.homes_pmu import PMU_HOMES
from pylbr.errors import GeneralProtection

if TYPE_CHECKING:
    from pylbr.cpu.base import Base

__all__ = ["HOMES", "LEGACY_HOMES"]


def _beyond_depth(cpu: Base, register: MsrRegister, value: int | None = None
                  ) -> GeneralProtection:
    return refuse(register, value, f"the number is not below the depth, {cpu.lbr.depth}")


# ---------------------------------------------------------------- stores of their own

def _read_plain(cpu: Base, register: MsrRegister) -> int:
    return cpu.values.get(register.index, register.reset)


def _write_plain(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.values[register.index] = value & register.writable


def _write_canonical(cpu: Base, register: MsrRegister, value: int) -> None:
    if not is_canonical(value, cpu.model.linear_width):
        raise refuse(register, value, "the address is not canonical", value)
    cpu.values[register.index] = value


def _read_constant(cpu: Base, register: MsrRegister) -> int:
    return register.reset


def _write_constant(cpu: Base, register: MsrRegister, value: int) -> None:
    if value != register.reset:
        raise refuse(register, value, "the value is a constant of the model",
                     value ^ register.reset)


#: IA32_PERF_CAPABILITIES: PEBS_REC_FMT; with PEBS_TRAP, PEBS_ARCH_REG and PEBS_BASELINE.
_PEBS_FORMAT, _PEBS_FIELDS = 0xF00, 0x4FC0


def _write_capabilities(cpu: Base, register: MsrRegister, value: int) -> None:
    """What a host may give a guest: features taken away, formats 0 or the model's own.

    With a PEBS format the PEBS flags are the model's (KVM's vmx_set_msr).
    """
    if value & 0x3F not in (0, cpu.model.lbr_format):
        raise refuse(register, value, f"LBR_FMT must be 0 or {cpu.model.lbr_format:#x}",
                     value & 0x3F)
    if value & ~register.reset & ~0x3F:
        raise refuse(register, value, "the model lacks the feature",
                     value & ~register.reset & ~0x3F)
    if value & _PEBS_FORMAT and (value ^ register.reset) & _PEBS_FIELDS:
        raise refuse(register, value, "the PEBS fields must be the model's, or PEBS_REC_FMT 0",
                     (value ^ register.reset) & _PEBS_FIELDS)
    cpu.values[register.index] = value


def _write_rtit(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.values[register.index] = value
    cpu.sync()


# ---------------------------------------------------------------- DEBUGCTL

def _read_debugctl(cpu: Base, register: MsrRegister) -> int:
    return cpu.debugctl


def _write_debugctl(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.debugctl = value & register.writable
    cpu.sync()


def _read_amd_config(cpu: Base, register: MsrRegister) -> int:
    return int(cpu.lbr.enable) << 6


def _write_amd_config(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.lbr.enable = bool(value & 1 << 6)


# ---------------------------------------------------------------- LBR control

def _read_ctl(cpu: Base, register: MsrRegister) -> int:
    return cpu.lbr.ctl


def _write_ctl(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.lbr.ctl = value


def _write_select(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.set_select(value)


def _read_depth(cpu: Base, register: MsrRegister) -> int:
    return cpu.lbr.depth


def _write_depth(cpu: Base, register: MsrRegister, value: int) -> None:
    try:
        cpu.lbr.depth = value
    except Fault:
        depths = ", ".join(map(str, cpu.model.lbr.depths))
        raise refuse(register, value, f"the depths are {depths}", value) from None


def _read_tos(cpu: Base, register: MsrRegister) -> int:
    return cpu.lbr.tos


def _write_tos(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.lbr.tos = value


# ---------------------------------------------------------------- architectural records

def _read_from(cpu: Base, register: MsrRegister) -> int:
    try:
        return cpu.lbr.read_entry(register.n)[0]
    except Fault:
        raise _beyond_depth(cpu, register) from None


def _read_to(cpu: Base, register: MsrRegister) -> int:
    try:
        return cpu.lbr.read_entry(register.n)[1]
    except Fault:
        raise _beyond_depth(cpu, register) from None


def _read_info(cpu: Base, register: MsrRegister) -> int:
    try:
        return cpu.lbr.read_entry(register.n)[2]
    except Fault:
        raise _beyond_depth(cpu, register) from None


def _writer(part: int) -> Write:
    def write(cpu: Base, register: MsrRegister, value: int) -> None:
        try:
            from_, to, info = cpu.lbr.read_entry(register.n)
        except Fault:
            raise _beyond_depth(cpu, register, value) from None
        parts = [from_, to, info]
        parts[part] = value
        cpu.lbr.write_entry(register.n, parts[0], parts[1], parts[2])

    return write


def _ler_reader(part: int) -> Read:
    def read(cpu: Base, register: MsrRegister) -> int:
        return cpu.lbr.ler[part]

    return read


#: Home -> functions.
HOMES: dict[str, Home] = {
    "plain": Home(_read_plain, _write_plain),
    "canonical": Home(_read_plain, _write_canonical),
    "constant": Home(_read_constant, _write_constant),
    "capabilities": Home(_read_plain, _write_capabilities),
    "rtit": Home(_read_plain, _write_rtit),
    "debugctl": Home(_read_debugctl, _write_debugctl),
    "lbr.ctl": Home(_read_ctl, _write_ctl),
    "lbr.depth": Home(_read_depth, _write_depth),
    "lbr.select": Home(_read_ctl, _write_select, of_lbr=True),
    "lbr.tos": Home(_read_tos, _write_tos, of_lbr=True),
    "lbr.from": Home(_read_from, _writer(0)),
    "lbr.to": Home(_read_to, _writer(1)),
    "lbr.info": Home(_read_info, _writer(2)),
    "ler.from": Home(_ler_reader(0), write_ler(0)),
    "ler.to": Home(_ler_reader(1), write_ler(1)),
    "ler.info": Home(_ler_reader(2), write_ler(2)),
    "amd.config": Home(_read_amd_config, _write_amd_config),
    **PMU_HOMES,
    **AMD_HOMES,
}
