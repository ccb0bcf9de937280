"""PEBS as far as LBRs meet it: the LBR group of an adaptive record."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lbrcore import BRANCH_DTYPE

if TYPE_CHECKING:
    from pylbr.cpu.processor import Processor

__all__ = ["lbr_group", "one_branch", "write_record"]

MSR_PEBS_DATA_CFG = 0x3F2
DATA_CFG_LBRS = 1 << 3
EVTSEL_ADAPTIVE = 1 << 34
#: Basic group: format and size, IP, applicable counters, TSC (SDM vol. 3, table 18-7).
BASIC = struct.Struct("<4Q")


def lbr_group(cpu: Processor, entries: int) -> bytes:
    """FROM, TO and INFO of the `entries` newest records, newest first, 24 bytes each.

    Entries beyond the depth are 0 (SDM vol. 3, 18.9.2.2.4).
    """
    return cpu.records()[:entries].tobytes().ljust(24 * entries, b"\0")


def _wants_lbrs(cpu: Processor, bit: int) -> bool:
    if bit < 32:
        return bool(cpu.pmu.evtsel[bit] & EVTSEL_ADAPTIVE)
    return bool(cpu.pmu.fixed_ctrl >> (32 + 4 * (bit - 32)) & 1)


def write_record(cpu: Processor, bit: int, ip: int) -> None:
    """Hand out the record of an overflow, and reload the counter with what comes back.

    The groups of memory data, registers and vectors are not carried by a branch stream;
    their bits of MSR_PEBS_DATA_CFG add nothing.
    """
    config = cpu.values.get(MSR_PEBS_DATA_CFG, 0)
    group = b""
    if config & DATA_CFG_LBRS and _wants_lbrs(cpu, bit):
        group = lbr_group(cpu, (config >> 24 & 0xFF) + 1)
    size = BASIC.size + len(group)
    record = BASIC.pack((DATA_CFG_LBRS if group else 0) | size << 48, ip, 1 << bit, 0) + group
    reload = cpu.events.pebs(cpu, bit, record)
    if reload is not None:
        if bit < 32:
            cpu.pmu.pmc[bit] = reload & cpu.pmu.pmc_mask
        else:
            cpu.pmu.fixed[bit - 32] = reload & cpu.pmu.fixed_mask


def one_branch(cls: int, from_: int, to: int, cpl_from: int, cpl_to: int, flags: int,
               cycles: int, instructions: int, events: tuple[int, int, int, int]
               ) -> npt.NDArray[np.void]:
    """An array of one branch."""
    return np.array([(from_, to, cycles, instructions, cls, flags, cpl_from, cpl_to, events)],
                    dtype=BRANCH_DTYPE)
