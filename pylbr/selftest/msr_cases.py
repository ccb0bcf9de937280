"""MSRs can and cannot be accessed as CPUID enumerates: the kernel's msrs_test, with LBR rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from lbrcore.config import LbrConfig
from pylbr.arbitration import make_policy
from pylbr.arch import bits
from pylbr.arch.features import CpuModel
from pylbr.arch.register import Access, MsrRegister
from pylbr.arch.registers import registers
from pylbr.cpu import NO_EVENTS, Processor
from pylbr.embed.machine import executable_model
from pylbr.embed.vcpu import VirtualProcessor, guest_model
from pylbr.errors import ConfigurationError, GeneralProtection
from pylbr.kvm.guest_cpuid import GuestCpuid, Host, offer
from pylbr.selftest.ktap import Case

__all__ = ["msr_cases"]

_LBR = ("IA32_LBR_", "IA32_LER_", "MSR_LBR_", "MSR_LER_", "MSR_LASTBRANCH_")
_DEPTH = "IA32_LBR_DEPTH"
_GP = "#GP"
Answer = int | str | None


def _lbr_rows(model: CpuModel) -> list[MsrRegister]:
    """Every MSR of the facility."""
    return [row for row in registers(model).values() if row.name.startswith(_LBR)]


def _facility(model: CpuModel) -> LbrConfig:
    """The host's, as KVM supports it."""
    if model.arch:
        return LbrConfig(depth_bitmap=model.arch.depth_bitmap)
    return LbrConfig.legacy(model.legacy.depth)  # type: ignore[union-attr]


def _answer(cpu: Processor, index: int, value: int | None = None) -> Answer:
    try:
        if value is None:
            return cpu.rdmsr(index)
        cpu.wrmsr(index, value)
        return None
    except GeneralProtection:
        return _GP


def _both(model: CpuModel, policy: str) -> tuple[tuple[str, Processor], ...]:
    return (("a processor", Processor(guest_model(model))),
            (f"a vCPU under {policy}", VirtualProcessor(model, NO_EVENTS, make_policy(policy))))


def _at_reset(model: CpuModel, policy: str) -> list[str]:
    return [f"{row.name} of {who} is {answer}, not {row.reset:#x}"
            for who, cpu in _both(model, policy) for row in _lbr_rows(guest_model(model))
            if (answer := _answer(cpu, row.index)) != row.reset]


def _read_back(model: CpuModel, policy: str) -> list[str]:
    """Each bit that may be written, alone; DEPTH has values instead."""
    wrong = []
    for who, cpu in _both(model, policy):
        for row in _lbr_rows(guest_model(model)):
            if row.row.access is not Access.RW:
                continue
            bits = [] if row.name == _DEPTH else [
                1 << bit for bit in range(64) if row.writable & ~row.free & 1 << bit]
            for value in bits:
                if _canonical(row, value) and (
                        _answer(cpu, row.index, value) == _GP
                        or _answer(cpu, row.index) != value):
                    wrong.append(f"{row.name} of {who} does not keep {value:#x}")
            if bits:
                _answer(cpu, row.index, 0)
    return wrong


def _canonical(row: MsrRegister, value: int) -> bool:
    """Addresses must be canonical, and a single high bit is not."""
    return value < 1 << 47 or "CTL" in row.name or "INFO" in row.name or "SELECT" in row.name


def _reserved(model: CpuModel, policy: str) -> list[str]:
    wrong = []
    for who, cpu in _both(model, policy):
        for row in _lbr_rows(guest_model(model)):
            before = _answer(cpu, row.index)
            for bit in range(64):
                if row.reserved_bits >> bit & 1 and (
                        _answer(cpu, row.index, 1 << bit) != _GP
                        or _answer(cpu, row.index) != before):
                    wrong.append(f"{row.name} of {who} takes bit {bit}")
    return wrong


def _depths(model: CpuModel, policy: str) -> list[str]:
    wrong = []
    for who, cpu in _both(model, policy):
        offered = cpu.rdmsr(bits.IA32_LBR_DEPTH)
        for depth in range(80):
            expected = None if depth == offered else _GP
            if _answer(cpu, bits.IA32_LBR_DEPTH, depth) != expected:
                wrong.append(f"IA32_LBR_DEPTH of {who}: {depth} is not answered by {expected}")
    return wrong


def _absent(model: CpuModel, policy: str) -> list[str]:
    """Without CPUID.07H.0:EDX[19] no MSR answers, and what contradicts is refused."""
    host = Host(_facility(model), model=model.number, lbr_format=0x3F)
    given = offer(host, GuestCpuid(model.number, False, 0, 0, True, 0, 4))
    wrong = []
    for row in _lbr_rows(model):
        try:
            given.check(row.index)
            wrong.append(f"{row.name} answers")
        except GeneralProtection:
            pass
    for bitmap in range(256):
        try:
            offer(host, GuestCpuid(model.number, True, bitmap, 7, True, 0x3F, 4))
            if bitmap != 1 << host.lbr.max_depth // 8 - 1:  # type: ignore[union-attr]
                wrong.append(f"CPUID.1CH:EAX {bitmap:#x} is not refused")
        except ConfigurationError:
            pass
    return wrong


def _formats(model: CpuModel, policy: str) -> list[str]:
    """vmx_pmu_caps_test: every LBR format but 0 and the host's is refused."""
    own = 0x3F if model.arch else model.legacy.format  # type: ignore[union-attr]
    host = Host(_facility(model), model=model.number, lbr_format=own)
    wrong = []
    for form in range(64):
        try:
            offer(host, GuestCpuid(model.number, False, 0, 0, True, form, 4))
            accepted = True
        except ConfigurationError:
            accepted = False
        if accepted != (form in (0, own)):
            wrong.append(f"LBR_FMT {form:#x} is {'accepted' if accepted else 'refused'}")
    return wrong


#: Checks of each register of the table.
_TABLE: Final = (_at_reset, _read_back, _reserved)


def _run(check: Callable[[CpuModel, str], list[str]], model: CpuModel,
         policy: str) -> tuple[bool, list[str]]:
    wrong = check(model, policy)
    said = [] if wrong or check not in _TABLE else [f"{len(_lbr_rows(model))} registers"]
    return not wrong, wrong[:5] or said


def msr_cases(name: str, policy: str) -> list[Case]:
    """Cases for a model and a policy, none of which has a host that contends."""
    model = executable_model(name)
    checks: list[tuple[str, Callable[[CpuModel, str], list[str]]]] = [
        ("msrs_test: value at reset", _at_reset),
        ("msrs_test: every writable bit reads back", _read_back),
        ("msrs_test: every reserved bit faults", _reserved),
        ("vmx_pmu_caps_test: every LBR format", _formats)]
    if model.arch:
        checks += [("every depth", _depths), ("CPUID without LBRs, and with each bitmap", _absent)]
    return [Case(what, partial(_run, check, model, policy)) for what, check in checks]
