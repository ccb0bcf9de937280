"""Control transfer records in plain Python: the twin of `ctr.CtrState`.

Written to be compared with the specification of Smctr, section by section.
"""

from __future__ import annotations

from collections.abc import Iterable

from lbrcore import BranchClass, BranchFlag
from lbrcore.choices import CHOICES
from pylbr.sister.config import CtrConfig
from pylbr.sister.ctr_rows import CTR_ROWS, TYPES
from pylbr.sister.details import CAUSE_SHIFT, LINK, VIRTUAL, Cause
from pylbr.sister.rows import SystemRegister, implemented

__all__ = ["ReferenceCtr"]

Record = tuple[int, int, int]

ALL_ONES = (1 << 64) - 1
ROWS = {row.name: row for row in CTR_ROWS}
PLAIN = {
    BranchClass.EXCEPTION: "EXCEPTION", BranchClass.SYSCALL: "EXCEPTION",
    BranchClass.SOFT_INT: "EXCEPTION", BranchClass.INTERRUPT: "INTERRUPT",
    BranchClass.SYSRET: "TRAP_RETURN", BranchClass.IRET: "TRAP_RETURN",
    BranchClass.NOT_TAKEN: "NOT_TAKEN", BranchClass.COND: "TAKEN",
    BranchClass.NEAR_IND_CALL: "INDIRECT_CALL", BranchClass.NEAR_REL_CALL: "DIRECT_CALL",
    BranchClass.ZERO_CALL: "DIRECT_CALL", BranchClass.NEAR_IND_JMP: "INDIRECT_JUMP",
    BranchClass.NEAR_REL_JMP: "DIRECT_JUMP", BranchClass.NEAR_RET: "RETURN",
}
LINKED = {
    BranchClass.NEAR_IND_JMP: "OTHER_INDIRECT", BranchClass.NEAR_REL_JMP: "OTHER_DIRECT",
    BranchClass.NEAR_RET: "SWAP",
}
#: Control bit that keeps a type out.
INHIBIT = {
    "EXCEPTION": "EXCINH", "INTERRUPT": "INTRINH", "TRAP_RETURN": "TRETINH", "TAKEN": "TKBRINH",
    "INDIRECT_CALL": "INDCALLINH", "DIRECT_CALL": "DIRCALLINH", "INDIRECT_JUMP": "INDJMPINH",
    "DIRECT_JUMP": "DIRJMPINH", "SWAP": "CORSWAPINH", "RETURN": "RETINH",
    "OTHER_INDIRECT": "INDLJMPINH", "OTHER_DIRECT": "DIRLJMPINH",
}
#: Class of a type, as `records` shows it.
CLASSES = {
    "EXCEPTION": BranchClass.EXCEPTION, "INTERRUPT": BranchClass.INTERRUPT,
    "TRAP_RETURN": BranchClass.IRET, "NOT_TAKEN": BranchClass.NOT_TAKEN,
    "TAKEN": BranchClass.COND, "INDIRECT_CALL": BranchClass.NEAR_IND_CALL,
    "DIRECT_CALL": BranchClass.NEAR_REL_CALL, "INDIRECT_JUMP": BranchClass.NEAR_IND_JMP,
    "DIRECT_JUMP": BranchClass.NEAR_REL_JMP, "SWAP": BranchClass.NEAR_RET,
    "RETURN": BranchClass.NEAR_RET, "OTHER_INDIRECT": BranchClass.NEAR_IND_JMP,
    "OTHER_DIRECT": BranchClass.NEAR_REL_JMP,
}
M, S, U, VS, VU = 0, 2, 3, 2 | VIRTUAL, 3 | VIRTUAL
#: Enables that an external trap needs: (source, target) -> of machine and guest control.
EXTERNAL = {
    (U, S): ("STE",), (U, M): ("MTE", "STE"), (S, M): ("MTE",), (VU, VS): ("VSTE",),
    (VU, S): ("STE", "VSTE"), (VU, M): ("MTE", "STE", "VSTE"), (VS, S): ("STE",),
    (VS, M): ("MTE", "STE"),
}


def field(register: SystemRegister, value: int, name: str) -> int:
    return next(f for f in register.fields if f.name == name).get(value)


class ReferenceCtr:
    """One hart's records, the slow way; `entries` holds ctrsource, ctrtarget and ctrdata by
    physical index."""

    def __init__(self, config: CtrConfig) -> None:
        self.config = config
        self.reset()

    def reset(self) -> None:
        self.entries: list[Record] = [(0, 0, 0)] * 256
        self.mctrctl = self.vsctrctl = 0
        self.depth, self.wrptr, self.frozen = self.config.depths[-1], 0, False
        self.counter, self.ccv = 0, False
        self.select = {"siselect": 0, "vsiselect": 0}

    # Registers

    def write_control(self, name: str, value: int) -> None:
        mask = implemented(ROWS[name], self.config)
        if name == "vsctrctl":
            self.vsctrctl = value & mask
        else:
            self.mctrctl = self.mctrctl & ~mask | value & mask
        self.counter, self.ccv = 0, False

    def write_status(self, value: int) -> None:
        self.wrptr, self.frozen = value % self.depth, bool(value >> 31 & 1)

    def write_depth(self, value: int) -> None:
        if 16 << (value & 7) in self.config.depths:
            self.depth = 16 << (value & 7)
            self.wrptr %= self.depth

    def sctrclr(self) -> None:
        self.entries = [(0, 0, 0)] * 256
        self.counter, self.ccv = 0, False

    def physical(self, logical: int) -> int:
        return (self.wrptr - logical - 1) % self.depth

    def read_entry(self, logical: int) -> Record:
        return self.entries[self.physical(logical)] if logical < self.depth else (0, 0, 0)

    def write_entry(self, logical: int, which: int, value: int) -> None:
        if logical >= self.depth:
            return
        entry = list(self.entries[self.physical(logical)])
        if which == 1 and not self.config.misp:
            value &= ~1
        if which == 2:
            mask = implemented(ROWS["sireg3"], self.config)
            for bit in range(self.config.exponent_bits, 4):
                mask &= ~(1 << (28 + bit))
            value &= mask
        entry[which] = value
        self.entries[self.physical(logical)] = (entry[0], entry[1], entry[2])

    # Recording

    def enabled(self, mode: int) -> bool:
        if mode & VIRTUAL:
            return bool(field(ROWS["vsctrctl"], self.vsctrctl, "U" if mode == VU else "S"))
        return bool(field(ROWS["mctrctl"], self.mctrctl, {M: "M", S: "S", U: "U"}[mode]))

    def record(self, branches: Iterable) -> None:
        for b in branches:
            self.record_one(
                int(b["from"]), int(b["to"]), BranchClass(int(b["class"])), int(b["cycles"]),
                int(b["flags"]), int(b["cpl_from"]), int(b["cpl_to"]),
            )

    def record_one(
        self, source: int, target: int, cls: BranchClass, cycles: int, flags: int, before: int,
        after: int,
    ) -> None:
        if self.frozen:
            return
        if self.enabled(before):
            bits = (1 << self.config.exponent_bits) + 11
            self.counter = min(self.counter + cycles, (1 << bits) - 1)
        if cls not in PLAIN:
            return
        kind = LINKED.get(cls, PLAIN[cls]) if flags & LINK else PLAIN[cls]
        cause = Cause(flags >> CAUSE_SHIFT)
        if self.freezes(cls, kind, cause, after):
            self.frozen = True
            return
        virtual = before & VIRTUAL or after & VIRTUAL
        control = self.vsctrctl if virtual else self.mctrctl
        mispredicted = bool(flags & BranchFlag.MISPRED)
        if field(ROWS["vsctrctl"], control, "RASEMU"):
            self.emulate_stack(kind, before, mispredicted, source, target)
            return
        if kind == "NOT_TAKEN":
            wanted = bool(field(ROWS["vsctrctl"], control, "NTBREN"))
        else:
            wanted = not field(ROWS["vsctrctl"], control, INHIBIT[kind])
        if kind in ("EXCEPTION", "INTERRUPT"):
            self.trap(kind, wanted, before, after, source, target)
        elif wanted and self.enabled(before):
            if kind == "TRAP_RETURN" and not self.enabled(after):
                target = 0
            self.push(kind, mispredicted, source, target)

    def freezes(self, cls: BranchClass, kind: str, cause: Cause, mode: int) -> bool:
        control = self.vsctrctl if mode & VIRTUAL else self.mctrctl
        if kind == "INTERRUPT" and cause == Cause.COUNTER_OVERFLOW:
            return bool(field(ROWS["vsctrctl"], control, "LCOFIFRZ"))
        breakpoint_ = cls == BranchClass.SOFT_INT or (
            cls == BranchClass.EXCEPTION and cause in (Cause.BREAKPOINT, Cause.WATCHPOINT))
        return breakpoint_ and bool(field(ROWS["vsctrctl"], control, "BPFRZ"))

    def trap(self, kind: str, wanted: bool, before: int, after: int, source: int,
             target: int) -> None:
        if self.enabled(after):
            if wanted:
                self.push(kind, False, source if self.enabled(before) else 0, target)
        elif self.enabled(before) and (before, after) in EXTERNAL:
            enables = {
                "MTE": field(ROWS["mctrctl"], self.mctrctl, "MTE"),
                "STE": field(ROWS["mctrctl"], self.mctrctl, "STE"),
                "VSTE": field(ROWS["vsctrctl"], self.vsctrctl, "STE"),
            }
            if all(enables[name] for name in EXTERNAL[before, after]):
                self.push(kind, False, source, 0)

    def emulate_stack(self, kind: str, before: int, mispredicted: bool, source: int,
                      target: int) -> None:
        if not self.enabled(before):
            return
        if kind == "RETURN":
            self.wrptr = (self.wrptr - 1) % self.depth
            popped = self.entries[self.wrptr]
            self.entries[self.wrptr] = (popped[0] & ~1, popped[1], popped[2])
        elif kind == "SWAP":
            self.wrptr = (self.wrptr - 1) % self.depth
            self.push(kind, mispredicted, source, target, timed=False)
        elif kind in ("INDIRECT_CALL", "DIRECT_CALL"):
            self.push(kind, mispredicted, source, target, timed=False)

    def push(self, kind: str, mispredicted: bool, source: int, target: int,
             timed: bool = True) -> None:
        data = TYPES[kind]
        if timed and self.ccv and self.config.cycles:
            data |= 1 << 15 | self.encode(self.counter) << 16
        misp = mispredicted and self.config.misp
        self.entries[self.wrptr] = (source & ~1 | 1, target & ~1 | misp, data)
        self.wrptr = (self.wrptr + 1) % self.depth
        self.counter, self.ccv = 0, True

    @staticmethod
    def encode(counter: int) -> int:
        if counter < 4096:
            return counter
        cce = counter.bit_length() - 1 - 11
        return cce << 12 | counter >> (cce - 1) & 0xFFF

    @staticmethod
    def decode(cc: int) -> int:
        cce, ccm = cc >> 12, cc & 0xFFF
        return ccm if cce == 0 else ((1 << 12) + ccm) << (cce - 1)

    def registers(self) -> list[Record]:
        return [self.read_entry(i) for i in range(self.depth)]

    def records(self) -> list[Record]:
        """In the layout that all branch recorders share."""
        return [self._common(*one) for one in self.registers()]

    def _common(self, source: int, target: int, data: int) -> Record:
        if not source & 1:
            return 0, 0, 0
        kind = next((name for name, code in TYPES.items() if code == data & 15), "")
        cls = CLASSES.get(kind, BranchClass.EXCEPTION)
        br_type = int(cls) if cls < 8 else CHOICES["OTHER_BRANCH_TYPE"][0]
        if cls == BranchClass.NOT_TAKEN:  # no code of its own: a conditional branch
            br_type = int(BranchClass.COND)
        info = br_type << 56 | cls << 48 | (target & 1) << 63
        if data >> 15 & 1:
            info |= 1 << 60 | min(self.decode(data >> 16 & 0xFFFF), 0xFFFF)
        return source & ~1 or ALL_ONES, target & ~1, info
