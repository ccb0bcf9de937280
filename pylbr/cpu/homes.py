"""Where register values live: one pair of functions a home, named by the rows' `home`.

A read never changes anything.  A write gets a value whose reserved bits have been checked
and masks what the row says is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lbrcore import Fault
from pylbr.arch import choices
from pylbr.arch.fields import is_canonical, sign_extend
from pylbr.arch.formats import FORMATS
from pylbr.arch.register import MsrRegister
from pylbr.cpu import facility
from pylbr.cpu.pmu import EVTSEL_IN_TXCP, EVTSEL_LBR_LOG
from pylbr.errors import GeneralProtection

if TYPE_CHECKING:
    from pylbr.cpu.processor import Processor

__all__ = ["HOMES", "Home", "Read", "Write"]

Read = Callable[["Processor", MsrRegister], int]
Write = Callable[["Processor", MsrRegister, int], None]


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


def _beyond_depth(cpu: Processor, register: MsrRegister, value: int | None = None
                  ) -> GeneralProtection:
    return refuse(register, value, f"the number is not below the depth, {cpu.lbr.depth}")


# ---------------------------------------------------------------- stores of their own

def _read_plain(cpu: Processor, register: MsrRegister) -> int:
    return cpu.values.get(register.index, register.reset)


def _write_plain(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.values[register.index] = value & register.writable


def _write_canonical(cpu: Processor, register: MsrRegister, value: int) -> None:
    if not is_canonical(value, cpu.model.linear_width):
        raise refuse(register, value, "the address is not canonical", value)
    cpu.values[register.index] = value


def _read_constant(cpu: Processor, register: MsrRegister) -> int:
    return register.reset


def _write_constant(cpu: Processor, register: MsrRegister, value: int) -> None:
    if value != register.reset:
        raise refuse(register, value, "the value is a constant of the model",
                     value ^ register.reset)


def _write_capabilities(cpu: Processor, register: MsrRegister, value: int) -> None:
    """What a host may give a guest: features taken away, LBR_FMT 0 or the model's own."""
    if value & 0x3F not in (0, cpu.model.lbr_format):
        raise refuse(register, value, f"LBR_FMT must be 0 or {cpu.model.lbr_format:#x}",
                     value & 0x3F)
    if value & ~register.reset & ~0x3F:
        raise refuse(register, value, "the model lacks the feature",
                     value & ~register.reset & ~0x3F)
    cpu.values[register.index] = value


def _write_rtit(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.values[register.index] = value
    cpu.sync()


# ---------------------------------------------------------------- DEBUGCTL

def _read_debugctl(cpu: Processor, register: MsrRegister) -> int:
    return cpu.debugctl


def _write_debugctl(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.debugctl = value & register.writable
    cpu.sync()


def _read_amd_config(cpu: Processor, register: MsrRegister) -> int:
    return int(cpu.lbr.enable) << 6


def _write_amd_config(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.lbr.enable = bool(value & 1 << 6)


# ---------------------------------------------------------------- LBR control

def _read_ctl(cpu: Processor, register: MsrRegister) -> int:
    return cpu.lbr.ctl


def _write_ctl(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.lbr.ctl = value


def _read_depth(cpu: Processor, register: MsrRegister) -> int:
    return cpu.lbr.depth


def _write_depth(cpu: Processor, register: MsrRegister, value: int) -> None:
    try:
        cpu.lbr.depth = value
    except Fault:
        depths = ", ".join(map(str, cpu.model.lbr.depths))
        raise refuse(register, value, f"the depths are {depths}", value) from None


def _read_tos(cpu: Processor, register: MsrRegister) -> int:
    return cpu.lbr.tos


def _write_tos(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.lbr.tos = value


# ---------------------------------------------------------------- architectural records

def _read_from(cpu: Processor, register: MsrRegister) -> int:
    try:
        return cpu.lbr.read_entry(register.n)[0]
    except Fault:
        raise _beyond_depth(cpu, register) from None


def _read_to(cpu: Processor, register: MsrRegister) -> int:
    try:
        return cpu.lbr.read_entry(register.n)[1]
    except Fault:
        raise _beyond_depth(cpu, register) from None


def _read_info(cpu: Processor, register: MsrRegister) -> int:
    try:
        return cpu.lbr.read_entry(register.n)[2]
    except Fault:
        raise _beyond_depth(cpu, register) from None


def _writer(part: int) -> Write:
    def write(cpu: Processor, register: MsrRegister, value: int) -> None:
        try:
            entry = list(cpu.lbr.read_entry(register.n))
        except Fault:
            raise _beyond_depth(cpu, register, value) from None
        entry[part] = value
        cpu.lbr.write_entry(register.n, *entry)

    return write


def _ler_reader(part: int) -> Read:
    def read(cpu: Processor, register: MsrRegister) -> int:
        return cpu.lbr.ler[part]

    return read


def _ler_writer(part: int) -> Write:
    def write(cpu: Processor, register: MsrRegister, value: int) -> None:
        if (part < 2 and not choices.LER_WRITE_IGNORES_HIGH_BITS
                and not is_canonical(value, cpu.model.linear_width)):
            raise refuse(register, value, "the address is not canonical", value)
        ler = list(cpu.lbr.ler)
        ler[part] = value
        cpu.lbr.ler = tuple(ler)

    return write


# ---------------------------------------------------------------- legacy records

def _newest_of(cpu: Processor, register: MsrRegister) -> int:
    """Distance of a physical register from the newest record."""
    return (cpu.lbr.tos - register.n) % cpu.lbr.depth


def _canonical_part(cpu: Processor, value: int, flags: int) -> bool:
    """Bits between the flags and the linear address are copies of the address's top bit."""
    width = cpu.model.linear_width
    if width <= 32:
        return True
    shown = sign_extend(value, width) & ((1 << (64 - flags)) - 1)
    return value & ((1 << (64 - flags)) - 1) == shown


def _read_legacy_from(cpu: Processor, register: MsrRegister) -> int:
    from_, _, info = cpu.lbr.read_entry(_newest_of(cpu, register))
    return cpu.layout.encode_from(from_, info)


def _write_legacy_from(cpu: Processor, register: MsrRegister, value: int) -> None:
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


def _read_legacy_to(cpu: Processor, register: MsrRegister) -> int:
    _, to, info = cpu.lbr.read_entry(_newest_of(cpu, register))
    return cpu.layout.encode_to(to, info)


def _write_legacy_to(cpu: Processor, register: MsrRegister, value: int) -> None:
    layout = cpu.layout
    if (choices.LEGACY_NONCANONICAL_WRITE_FAULTS and not layout.to_cycles
            and not _canonical_part(cpu, value, 0)):
        raise refuse(register, value, "the address is not canonical", value)
    i = _newest_of(cpu, register)
    from_, _, info = cpu.lbr.read_entry(i)
    to, info = layout.decode_to(value, info)
    cpu.lbr.write_entry(i, from_, to, info)


def _read_single(cpu: Processor, register: MsrRegister) -> int:
    from_, to, _ = cpu.lbr.read_entry(_newest_of(cpu, register))
    return FORMATS[0].encode_single(from_, to)


def _write_single(cpu: Processor, register: MsrRegister, value: int) -> None:
    from_, to = FORMATS[0].decode_single(value)
    cpu.lbr.write_entry(_newest_of(cpu, register), from_, to, 0)


def _read_legacy_info(cpu: Processor, register: MsrRegister) -> int:
    return cpu.lbr.read_entry(_newest_of(cpu, register))[2]


def _write_legacy_info(cpu: Processor, register: MsrRegister, value: int) -> None:
    i = _newest_of(cpu, register)
    from_, to, _ = cpu.lbr.read_entry(i)
    cpu.lbr.write_entry(i, from_, to, value)


def _read_legacy_ler_from(cpu: Processor, register: MsrRegister) -> int:
    from_, _, info = cpu.lbr.ler
    layout = cpu.layout
    return from_ & 0xFFFFFFFF if layout.single else layout.encode_from(from_, info)


def _read_legacy_ler_to(cpu: Processor, register: MsrRegister) -> int:
    _, to, info = cpu.lbr.ler
    layout = cpu.layout
    return to & 0xFFFFFFFF if layout.single else layout.encode_to(to, info)


# ---------------------------------------------------------------- AMD records

def _read_amd_from(cpu: Processor, register: MsrRegister) -> int:
    from_, _, info = cpu.lbr.read_entry(register.n)
    return facility.amd_encode_from(from_, info)


def _read_amd_to(cpu: Processor, register: MsrRegister) -> int:
    return facility.amd_encode_to(*cpu.lbr.read_entry(register.n))


def _write_amd_from(cpu: Processor, register: MsrRegister, value: int) -> None:
    entry = facility.amd_decode_from(cpu.lbr.read_entry(register.n), value)
    cpu.lbr.write_entry(register.n, *entry)


def _write_amd_to(cpu: Processor, register: MsrRegister, value: int) -> None:
    entry = facility.amd_decode_to(cpu.lbr.read_entry(register.n), value)
    cpu.lbr.write_entry(register.n, *entry)


# ---------------------------------------------------------------- PMU

def _read_pmc(cpu: Processor, register: MsrRegister) -> int:
    return cpu.pmu.pmc[register.n]


def _write_pmc(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.pmu.pmc[register.n] = sign_extend(value, 32) & cpu.pmu.pmc_mask


def _write_pmc_full(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.pmu.pmc[register.n] = value


def _read_fixed(cpu: Processor, register: MsrRegister) -> int:
    return cpu.pmu.fixed[register.n]


def _write_fixed(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.pmu.fixed[register.n] = value


def _read_evtsel(cpu: Processor, register: MsrRegister) -> int:
    return cpu.pmu.evtsel[register.n]


def _write_evtsel(cpu: Processor, register: MsrRegister, value: int) -> None:
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


def _read_fixed_ctrl(cpu: Processor, register: MsrRegister) -> int:
    return cpu.pmu.fixed_ctrl


def _write_fixed_ctrl(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.pmu.fixed_ctrl = value
    cpu.pmu_changed()


def _read_global_ctrl(cpu: Processor, register: MsrRegister) -> int:
    return cpu.pmu.global_ctrl


def _write_global_ctrl(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.pmu.global_ctrl = value
    cpu.pmu_changed()


def _read_status(cpu: Processor, register: MsrRegister) -> int:
    return cpu.pmu.status


def _write_status(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.set_status(value)


def _read_zero(cpu: Processor, register: MsrRegister) -> int:
    return 0


def _write_status_reset(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.set_status(cpu.pmu.status & ~value)


def _write_status_set(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.set_status(cpu.pmu.status | value)


def _read_in_use(cpu: Processor, register: MsrRegister) -> int:
    return cpu.pmu.in_use()


def _write_in_use(cpu: Processor, register: MsrRegister, value: int) -> None:
    if value != cpu.pmu.in_use():
        raise refuse(register, value, "the register follows the control registers")


def _read_pebs_enable(cpu: Processor, register: MsrRegister) -> int:
    return cpu.pmu.pebs_enable


def _write_pebs_enable(cpu: Processor, register: MsrRegister, value: int) -> None:
    cpu.pmu.pebs_enable = value
    cpu.pmu_changed()


#: Home -> functions.  The legacy flavour's ``lbr.*`` homes are `LEGACY_HOMES`.
HOMES: dict[str, Home] = {
    "plain": Home(_read_plain, _write_plain),
    "canonical": Home(_read_plain, _write_canonical),
    "constant": Home(_read_constant, _write_constant),
    "capabilities": Home(_read_plain, _write_capabilities),
    "rtit": Home(_read_plain, _write_rtit),
    "debugctl": Home(_read_debugctl, _write_debugctl),
    "lbr.ctl": Home(_read_ctl, _write_ctl),
    "lbr.depth": Home(_read_depth, _write_depth),
    "lbr.select": Home(_read_ctl, _write_ctl, of_lbr=True),
    "lbr.tos": Home(_read_tos, _write_tos, of_lbr=True),
    "lbr.from": Home(_read_from, _writer(0)),
    "lbr.to": Home(_read_to, _writer(1)),
    "lbr.info": Home(_read_info, _writer(2)),
    "lbr.single": Home(_read_single, _write_single, of_lbr=True),
    "ler.from": Home(_ler_reader(0), _ler_writer(0)),
    "ler.to": Home(_ler_reader(1), _ler_writer(1)),
    "ler.info": Home(_ler_reader(2), _ler_writer(2)),
    "amd.config": Home(_read_amd_config, _write_amd_config),
    "amd.from": Home(_read_amd_from, _write_amd_from),
    "amd.to": Home(_read_amd_to, _write_amd_to),
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

#: What the legacy flavour does in the same places.
LEGACY_HOMES: dict[str, Home] = {
    "lbr.from": Home(_read_legacy_from, _write_legacy_from, of_lbr=True),
    "lbr.to": Home(_read_legacy_to, _write_legacy_to, of_lbr=True),
    "lbr.info": Home(_read_legacy_info, _write_legacy_info, of_lbr=True),
    "ler.from": Home(_read_legacy_ler_from, _ler_writer(0), of_lbr=True),
    "ler.to": Home(_read_legacy_ler_to, _ler_writer(1), of_lbr=True),
}
