"""Homes of the PMU registers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pylbr.arch.fields import sign_extend
from pylbr.arch.register import MsrRegister
from pylbr.cpu.home import Home, refuse
from pylbr.cpu.pmu import EVTSEL_IN_TXCP, EVTSEL_LBR_LOG

if TYPE_CHECKING:
    from pylbr.cpu.base import Base

__all__ = ["PMU_HOMES"]


def _read_pmc(cpu: Base, register: MsrRegister) -> int:
    return cpu.pmu.pmc[register.n]


def _write_pmc(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.pmu.pmc[register.n] = sign_extend(value, 32) & cpu.pmu.pmc_mask


def _write_pmc_full(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.pmu.pmc[register.n] = value


def _read_fixed(cpu: Base, register: MsrRegister) -> int:
    return cpu.pmu.fixed[register.n]


def _write_fixed(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.pmu.fixed[register.n] = value


def _read_evtsel(cpu: Base, register: MsrRegister) -> int:
    return cpu.pmu.evtsel[register.n]


def _write_evtsel(cpu: Base, register: MsrRegister, value: int) -> None:
    if cpu.model.intel:
        if value & EVTSEL_IN_TXCP and register.n != 2:
            raise refuse(register, value, "IN_TXCP exists in IA32_PERFEVTSEL2 alone",
                         EVTSEL_IN_TXCP)
        arch = cpu.model.arch
        if value & EVTSEL_LBR_LOG and not (arch and arch.event_logging >> register.n & 1):
            raise refuse(register, value, "CPUID.1CH:ECX[19:16] offers no event logging for "
                         "this counter", EVTSEL_LBR_LOG)
    cpu.pmu.evtsel[register.n] = value
    cpu.pmu_changed()


def _read_fixed_ctrl(cpu: Base, register: MsrRegister) -> int:
    return cpu.pmu.fixed_ctrl


def _write_fixed_ctrl(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.pmu.fixed_ctrl = value
    cpu.pmu_changed()


def _read_global_ctrl(cpu: Base, register: MsrRegister) -> int:
    return cpu.pmu.global_ctrl


def _write_global_ctrl(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.pmu.global_ctrl = value
    cpu.pmu_changed()


def _read_status(cpu: Base, register: MsrRegister) -> int:
    return cpu.pmu.status


def _write_status(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.set_status(value)


def _read_zero(cpu: Base, register: MsrRegister) -> int:
    return 0


def _write_status_reset(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.set_status(cpu.pmu.status & ~value)


def _write_status_set(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.set_status(cpu.pmu.status | value)


def _read_in_use(cpu: Base, register: MsrRegister) -> int:
    return cpu.pmu.in_use()


def _write_in_use(cpu: Base, register: MsrRegister, value: int) -> None:
    if value != cpu.pmu.in_use():
        raise refuse(register, value, "the register follows the control registers")


def _read_pebs_enable(cpu: Base, register: MsrRegister) -> int:
    return cpu.pmu.pebs_enable


def _write_pebs_enable(cpu: Base, register: MsrRegister, value: int) -> None:
    cpu.pmu.pebs_enable = value
    cpu.pmu_changed()


PMU_HOMES: dict[str, Home] = {
    "pmc": Home(_read_pmc, _write_pmc),
    "pmc.full": Home(_read_pmc, _write_pmc_full),
    "fixed": Home(_read_fixed, _write_fixed),
    "evtsel": Home(_read_evtsel, _write_evtsel),
    "fixed.ctrl": Home(_read_fixed_ctrl, _write_fixed_ctrl),
    "global.ctrl": Home(_read_global_ctrl, _write_global_ctrl),
    "global.status": Home(_read_status, _write_status),
    "global.reset": Home(_read_zero, _write_status_reset),
    "global.set": Home(_read_zero, _write_status_set),
    "global.inuse": Home(_read_in_use, _write_in_use),
    "pebs.enable": Home(_read_pebs_enable, _write_pebs_enable),
}
