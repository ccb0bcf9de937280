"""Registers of Smctr and Ssctr (RISC-V privileged architecture, "Smctr", version 1.0)."""

from __future__ import annotations

from typing import Final

from pylbr.arch.fields import Field
from pylbr.sister.rows import SystemField, SystemRegister

__all__ = ["CTR_ROWS", "ENTRIES_FIRST", "SCTRCLR", "TYPES"]

_SOURCE = "Smctr 1.0, {}"
_ENABLES = (
    Field("U", 0, 0, "record in U-mode"),
    Field("S", 1, 1, "record in S-mode"),
)
_OTHERS = (
    SystemField("RASEMU", 7, 7, "emulate a return-address stack", needs="rasemu"),
    SystemField("STE", 8, 8, "external traps to S-mode", needs="external_traps"),
    Field("BPFRZ", 11, 11, "freeze on a breakpoint exception"),
    SystemField("LCOFIFRZ", 12, 12, "freeze on a counter's overflow interrupt", needs="sscofpmf"),
    *(SystemField(name, bit, bit, meaning, needs="type_filter") for name, bit, meaning in (
        ("EXCINH", 33, "no exceptions"), ("INTRINH", 34, "no interrupts"),
        ("TRETINH", 35, "no trap returns"), ("NTBREN", 36, "branches that are not taken, too"),
        ("TKBRINH", 37, "no taken branches"), ("INDCALLINH", 40, "no indirect calls"),
        ("DIRCALLINH", 41, "no direct calls"), ("INDJMPINH", 42, "no indirect jumps"),
        ("DIRJMPINH", 43, "no direct jumps"), ("CORSWAPINH", 44, "no co-routine swaps"),
        ("RETINH", 45, "no returns"), ("INDLJMPINH", 46, "no other indirect jumps with linkage"),
        ("DIRLJMPINH", 47, "no other direct jumps with linkage"),
    )),
)
_MACHINE = (
    Field("M", 2, 2, "record in M-mode"),
    SystemField("MTE", 9, 9, "external traps to M-mode", needs="external_traps"),
)
_INDEX = (Field("VALUE", 11, 0, "200H + n: entry n, 0 being the newest"),)


def _window(letter: str, base: int, needs: str) -> tuple[SystemRegister, ...]:
    prefix = "vs" if letter == "v" else "s"
    return (
        SystemRegister(f"{prefix}iselect", base, "Sscsrind", _INDEX, needs=needs),
        SystemRegister(f"{prefix}ireg", base + 1, _SOURCE.format("ctrsource"), (
            Field("V", 0, 0, "valid"), Field("PC", 63, 1, "address of the instruction"),
        ), needs=needs),
        SystemRegister(f"{prefix}ireg2", base + 2, _SOURCE.format("ctrtarget"), (
            SystemField("MISP", 0, 0, "mispredicted", needs="misp"),
            Field("PC", 63, 1, "address of the target"),
        ), needs=needs),
        SystemRegister(f"{prefix}ireg3", base + 3, _SOURCE.format("ctrdata"), (
            Field("TYPE", 3, 0, "see the table of types"),
            SystemField("CCV", 15, 15, "cycles are valid", needs="cycles"),
            SystemField("CC", 31, 16, "exponent 31:28, mantissa 27:16", needs="cycles"),
        ), needs=needs),
        *(SystemRegister(f"{prefix}ireg{n}", base + n + 1, "Sscsrind", (), needs=needs,
                         rule="reads 0")
          for n in (4, 5, 6)),
    )


CTR_ROWS: Final = (
    SystemRegister("mctrctl", 0x34E, _SOURCE.format("mctrctl"), (*_ENABLES, *_MACHINE, *_OTHERS),
                   level=0, rule="a write clears the cycle counter"),
    SystemRegister("sctrctl", 0x14E, _SOURCE.format("sctrctl"), (*_ENABLES, *_OTHERS),
                   rule="mctrctl without M and MTE; in VS-mode vsctrctl"),
    SystemRegister("vsctrctl", 0x24E, _SOURCE.format("vsctrctl"), (*_ENABLES, *_OTHERS),
                   needs="hypervisor"),
    SystemRegister("sctrstatus", 0x14F, _SOURCE.format("sctrstatus"), (
        Field("WRPTR", 7, 0, "physical entry to be written next; below the depth"),
        Field("FROZEN", 31, 31, "nothing is recorded"),
    )),
    SystemRegister("sctrdepth", 0x15F, _SOURCE.format("sctrdepth"), (
        Field("DEPTH", 2, 0, "16 << DEPTH entries"),
    ), rule="from VS-mode a virtual-instruction exception"),
    *_window("s", 0x150, ""),
    *_window("v", 0x250, "hypervisor"),
)

#: siselect of entry 0.
ENTRIES_FIRST: Final = 0x200
#: funct12 of the instruction that clears all entries.
SCTRCLR: Final = 0x104

#: ctrdata.TYPE.
TYPES: Final = {
    "NONE": 0, "EXCEPTION": 1, "INTERRUPT": 2, "TRAP_RETURN": 3, "NOT_TAKEN": 4, "TAKEN": 5,
    "INDIRECT_CALL": 8, "DIRECT_CALL": 9, "INDIRECT_JUMP": 10, "DIRECT_JUMP": 11, "SWAP": 12,
    "RETURN": 13, "OTHER_INDIRECT": 14, "OTHER_DIRECT": 15,
}  # fmt: skip
