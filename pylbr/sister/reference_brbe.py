"""The branch record buffer in plain Python, a list that shifts: the twin of `brbe.BrbeState`.

Written to be compared with the pseudocode of the Arm ARM (BRBEBranch, BRBEException,
BRBEExceptionReturn, BranchEncCycleCount) line by line.
"""

from __future__ import annotations

from collections.abc import Iterable

from lbrcore import BranchClass, BranchFlag
from lbrcore.choices import CHOICES
from pylbr.sister.brbe_rows import BRBE_ROWS, TYPES
from pylbr.sister.config import BrbeConfig
from pylbr.sister.details import CAUSE_SHIFT, Cause
from pylbr.sister.rows import SystemRegister, implemented

__all__ = ["ReferenceBrbe"]

Record = tuple[int, int, int]

ALL_ONES = (1 << 64) - 1
ROWS = {row.name: row for row in BRBE_ROWS}
BRANCHES = {
    BranchClass.COND: ("CONDDIR", "DIRECT_COND"),
    BranchClass.NEAR_IND_JMP: ("INDIRECT", "INDIRECT"),
    BranchClass.NEAR_REL_JMP: ("DIRECT", "DIRECT_UNCOND"),
    BranchClass.NEAR_IND_CALL: ("INDCALL", "INDIRECT_LINK"),
    BranchClass.NEAR_REL_CALL: ("DIRCALL", "DIRECT_LINK"),
    BranchClass.ZERO_CALL: ("DIRCALL", "DIRECT_LINK"),
    BranchClass.NEAR_RET: ("RTN", "RET"),
}
RETURNS = (BranchClass.SYSRET, BranchClass.IRET)
EXCEPTION_TYPES = {
    Cause.BREAKPOINT: "INSN_DEBUG", Cause.WATCHPOINT: "DATA_DEBUG",
    Cause.DATA_FAULT: "DATA_FAULT", Cause.INSTRUCTION_FAULT: "INSN_FAULT",
    Cause.ALIGNMENT: "ALIGN_FAULT", Cause.SYSTEM_ERROR: "SERROR",
}
#: Class of a type, as `records` shows it; others are exceptions.
CLASSES = {name: cls for cls, (_, name) in BRANCHES.items() if cls != BranchClass.ZERO_CALL} | {
    "CALL": BranchClass.SYSCALL, "IRQ": BranchClass.INTERRUPT, "FIQ": BranchClass.INTERRUPT,
    "ERET": BranchClass.IRET,
}


def field(register: SystemRegister, value: int, name: str) -> int:
    return next(f for f in register.fields if f.name == name).get(value)


class ReferenceBrbe:
    """One buffer, the slow way; `stack` holds (BRBSRC, BRBTGT, BRBINF), newest first."""

    def __init__(self, config: BrbeConfig) -> None:
        self.config = config
        self.reset()

    def reset(self) -> None:
        self.stack: list[Record] = [(0, 0, 0)] * self.config.records
        self.values = {row.name: 0 for row in BRBE_ROWS if row.count == 1}
        self.values["BRBIDR0_EL1"] = 5 << 12 | self.config.records
        self.host = False
        self.cycles: int | None = None

    # Control

    def control(self, el: int, name: str) -> int:
        """A field of the BRBCR of an exception level."""
        return field(ROWS["BRBCR_EL1"], self.values[f"BRBCR_EL{el}"], name)

    def function(self, name: str) -> int:
        return field(ROWS["BRBFCR_EL1"], self.values["BRBFCR_EL1"], name)

    def both(self, name: str) -> bool:
        """A field that holds where every BRBCR has it."""
        if self.config.el2 and not self.control(2, name):
            return False
        return bool(self.control(1, name))

    def allowed(self, el: int) -> bool:
        if self.function("PAUSED") or el == 3 or (el == 2 and not self.config.el2):
            return False
        if el:
            return bool(self.control(el, "ExBRE"))
        return bool(self.control(2 if self.config.el2 and self.host else 1, "E0BRE"))

    def write(self, name: str, value: int) -> None:
        if name == "BRBFCR_EL1" or name.startswith(("BRBCR", "BRBINF")):
            value &= implemented(ROWS[name], self.config)
        self.values[name] = value
        self._settle()

    def _settle(self) -> None:
        if self.function("PAUSED") or not self.both("CC"):
            self.cycles = None

    def freeze(self, time: int) -> None:
        self.values["BRBTS_EL1"] = time
        self.write("BRBFCR_EL1", self.values["BRBFCR_EL1"] | 1 << 7)

    def overflow(self, el: int, hyp: bool, time: int) -> bool:
        if not self.allowed(el) or not self.control(2 if hyp and self.config.el2 else 1, "FZP"):
            return False
        self.freeze(time)
        return True

    # Records

    def record(self, branches: Iterable) -> None:
        for b in branches:
            self.record_one(
                int(b["from"]), int(b["to"]), BranchClass(int(b["class"])), int(b["cycles"]),
                int(b["flags"]), 3 - int(b["cpl_from"]), 3 - int(b["cpl_to"]),
            )

    def record_one(
        self, source: int, target: int, cls: BranchClass, cycles: int, flags: int, el: int,
        target_el: int,
    ) -> None:
        source_valid, target_valid = self.allowed(el), self.allowed(target_el)
        if self.cycles is not None:
            self.cycles = self.cycles + cycles if source_valid else None
        mispredicted = bool(flags & BranchFlag.MISPRED) and self.both("MPRED")
        transaction = bool(flags & BranchFlag.IN_TSX) and self.config.tme
        if cls == BranchClass.TSX_ABORT and self.config.tme and source_valid:
            self.values["BRBFCR_EL1"] |= 1 << 6
        elif cls in BRANCHES:
            match, kind = BRANCHES[cls]
            if source_valid and self.function(match) != self.function("EnI"):
                self._push(kind, el, mispredicted, transaction, 3, source, target)
        elif cls in RETURNS:
            if el in (1, 2) and (el == 1 or self.config.el2) and self.control(el, "ERTN"):
                self._transition("ERET", target_el, source_valid and mispredicted, transaction,
                                 source_valid, target_valid, source, target)
        elif cls in (BranchClass.SYSCALL, BranchClass.SOFT_INT, BranchClass.INTERRUPT,
                     BranchClass.EXCEPTION):
            if target_el not in (1, 2) or (target_el == 2 and not self.config.el2):
                return
            if self.control(target_el, "EXCEPTION"):
                self._transition(self._kind(cls, Cause(flags >> CAUSE_SHIFT)), target_el, False,
                                 transaction, source_valid, target_valid, source, target)

    @staticmethod
    def _kind(cls: BranchClass, cause: Cause) -> str:
        if cls == BranchClass.SYSCALL:
            return "CALL"
        if cls == BranchClass.SOFT_INT:
            return "INSN_DEBUG"
        if cls == BranchClass.INTERRUPT:
            return {Cause.FIQ: "FIQ", Cause.SYSTEM_ERROR: "SERROR"}.get(cause, "IRQ")
        return EXCEPTION_TYPES.get(cause, "TRAP")

    def _transition(self, kind: str, el: int, mispredicted: bool, transaction: bool,
                    source_valid: bool, target_valid: bool, source: int, target: int) -> None:
        if source_valid or target_valid:
            self._push(kind, el if target_valid else 0, mispredicted, transaction,
                       source_valid << 1 | target_valid, source if source_valid else 0,
                       target if target_valid else 0)

    def _push(self, kind: str, el: int, mispredicted: bool, transaction: bool, valid: int,
              source: int, target: int) -> None:
        info = TYPES[kind] << 8 | el << 6 | mispredicted << 5 | valid | transaction << 16
        if self.function("LASTFAILED"):
            info |= 1 << 17
            self.values["BRBFCR_EL1"] &= ~(1 << 6)
        info |= 1 << 46 if self.cycles is None else self.encode(self.cycles) << 32
        self.stack = [(source, target, info), *self.stack[:-1]]
        self.cycles = 0 if self.both("CC") else None

    @staticmethod
    def encode(cycles: int) -> int:
        if cycles < 1 << 8:
            return cycles
        if cycles >= 1 << 20:
            return 0x3FFF
        exponent = 1
        while cycles >= 1 << 9:
            exponent, cycles = exponent + 1, cycles // 2
        return exponent << 8 | cycles & 0xFF

    @staticmethod
    def decode(cc: int) -> int:
        exponent, mantissa = cc >> 8, cc & 0xFF
        return mantissa if exponent == 0 else (1 << 8 | mantissa) << (exponent - 1)

    def clear(self) -> None:
        self.stack = [(0, 0, 0)] * self.config.records

    def inject(self) -> None:
        names = ("BRBSRCINJ_EL1", "BRBTGTINJ_EL1", "BRBINFINJ_EL1")
        source, target, info = (self.values[name] for name in names)
        self.stack = [(source, target, info), *self.stack[:-1]]
        self.values |= dict.fromkeys(names, 0)

    def numbered(self, n: int) -> Record:
        """BRBSRC<n>, BRBTGT<n> and BRBINF<n> of the bank that BRBFCR_EL1 selects."""
        at = n + 32 * self.function("BANK")
        return self.stack[at] if at < len(self.stack) else (0, 0, 0)

    def records(self) -> list[Record]:
        """In the layout that all branch recorders share."""
        return [self._common(*one) for one in self.stack]

    def _common(self, source: int, target: int, info: int) -> Record:
        if not info & 3:
            return 0, 0, 0
        kind = next((name for name, code in TYPES.items() if code == info >> 8 & 63), "")
        cls = CLASSES.get(kind, BranchClass.EXCEPTION)
        br_type = cls if cls < 8 else CHOICES["OTHER_BRANCH_TYPE"][0]
        common = br_type << 56 | cls << 48 | (info >> 5 & 1) << 63 | (info >> 16 & 1) << 62
        if not info >> 46 & 1:
            common |= 1 << 60 | min(self.decode(info >> 32 & 0x3FFF), 0xFFFF)
        return source if info & 2 else ALL_ONES, target if info & 1 else 0, common
