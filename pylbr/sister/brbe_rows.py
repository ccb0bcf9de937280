"""Registers of FEAT_BRBE (Arm ARM DDI 0487, D19; Arm DDI 0601)."""

from __future__ import annotations

from typing import Final

from pylbr.arch.fields import Field
from pylbr.sister.rows import SystemField, SystemRegister

__all__ = ["BRBE_INSTRUCTIONS", "BRBE_ROWS", "TYPES", "numbered", "sysreg"]


def sysreg(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """Number of a system register: the five fields of its encoding in the order of MRS."""
    return op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2


def numbered(n: int, op2: int) -> int:
    """Number of BRBINF<n>_EL1 (`op2` 0), BRBSRC<n>_EL1 (1) or BRBTGT<n>_EL1 (2)."""
    return sysreg(2, 1, 8, n & 15, (n & 16) >> 2 | op2)


_SOURCE = "DDI 0601, {}"
_CONTROL = (
    Field("E0BRE", 0, 0, "records of EL0; of BRBCR_EL2: where HCR_EL2.TGE is 1 (E0HBRE)"),
    Field("ExBRE", 1, 1, "records of EL1 or EL2"),
    Field("CC", 3, 3, "cycle counts"),
    Field("MPRED", 4, 4, "mispredicts"),
    Field("TS", 6, 5, "timestamp: 1 virtual, 2 guest physical, 3 physical"),
    Field("FZP", 8, 8, "freeze on overflow of a counter"),
    SystemField("FZPSS", 9, 9, "freeze on a PMU snapshot", needs="snapshot"),
    Field("ERTN", 22, 22, "exception returns from that EL"),
    Field("EXCEPTION", 23, 23, "exceptions to that EL"),
)
_INFO = (
    Field("VALID", 1, 0, "1 target, 2 source, 3 both"),
    Field("MPRED", 5, 5, "mispredicted"),
    Field("EL", 7, 6, "exception level of the target"),
    Field("TYPE", 13, 8, "see the table of types"),
    SystemField("T", 16, 16, "in a transaction", needs="tme"),
    SystemField("LASTFAILED", 17, 17, "a transaction failed before it", needs="tme"),
    Field("CC", 45, 32, "cycles since the last record: exponent 45:40, mantissa 39:32"),
    Field("CCU", 46, 46, "cycles unknown"),
)
_ADDRESS = (Field("ADDRESS", 63, 0),)

BRBE_ROWS: Final = (
    SystemRegister("BRBCR_EL1", sysreg(2, 1, 9, 0, 0), _SOURCE.format("BRBCR_EL1"), _CONTROL,
                   rule="at EL2 with HCR_EL2.E2H the name leads to BRBCR_EL2"),
    SystemRegister("BRBCR_EL2", sysreg(2, 4, 9, 0, 0), _SOURCE.format("BRBCR_EL2"), _CONTROL,
                   level=1, needs="el2"),
    SystemRegister("BRBCR_EL12", sysreg(2, 5, 9, 0, 0), _SOURCE.format("BRBCR_EL1"), _CONTROL,
                   level=1, needs="el2", rule="BRBCR_EL1, at EL2 with HCR_EL2.E2H"),
    SystemRegister("BRBFCR_EL1", sysreg(2, 1, 9, 0, 1), _SOURCE.format("BRBFCR_EL1"), (
        SystemField("LASTFAILED", 6, 6, "a transaction failed since the last record",
                    needs="tme"),
        Field("PAUSED", 7, 7, "nothing is recorded"),
        Field("EnI", 16, 16, "match bits exclude in place of include"),
        Field("DIRECT", 17, 17, "unconditional direct branches"),
        Field("INDIRECT", 18, 18, "indirect branches"),
        Field("RTN", 19, 19, "returns"),
        Field("INDCALL", 20, 20, "indirect branches with link"),
        Field("DIRCALL", 21, 21, "direct branches with link"),
        Field("CONDDIR", 22, 22, "conditional direct branches"),
        Field("BANK", 29, 28, "records 0 to 31 or 32 to 63"),
    )),
    SystemRegister("BRBTS_EL1", sysreg(2, 1, 9, 0, 2), _SOURCE.format("BRBTS_EL1"),
                   (Field("TS", 63, 0, "time of the last freeze"),)),
    SystemRegister("BRBINFINJ_EL1", sysreg(2, 1, 9, 1, 0), _SOURCE.format("BRBINFINJ_EL1"), _INFO),
    SystemRegister("BRBSRCINJ_EL1", sysreg(2, 1, 9, 1, 1), _SOURCE.format("BRBSRCINJ_EL1"),
                   _ADDRESS),
    SystemRegister("BRBTGTINJ_EL1", sysreg(2, 1, 9, 1, 2), _SOURCE.format("BRBTGTINJ_EL1"),
                   _ADDRESS),
    SystemRegister("BRBIDR0_EL1", sysreg(2, 1, 9, 2, 0), _SOURCE.format("BRBIDR0_EL1"), (
        Field("NUMREC", 7, 0, "records: 8, 16, 32 or 64"),
        Field("FORMAT", 11, 8, "0"),
        Field("CC", 15, 12, "5: a cycle counter of 20 bits"),
    ), writable=False),
    SystemRegister("BRBINF{}_EL1", numbered(0, 0), _SOURCE.format("BRBINF<n>_EL1"), _INFO,
                   writable=False, count=32, rule="record n + 32 * BRBFCR_EL1.BANK"),
    SystemRegister("BRBSRC{}_EL1", numbered(0, 1), _SOURCE.format("BRBSRC<n>_EL1"), _ADDRESS,
                   writable=False, count=32),
    SystemRegister("BRBTGT{}_EL1", numbered(0, 2), _SOURCE.format("BRBTGT<n>_EL1"), _ADDRESS,
                   writable=False, count=32),
)

#: System instructions: BRB IALL empties the buffer, BRB INJ injects a record.
BRBE_INSTRUCTIONS: Final = {"BRB IALL": sysreg(1, 1, 7, 2, 4), "BRB INJ": sysreg(1, 1, 7, 2, 5)}

#: BRBINF<n>_EL1.TYPE.
TYPES: Final = {
    "DIRECT_UNCOND": 0b000000, "INDIRECT": 0b000001, "DIRECT_LINK": 0b000010,
    "INDIRECT_LINK": 0b000011, "RET": 0b000101, "ERET": 0b000111, "DIRECT_COND": 0b001000,
    "DEBUG_HALT": 0b100001, "CALL": 0b100010, "TRAP": 0b100011, "SERROR": 0b100100,
    "INSN_DEBUG": 0b100110, "DATA_DEBUG": 0b100111, "ALIGN_FAULT": 0b101010,
    "INSN_FAULT": 0b101011, "DATA_FAULT": 0b101100, "IRQ": 0b101110, "FIQ": 0b101111,
    "IMPDEF_TRAP_EL3": 0b110000, "DEBUG_EXIT": 0b111001,
}  # fmt: skip
