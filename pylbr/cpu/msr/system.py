"""Accessors of registers with a value of their own, and of IA32_DEBUGCTL."""

from __future__ import annotations

from pylbr.arch.bits import (
    PERF_CAPABILITIES_LBR_FMT,
    PERF_CAPABILITIES_PEBS_ARCH_REG,
    PERF_CAPABILITIES_PEBS_BASELINE,
    PERF_CAPABILITIES_PEBS_REC_FMT,
    PERF_CAPABILITIES_PEBS_TRAP,
)
from pylbr.arch.fields import is_canonical
from pylbr.arch.refusals import format_rule
from pylbr.arch.register import MsrRegister
from pylbr.cpu.msr.accessor import Accessor, refuse
from pylbr.cpu.msr.values import Msrs

__all__ = ["SYSTEM"]


def _read_plain(msrs: Msrs, register: MsrRegister) -> int:
    return msrs.values.get(register.index, register.reset)


def _write_plain(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.values[register.index] = value & register.writable


def _write_canonical(msrs: Msrs, register: MsrRegister, value: int) -> None:
    if not is_canonical(value, msrs.model.linear_width):
        raise refuse(register, value, "the address is not canonical", value)
    msrs.values[register.index] = value


def _read_constant(msrs: Msrs, register: MsrRegister) -> int:
    return register.reset


def _write_constant(msrs: Msrs, register: MsrRegister, value: int) -> None:
    if value != register.reset:
        raise refuse(register, value, "the value is a constant of the model",
                     value ^ register.reset)


_PEBS_FIELDS = (
    PERF_CAPABILITIES_PEBS_TRAP | PERF_CAPABILITIES_PEBS_ARCH_REG
    | PERF_CAPABILITIES_PEBS_REC_FMT | PERF_CAPABILITIES_PEBS_BASELINE)


def _write_capabilities(msrs: Msrs, register: MsrRegister, value: int) -> None:
    """What a host may give a guest: features taken away, formats 0 or the model's own.

    With a PEBS format the PEBS flags are the model's (KVM's vmx_set_msr).
    """
    if value & PERF_CAPABILITIES_LBR_FMT not in (0, msrs.model.lbr_format):
        raise refuse(register, value, format_rule(msrs.model),
                     value & PERF_CAPABILITIES_LBR_FMT)
    if value & ~register.reset & ~PERF_CAPABILITIES_LBR_FMT:
        raise refuse(register, value, "the model lacks the feature",
                     value & ~register.reset & ~PERF_CAPABILITIES_LBR_FMT)
    if value & PERF_CAPABILITIES_PEBS_REC_FMT and (value ^ register.reset) & _PEBS_FIELDS:
        raise refuse(register, value, "the PEBS fields must be the model's, or PEBS_REC_FMT 0",
                     (value ^ register.reset) & _PEBS_FIELDS)
    msrs.values[register.index] = value


def _write_rtit(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.values[register.index] = value
    msrs.sync()


def _read_debugctl(msrs: Msrs, register: MsrRegister) -> int:
    return msrs.hardware.debugctl


def _write_debugctl(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.set_debugctl(value & register.writable)


SYSTEM: dict[str, Accessor] = {
    "plain": Accessor(_read_plain, _write_plain),
    "canonical": Accessor(_read_plain, _write_canonical),
    "constant": Accessor(_read_constant, _write_constant),
    "capabilities": Accessor(_read_plain, _write_capabilities),
    "rtit": Accessor(_read_plain, _write_rtit),
    "debugctl": Accessor(_read_debugctl, _write_debugctl),
}
