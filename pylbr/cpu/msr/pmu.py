"""Accessors of the PMU registers."""

from __future__ import annotations

from pylbr.arch.bits import CFG_C_EN, EVTSEL_EN_LBR_LOG, EVTSEL_IN_TXCP
from pylbr.arch.fields import sign_extend
from pylbr.arch.register import MsrRegister
from pylbr.cpu.msr.accessor import Accessor, refuse
from pylbr.cpu.msr.values import Msrs

__all__ = ["PMU"]


def _read_pmc(msrs: Msrs, register: MsrRegister) -> int:
    return msrs.pmu.pmc[register.n]


def _write_pmc(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.pmu.pmc[register.n] = sign_extend(value, 32) & msrs.pmu.pmc_mask


def _write_pmc_full(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.pmu.pmc[register.n] = value


def _read_fixed(msrs: Msrs, register: MsrRegister) -> int:
    return msrs.pmu.fixed[register.n]


def _write_fixed(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.pmu.fixed[register.n] = value


def _read_evtsel(msrs: Msrs, register: MsrRegister) -> int:
    return msrs.pmu.evtsel[register.n]


def _write_evtsel(msrs: Msrs, register: MsrRegister, value: int) -> None:
    if msrs.model.intel:
        if value & EVTSEL_IN_TXCP and register.n != 2:
            raise refuse(register, value, "IN_TXCP exists in IA32_PERFEVTSEL2 alone",
                         EVTSEL_IN_TXCP)
        arch = msrs.model.arch
        if value & EVTSEL_EN_LBR_LOG and not (arch and arch.event_logging >> register.n & 1):
            raise refuse(register, value, "CPUID.1CH:ECX[19:16] offers no event logging for "
                         "this counter", EVTSEL_EN_LBR_LOG)
    msrs.pmu.evtsel[register.n] = value
    msrs.pmu_changed()


def _read_fixed_ctrl(msrs: Msrs, register: MsrRegister) -> int:
    return msrs.pmu.fixed_ctrl


def _write_fixed_ctrl(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.pmu.fixed_ctrl = value
    msrs.pmu_changed()


def _read_global_ctrl(msrs: Msrs, register: MsrRegister) -> int:
    return msrs.pmu.global_ctrl


def _write_global_ctrl(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.pmu.global_ctrl = value
    msrs.pmu_changed()


def _read_status(msrs: Msrs, register: MsrRegister) -> int:
    return msrs.pmu.status


def _write_status(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.set_status(value)


def _read_zero(msrs: Msrs, register: MsrRegister) -> int:
    return 0


def _write_status_reset(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.set_status(msrs.pmu.status & ~value)


def _write_status_set(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.set_status(msrs.pmu.status | value)


def _read_in_use(msrs: Msrs, register: MsrRegister) -> int:
    return msrs.pmu.in_use()


def _write_in_use(msrs: Msrs, register: MsrRegister, value: int) -> None:
    if value != msrs.pmu.in_use():
        raise refuse(register, value, "the register follows the control registers")


def _read_pebs_enable(msrs: Msrs, register: MsrRegister) -> int:
    return msrs.pmu.pebs_enable


def _write_pebs_enable(msrs: Msrs, register: MsrRegister, value: int) -> None:
    msrs.pmu.pebs_enable = value
    msrs.pmu_changed()


def _pebs_counter(first: int) -> Accessor:
    """CFG_C of the counters from bit `first` of IA32_PERF_GLOBAL_CTRL: EN is kept with the
    enables of IA32_PEBS_ENABLE, which a processor with these registers does not have."""

    def read(msrs: Msrs, register: MsrRegister) -> int:
        return msrs.values.get(register.index, 0)

    def write(msrs: Msrs, register: MsrRegister, value: int) -> None:
        msrs.values[register.index] = value
        bit = 1 << first + register.n
        enabled = bit if value & CFG_C_EN else 0
        msrs.pmu.pebs_enable = msrs.pmu.pebs_enable & ~bit | enabled
        msrs.pmu_changed()

    return Accessor(read, write)


PMU: dict[str, Accessor] = {
    "pmc": Accessor(_read_pmc, _write_pmc),
    "pmc.full": Accessor(_read_pmc, _write_pmc_full),
    "fixed": Accessor(_read_fixed, _write_fixed),
    "evtsel": Accessor(_read_evtsel, _write_evtsel),
    "fixed.ctrl": Accessor(_read_fixed_ctrl, _write_fixed_ctrl),
    "global.ctrl": Accessor(_read_global_ctrl, _write_global_ctrl),
    "global.status": Accessor(_read_status, _write_status),
    "global.reset": Accessor(_read_zero, _write_status_reset),
    "global.set": Accessor(_read_zero, _write_status_set),
    "global.inuse": Accessor(_read_in_use, _write_in_use),
    "pebs.enable": Accessor(_read_pebs_enable, _write_pebs_enable),
    "pebs.general": _pebs_counter(0),
    "pebs.fixed": _pebs_counter(32),
}
