"""PEBS as far as LBRs meet it: the LBR group of an adaptive and of an architectural record."""

from __future__ import annotations

import struct

from lbrcore import LbrState
from pylbr.arch import choices
from pylbr.arch.bits import (
    CFG_C_LBR,
    CFG_C_RELOAD,
    EVTSEL_ADAPTIVE,
    FIXED_CTRL_ADAPTIVE0,
    IA32_PMC_FX0_CFG_C,
    IA32_PMC_GP0_CFG_C,
    MSR_PEBS_DATA_CFG,
    PEBS_DATA_CFG_LBR_ENTRIES,
    PEBS_DATA_CFG_LBRS,
)
from pylbr.cpu.msr.values import Msrs
from pylbr.cpu.pmu import FIXED

__all__ = ["ARCH_PEBS_LBR_VARIABLE", "config_of", "lbr_group", "record", "reload"]

#: CFG_C.LBR that asks for as many records as IA32_LBR_DEPTH.
ARCH_PEBS_LBR_VARIABLE = 3

#: Basic group: format and size, IP, applicable counters, TSC (SDM vol. 3, table 18-7).
BASIC = struct.Struct("<4Q")


def lbr_group(lbr: LbrState, entries: int) -> bytes:
    """FROM, TO and INFO of the `entries` newest records, newest first, 24 bytes each.

    Entries beyond the depth are 0 (SDM vol. 3, 18.9.2.2.4).
    """
    return lbr.records()[:entries].tobytes().ljust(24 * entries, b"\0")


def _wants_lbrs(msrs: Msrs, bit: int) -> bool:
    if bit < FIXED:
        return bool(msrs.pmu.evtsel[bit] & EVTSEL_ADAPTIVE)
    return bool(msrs.pmu.fixed_ctrl & FIXED_CTRL_ADAPTIVE0 << 4 * (bit - FIXED))


#: Architectural PEBS (Linux asm/perf_event.h: arch_pebs_header, _basic, _lbr_header).
_HEADER = struct.Struct("<2Q")
_ARCH_BASIC = struct.Struct("<6Q")
_LBR_HEADER = struct.Struct("<6Q")
_BASIC, _LBR_AT, _MODE_64 = 1 << 63, 40, 1 << 30


def config_of(msrs: Msrs, bit: int) -> int:
    """CFG_C of the counter whose bit this is in IA32_PERF_GLOBAL_CTRL."""
    first, n = (IA32_PMC_FX0_CFG_C, bit - FIXED) if bit >= FIXED else (IA32_PMC_GP0_CFG_C, bit)
    return msrs.values.get(first + 4 * n, 0)


def _arch_record(msrs: Msrs, bit: int, ip: int) -> bytes:
    """Header, basic group, and the LBR group that CFG_C asks for: its own header with
    IA32_LBR_CTL, IA32_LBR_DEPTH and LER, then 8, 16 or as many records as the depth."""
    kind = (config_of(msrs, bit) & CFG_C_LBR) >> _LBR_AT
    group = b""
    if kind:
        lbr = msrs.lbr
        count = lbr.depth if kind == ARCH_PEBS_LBR_VARIABLE else 8 * kind
        group = _LBR_HEADER.pack(0, lbr.ctl, lbr.depth, *lbr.ler) + lbr_group(lbr, count)
    size = _HEADER.size + _ARCH_BASIC.size + len(group)
    return (_HEADER.pack(_BASIC | kind << _LBR_AT | _MODE_64 | size, 0)
            + _ARCH_BASIC.pack(ip, 1 << bit, 0, 0, 0, 0) + group)


def record(msrs: Msrs, bit: int, ip: int) -> bytes:
    """The record of the overflow of the counter whose bit this is in IA32_PERF_GLOBAL_CTRL.

    The groups of memory data, registers and vectors are not carried by a branch stream;
    their bits of MSR_PEBS_DATA_CFG and of CFG_C add nothing.
    """
    if msrs.model.pmu.arch_pebs:
        return _arch_record(msrs, bit, ip)
    config = msrs.values.get(MSR_PEBS_DATA_CFG, 0)
    group = b""
    if config & PEBS_DATA_CFG_LBRS and _wants_lbrs(msrs, bit):
        group = lbr_group(msrs.lbr, ((config & PEBS_DATA_CFG_LBR_ENTRIES) >> 24) + 1)
    size = BASIC.size + len(group)
    return BASIC.pack((PEBS_DATA_CFG_LBRS if group else 0) | size << 48, ip, 1 << bit, 0) + group


def reload(msrs: Msrs, bit: int, value: int | None) -> None:
    """Reload the counter that overflowed; None: as CFG_C of architectural PEBS asks, if it does."""
    pmu = msrs.pmu
    if value is None:
        given = config_of(msrs, bit) & CFG_C_RELOAD if msrs.model.pmu.arch_pebs else 0
        if not given:
            return
        value = given | ~0 << 32 if choices.ARCH_PEBS_RELOAD_EXTENDS else given
    if bit < FIXED:
        pmu.pmc[bit] = value & pmu.pmc_mask
    else:
        pmu.fixed[bit - FIXED] = value & pmu.fixed_mask
