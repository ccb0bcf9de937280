"""The instructions that reach the LBR facility and its surroundings, on an engine.

RDMSR, WRMSR, RDPMC, XSAVES, XRSTORS and CPUID as the SDM vol. 2 has them.  Each raises
`GuestFault` where the guest would see an exception, and leaves the state as it was.
"""

from __future__ import annotations

from functools import lru_cache

import capstone
from capstone import x86
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc
from unicorn import x86_const as reg

from pylbr.arch import CPUID_FIELDS
from pylbr.cpu import InvalidOpcode, Processor
from pylbr.embed import fxsave
from pylbr.embed.engine import Engine, GuestFault
from pylbr.errors import GeneralProtection, UnsupportedFeature
from pylbr.x86.engine import decoder

__all__ = [
    "cpuid", "native_msr", "operand_address", "rdpmc", "xrstors", "xsaves", "xsetbv",
]

UNDEFINED, NO_DEVICE, PROTECTION = 6, 7, 13
_CR0_TS, _CR4_PCE, _CR4_OSXSAVE = 1 << 3, 1 << 8, 1 << 18
_FIXED, _METRICS = 1 << 30, 1 << 29
_HEADER_END, _AREA = 576, 576 + 808
_XSTATE_BV = slice(512, 520)

#: MSRs that the engine keeps itself: TSC, APIC base, SYSENTER, MTRRs, PAT, IA32_MISC_ENABLE,
#: EFER, SYSCALL, FS, GS and TSC_AUX.
_NATIVE = frozenset({
    0x10, 0x1B, 0xFE, 0x174, 0x175, 0x176, 0x1A0, *range(0x200, 0x210), 0x250, 0x258, 0x259,
    *range(0x268, 0x270), 0x277, 0x2FF, *range(0xC0000080, 0xC0000085),
    *range(0xC0000100, 0xC0000104),
})


def native_msr(index: int) -> bool:
    """The engine serves this MSR."""
    return index in _NATIVE


def rdpmc(engine: Engine, processor: Processor) -> int:
    """EDX:EAX of RDPMC for the guest's ECX."""
    if engine.internal_state().cpl and not engine.uc.reg_read(reg.UC_X86_REG_CR4) & _CR4_PCE:
        raise GuestFault(PROTECTION, 0)
    counter = engine.uc.reg_read(reg.UC_X86_REG_RCX) & 0xFFFFFFFF
    if counter == _METRICS:
        index = 0x329
    elif counter & _FIXED:
        index = 0x309 + (counter & ~_FIXED)
    else:
        index = 0xC1 + counter
    fixed = 0x309 <= index < 0x309 + processor.model.pmu.fixed
    general = 0xC1 <= index < 0xC1 + processor.model.pmu.counters
    if not (fixed or general or index == 0x329):
        raise GuestFault(PROTECTION, 0)
    try:
        return processor.rdmsr(index)
    except GeneralProtection:
        raise GuestFault(PROTECTION, 0) from None


def _before_xsave(engine: Engine, address: int) -> int:
    """Common checks; the mask EDX:EAX."""
    uc = engine.uc
    if not uc.reg_read(reg.UC_X86_REG_CR4) & _CR4_OSXSAVE:
        raise GuestFault(UNDEFINED)
    if uc.reg_read(reg.UC_X86_REG_CR0) & _CR0_TS:
        raise GuestFault(NO_DEVICE)
    if engine.internal_state().cpl or address & 63:
        raise GuestFault(PROTECTION, 0)
    low, high = (uc.reg_read(r) & 0xFFFFFFFF for r in (reg.UC_X86_REG_RAX, reg.UC_X86_REG_RDX))
    return high << 32 | low


def xsaves(engine: Engine, processor: Processor, address: int) -> None:
    """XSAVES of x87, SSE and LBR state at the linear `address`."""
    mask = _before_xsave(engine, address)
    asked = mask & (processor.xcr0 | processor.xss)
    size = _AREA if asked >> 15 & 1 else _HEADER_END
    area = bytearray(engine.read(address, size))
    try:
        processor.xsaves(area, 0, mask, address=address, xinuse=asked & 3)
    except (InvalidOpcode, UnsupportedFeature):
        raise GuestFault(UNDEFINED) from None
    except GeneralProtection:
        raise GuestFault(PROTECTION, 0) from None
    fxsave.save(engine.uc, area, asked)
    engine.write(address, area)


def xrstors(engine: Engine, processor: Processor, address: int) -> None:
    """XRSTORS of x87, SSE and LBR state from the linear `address`."""
    mask = _before_xsave(engine, address)
    asked = mask & (processor.xcr0 | processor.xss)
    area = engine.read(address, _HEADER_END)
    if asked >> 15 & 1 and area[513] >> 7:
        area = engine.read(address, _AREA)
    try:
        processor.xrstors(area, 0, mask, address=address)
    except (InvalidOpcode, UnsupportedFeature):
        raise GuestFault(UNDEFINED) from None
    except (GeneralProtection, ValueError):
        raise GuestFault(PROTECTION, 0) from None
    present = int.from_bytes(area[_XSTATE_BV], "little")
    fxsave.load(engine.uc, area, asked & present)
    fxsave.load(engine.uc, fxsave.INITIAL, asked & ~present)


def xsetbv(engine: Engine, processor: Processor) -> None:
    """The processor's part of XSETBV; the engine executes it, too."""
    uc = engine.uc
    if not uc.reg_read(reg.UC_X86_REG_CR4) & _CR4_OSXSAVE:
        return  # #UD, the engine's
    register, low, high = (uc.reg_read(r) & 0xFFFFFFFF for r in (
        reg.UC_X86_REG_RCX, reg.UC_X86_REG_RAX, reg.UC_X86_REG_RDX))
    try:
        if register:
            raise GuestFault(PROTECTION, 0)
        processor.xsetbv(high << 32 | low)
    except GeneralProtection:
        raise GuestFault(PROTECTION, 0) from None


def operand_address(engine: Engine, code: bytes, rip: int, bits: int) -> int:
    """Linear address of the memory operand of the instruction in `code`."""
    instruction = next(_detailed(bits).disasm(code, rip, 1))
    memory = instruction.operands[0].mem
    uc, total = engine.uc, memory.disp
    for register, scale in ((memory.base, 1), (memory.index, memory.scale)):
        if register == x86.X86_REG_RIP:
            total += rip + instruction.size
        elif register not in (x86.X86_REG_INVALID, x86.X86_REG_RIZ, x86.X86_REG_EIZ):
            total += scale * uc.reg_read(_unicorn_register(instruction.reg_name(register)))
    if instruction.addr_size == 4:
        total &= 0xFFFFFFFF
    if memory.segment == x86.X86_REG_FS:
        total += uc.reg_read(reg.UC_X86_REG_FS_BASE)
    elif memory.segment == x86.X86_REG_GS:
        total += uc.reg_read(reg.UC_X86_REG_GS_BASE)
    return total & (1 << 64) - 1


def _unicorn_register(name: str) -> int:
    number: int = getattr(reg, f"UC_X86_REG_{name.upper()}")
    return number


@lru_cache(maxsize=2)
def _detailed(bits: int) -> capstone.Cs:
    engine = decoder(capstone.CS_MODE_64 if bits == 64 else capstone.CS_MODE_32)
    engine.detail = True
    return engine


# CPUID

#: Leaves that are partly the model's; the rest is what the engine can execute.
_SHARED = (0x1, 0x7, 0x80000001)
#: Features that the engine names but does not execute: those of AVX and AVX-512.
_NOT_EXECUTED = {
    (0x1, 2): 1 << 12 | 1 << 28 | 1 << 29,
    (0x7, 1): 1 << 5 | 1 << 16 | 1 << 17 | 1 << 21 | 0xF << 26 & ~(1 << 29) | 3 << 30,
    (0x7, 2): 1 << 1 | 1 << 6 | 0x1F << 8 | 1 << 14,
    (0x7, 3): 0xFFFFFFFF,
}
#: FRED and LKGS, CPUID.7.1:EAX: the engine has neither.
_FRED = 1 << 17 | 1 << 18
_OSXSAVE = 1 << 27


def cpuid(engine: Engine, processor: Processor, leaf: int, subleaf: int) -> tuple[int, ...]:
    """EAX, EBX, ECX, EDX: the processor's answer, and beside it what the engine can execute."""
    out = list(processor.cpuid(leaf, subleaf))
    if leaf in _SHARED and (leaf != 0x7 or subleaf == 0):
        known = _known_bits(leaf)
        native = _native_cpuid(engine.uc.ctl_get_cpu_model(), leaf, subleaf)
        for n in range(1 if leaf == 1 else 0, 4):
            out[n] |= native[n] & ~known[n] & ~_NOT_EXECUTED.get((leaf, n), 0)
    if leaf == 0x7 and subleaf == 1:
        out[0] &= ~_FRED
    if leaf == 0x1 and not engine.uc.reg_read(reg.UC_X86_REG_CR4) & _CR4_OSXSAVE:
        out[2] &= ~_OSXSAVE
    return tuple(out)


@lru_cache(maxsize=8)
def _known_bits(leaf: int) -> tuple[int, ...]:
    """Bits of each register that the model decides."""
    return tuple(
        sum(((1 << row.hi - row.lo + 1) - 1) << row.lo for row in CPUID_FIELDS
            if row.leaf == leaf and row.subleaf in (None, 0) and row.register == register)
        for register in ("eax", "ebx", "ecx", "edx")
    )


@lru_cache(maxsize=64)
def _native_cpuid(cpu_model: int, leaf: int, subleaf: int) -> tuple[int, ...]:
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    uc.ctl_set_cpu_model(cpu_model)
    uc.mem_map(0, 0x1000)
    uc.mem_write(0, b"\x0f\xa2")
    uc.reg_write(reg.UC_X86_REG_RAX, leaf)
    uc.reg_write(reg.UC_X86_REG_RCX, subleaf)
    uc.emu_start(0, 2)
    return tuple(
        uc.reg_read(r) & 0xFFFFFFFF for r in (
            reg.UC_X86_REG_RAX, reg.UC_X86_REG_RBX, reg.UC_X86_REG_RCX, reg.UC_X86_REG_RDX)
    )
