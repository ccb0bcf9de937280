"""Registers of a saved machine: what they may hold, and loading them into the engine.

The engine does not check values written to its registers: impossible control registers, or a
selector whose descriptor it cannot read, end its process.  So everything is compared first with
what a processor in long mode can hold (SDM vol. 3, 2.2, 2.3, 2.5, 3.4.5, 4.1).
"""

from __future__ import annotations

import struct
from typing import Any, Final

from unicorn import Uc
from unicorn import x86_const as reg

from pylbr.embed.engine import Engine, GuestFault

__all__ = ["EFER", "LMA", "as_json", "load_general", "load_system"]

_GENERAL: Final = (
    "RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP", *(f"R{n}" for n in range(8, 16)),
    "RIP", "RFLAGS", "CR2", "DR0", "DR1", "DR2", "DR3", "DR6", "DR7",
)
_CONTROL: Final = ("CR4", "CR3", "CR0")
_DATA_SEGMENTS: Final = ("DS", "ES", "FS", "GS")
_TABLES: Final = ("GDTR", "IDTR", "LDTR", "TR")
EFER: Final = 0xC0000080
LMA: Final = 1 << 10
_SCE, _LME, _NXE = 1, 1 << 8, 1 << 11
#: SYSENTER, PAT, STAR, LSTAR, CSTAR, FMASK, FS, GS and kernel GS bases, TSC_AUX.
_MSRS: Final = (0x174, 0x175, 0x176, 0x277, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084,
                0xC0000100, 0xC0000101, 0xC0000102, 0xC0000103)
_PE, _PG, _PAE, _PCIDE = 1, 1 << 31, 1 << 5, 1 << 17
#: Bits that a register may have, and those that it must have in long mode.
_BITS: Final = {
    "EFER": (_SCE | _LME | LMA | _NXE, _LME | LMA),
    "CR0": (0xE005003F, _PE | _PG),      # PG, CD, NW, AM, WP, NE, ET, TS, EM, MP, PE
    "CR4": (0x771FFF, _PAE),             # all up to PKE but VMXE, SMXE and bit 19
    "RFLAGS": (0x3D7FD7, 1 << 1),        # all but VM
    "DR6": (0xFFFFFFFF, 0), "DR7": (0xFFFFFFFF, 0),
}
_ADDRESS: Final = ((1 << 52) - 1) & ~0xFFF
_PAGE: Final = 0x1000
# A descriptor's type, S, DPL and P (SDM vol. 3, figure 3-8).
_WRITABLE, _CONFORMING, _CODE, _SEGMENT, _PRESENT = 1 << 41, 1 << 42, 1 << 43, 1 << 44, 1 << 47


def _number(name: str) -> int:
    number: int = getattr(reg, f"UC_X86_REG_{name}")
    return number


def as_json(uc: Uc) -> dict[str, Any]:
    """All of them, as JSON can hold them."""
    return {
        "efer": uc.msr_read(EFER),
        "registers": {name: uc.reg_read(_number(name)) for name in (
            *_GENERAL, *_CONTROL, "CS", "SS", *_DATA_SEGMENTS)},
        "tables": {name: list(uc.reg_read(_number(name))) for name in _TABLES},
        "msrs": {str(index): uc.msr_read(index) for index in _MSRS},
    }


def load_system(engine: Engine, saved: dict[str, Any], memory: int) -> None:
    """Load what addresses and privileges depend on; the memory, of `memory` bytes, is there.

    Raises
    ------
    ValueError, TypeError, KeyError
        Values that no processor in long mode has, or selectors of no segment.
    """
    uc, registers, cpl = engine.uc, saved["registers"], saved["cpl"]
    if isinstance(cpl, bool) or cpl not in (0, 3):
        raise ValueError(f"privilege level {cpl!r}")
    control = {name: _bits(name, registers[name]) for name in ("CR0", "CR4")}
    control["CR3"] = _page_table(registers["CR3"], control["CR4"], memory)
    tables = {name: _table(name, saved["tables"][name]) for name in _TABLES}
    selectors = {name: _u64(registers[name]) & 0xFFFF for name in ("SS", "CS", *_DATA_SEGMENTS)}
    uc.msr_write(EFER, _bits("EFER", saved["efer"]))
    for name in _CONTROL:
        uc.reg_write(_number(name), control[name])
    for name in _TABLES:
        uc.reg_write(_number(name), tables[name])
    engine.set_cpl(0)  # descriptors are read as the processor reads them
    for name, selector in selectors.items():
        _check_selector(engine, name, selector, tables, cpl)
    engine.set_cpl(cpl)
    for name, selector in selectors.items():
        uc.reg_write(_number(name), selector)
    engine.set_cpl(cpl)
    for index in _MSRS:
        uc.msr_write(index, _u64(saved["msrs"][str(index)]))


def load_general(uc: Uc, registers: dict[str, Any]) -> None:
    """Load the others; ValueError or KeyError for what they cannot hold."""
    for name in _GENERAL:
        uc.reg_write(_number(name), _bits(name, registers[name]))


def _bits(name: str, value: object) -> int:
    number = _u64(value)
    may, must = _BITS.get(name, ((1 << 64) - 1, 0))
    if number & ~may or must & ~number:
        raise ValueError(f"{name} {number:#x}: no value of it in long mode")
    return number


def _page_table(value: object, cr4: int, memory: int) -> int:
    cr3 = _u64(value)
    low = 0xFFF if cr4 & _PCIDE else 0x18
    if cr3 & ~(_ADDRESS | low) or (cr3 & _ADDRESS) + _PAGE > memory:
        raise ValueError(f"CR3 {cr3:#x}: no page table in memory")
    return cr3


def _table(name: str, value: object) -> tuple[int, int, int, int]:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"{name}: not selector, base, limit and flags")
    selector, base, limit, flags = map(_u64, value)
    if selector >> 16 or limit >> (16 if name in ("GDTR", "IDTR") else 32) or flags >> 32:
        raise ValueError(f"{name}: selector, limit or flags too large")
    return selector, base, limit, flags


def _check_selector(
    engine: Engine, name: str, selector: int, tables: dict[str, tuple[int, int, int, int]],
    cpl: int,
) -> None:
    """Refuse a selector that a processor at `cpl` could not have loaded into `name`."""
    rpl, at = selector & 3, selector & ~7
    if not at and not selector & 4:
        if name == "CS" or (name == "SS" and cpl == 3):
            raise ValueError(f"{name}: a null selector")
        return
    _, base, limit, _ = tables["LDTR" if selector & 4 else "GDTR"]
    if at + 7 > limit:
        raise ValueError(f"{name} {selector:#x}: after the end of its table")
    try:
        descriptor, = struct.unpack("<Q", engine.read(base + at & (1 << 64) - 1, 8))
    except GuestFault:
        raise ValueError(f"{name} {selector:#x}: its table is not mapped") from None
    dpl, kind = descriptor >> 45 & 3, descriptor & (_SEGMENT | _CODE | _WRITABLE | _CONFORMING)
    if name == "CS":
        right = kind & _CODE and (
            dpl <= cpl if kind & _CONFORMING else dpl == cpl) and rpl == cpl
    elif name == "SS":
        right = not kind & _CODE and kind & _WRITABLE and rpl == dpl == cpl
    else:  # data, or code that may be read
        right = (not kind & _CODE or kind & _WRITABLE) and (
            kind & _CODE and kind & _CONFORMING or dpl >= max(cpl, rpl))
    if not (right and kind & _SEGMENT and descriptor & _PRESENT):
        raise ValueError(f"{name} {selector:#x}: descriptor {descriptor:#x} is none for it")


def _u64(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise ValueError(f"{value!r} where a number of 64 bits belongs")
    return value
