"""PEBS as far as LBRs meet it: the LBR group of an adaptive record."""

from __future__ import annotations

import struct

from lbrcore import LbrState
from pylbr.arch.bits import (
    EVTSEL_ADAPTIVE,
    FIXED_CTRL_ADAPTIVE0,
    MSR_PEBS_DATA_CFG,
    PEBS_DATA_CFG_LBR_ENTRIES,
    PEBS_DATA_CFG_LBRS,
)
from pylbr.cpu.msr.values import Msrs
from pylbr.cpu.pmu import FIXED

__all__ = ["lbr_group", "record", "reload"]

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


def record(msrs: Msrs, bit: int, ip: int) -> bytes:
    """The record of the overflow of the counter whose bit this is in IA32_PERF_GLOBAL_CTRL.

    The groups of memory data, registers and vectors are not carried by a branch stream;
    their bits of MSR_PEBS_DATA_CFG add nothing.
    """
    config = msrs.values.get(MSR_PEBS_DATA_CFG, 0)
    group = b""
    if config & PEBS_DATA_CFG_LBRS and _wants_lbrs(msrs, bit):
        group = lbr_group(msrs.lbr, ((config & PEBS_DATA_CFG_LBR_ENTRIES) >> 24) + 1)
    size = BASIC.size + len(group)
    return BASIC.pack((PEBS_DATA_CFG_LBRS if group else 0) | size << 48, ip, 1 << bit, 0) + group


def reload(msrs: Msrs, bit: int, value: int) -> None:
    """Reload the counter that overflowed."""
    pmu = msrs.pmu
    if bit < FIXED:
        pmu.pmc[bit] = value & pmu.pmc_mask
    else:
        pmu.fixed[bit - FIXED] = value & pmu.fixed_mask
