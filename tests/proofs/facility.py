"""The compiled facility is the manual's: a shift register, proved for every state by induction.

What is proved is the C file of liblbrcore, which Cython makes of the core's sources, as clang
compiles it (`tests.proofs.llvm`).  What it is held to is the plain rule of `lbrcore.reference`,
written here once more as formulas: a list that shifts.  One step is taken from *any* state that the
facility can be in (every configuration, control register, head, count and content of the ring), so
that the equality holds after any number of branches and register writes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import z3

from lbrcore import BranchClass
from lbrcore.choices import CHOICES
from lbrcore.reference import (
    CALLS,
    CTL_BIT,
    FAR_BRANCH_SELECT,
    JMP_OF,
    LOADS_LER,
    NO_BRANCH,
    OTHER_BRANCH_CTL,
    SELECT_BIT,
)
from tests import manual
from tests.proofs.llvm import Memory, Module, Pointer, Table

__all__ = [
    "CHOICE", "COMPONENT", "CONFIG_FIELDS", "DEPTHS", "DERIVED", "EINVAL", "GP", "OK", "Facility",
    "Shown", "bit", "bits", "compiled", "empty", "prove", "same",
]

#: Depths of the architectural flavour (0) and of the legacy one (1).
DEPTHS = {0: (8, 16, 24, 32), 1: (1, 2, 4, 8, 16, 32)}
SLOTS = 64
OK, EINVAL, GP = 0, -1, -2          # enum lbr_result
COMPONENT = 808                     # bytes of XSAVE component 15 (SDM vol. 1, 13.5.12)
CHOICE = {name: value for name, (value, _) in CHOICES.items()}
QUIRK_JMPS_INCLUDE_CALLS = 1
STATE_FIELDS = {                    # of struct lbr_state, in bytes
    "accept": 8, "pop": 8, "ctl": 8, "cycles": 8, "ler": 24, "head": 4, "depth": 4, "events": 4,
    "event_mask": 1, "mode": 1, "active": 1, "from_ones": 1, "cycles_valid": 1, "enable": 1,
    "frozen": 1, "xinuse": 1, "quick": 1, "ler_classes": 2,
}
CONFIG_FIELDS = {"flavour": 1, "depth_bitmap": 1, "depth": 1, "linear_width": 1,
                 "event_counters": 1, "quirks": 1, "ctl_mask": 8, "info_mask": 8}
BRANCH_FIELDS = {"from": 8, "to": 8, "cycles": 4, "cls": 1, "flags": 1, "cpl_from": 1,
                 "cpl_to": 1, "events": 4}
DERIVED = ("accept", "pop", "mode", "active", "from_ones", "quick", "ler_classes")

#: What the proof adds to the file: where the members are, and the parts that it starts from.
WRAPPER = "\n".join(
    ['#include <stddef.h>', '#include "lbrcore.c"']
    + [f"const uint64_t state_{name} = offsetof(struct lbr_state, {name});"
       for name in STATE_FIELDS]
    + [f"const uint64_t config_{name} = offsetof(struct lbr_state, config.{name});"
       for name in CONFIG_FIELDS]
    + [f"const uint64_t branch_{name} = offsetof(struct lbr_branch, {name});"
       for name in BRANCH_FIELDS]
    + ["const uint64_t state_size = sizeof(struct lbr_state);",
       "const uint64_t branch_size = sizeof(struct lbr_branch);",
       "void proof_derive(struct lbr_state *s) { lbr_control_changed(s); }",
       "void proof_quick(struct lbr_state *s) { lbr_find_quick(s); }",
       "int proof_valid(struct lbr_state *s) { return lbr_config_valid(&s->config); }", ""])


def compiled(source: Path, folder: Path, clang: str) -> Module:
    """The library of `source` (a directory with lbrcore.c and its headers), as clang sees it."""
    (folder / "proof.c").write_text(WRAPPER)
    include = Path(__file__).parents[2] / "lbrcore" / "include"
    subprocess.run(
        [clang, "-O1", "-fno-vectorize", "-fno-slp-vectorize",
         "-fno-discard-value-names", "-S", "-emit-llvm", "-w",
         f"-I{source}", f"-I{include}", "-o", folder / "proof.ll", folder / "proof.c"], check=True)
    return Module((folder / "proof.ll").read_text())


def prove(goal: z3.BoolRef) -> str:
    """Empty if the goal holds in every model, else the values with which it does not.

    An implication of a conjunction is proved part by part.
    """
    given, parts = [], [goal]
    if z3.is_implies(goal):
        given, parts = [goal.arg(0)], [goal.arg(1)]
    while parts:
        part = parts.pop()
        if z3.is_and(part):
            parts += reversed(part.children())
            continue
        solver = z3.SolverFor("QF_ABV")
        solver.add(*given, z3.Not(part))
        answer = solver.check()
        if answer == z3.unknown:
            return f"not decided: {solver.reason_unknown()}"
        if answer == z3.sat:
            model = solver.model()
            return ", ".join(sorted(f"{name} = {model[name]}" for name in model.decls()
                                    if "+" not in str(name) and "!" not in str(name)))
    return ""


def bits(value: z3.BitVecRef, width: int = 64) -> z3.BitVecRef:
    return z3.ZeroExt(width - value.size(), value) if value.size() < width else value


def bit(value: z3.BitVecRef, number: int) -> z3.BoolRef:
    return z3.Extract(number, number, value) == 1


def least(one: z3.BitVecRef, other: int) -> z3.BitVecRef:
    return z3.If(z3.ULT(one, other), one, z3.BitVecVal(other, one.size()))


@dataclass
class Shown:
    """What a state shows: the list of records by number, and what the next record will say."""

    entry: Callable[[z3.BitVecRef], list[z3.BitVecRef]]
    cycles: z3.BitVecRef        # as CYC_CNT would say
    counting: z3.BoolRef        # CYC_CNT has a record to count from
    events: list[z3.BitVecRef]
    ler: list[z3.BitVecRef]


class Facility:
    """A state of which nothing is known but what always holds, and the code that works on it."""

    def __init__(self, module: Module, flavour: int, depth: int) -> None:
        self.module, self.flavour, self.depth = module, flavour, depth
        self.memory = Memory()
        self.memory.add("state", module.constants["state_size"], Table(SLOTS, 3))
        self.memory.add("branch", module.constants["branch_size"])
        self.state, self.branch = Pointer("state"), Pointer("branch")
        one = lambda name, value: self.put(name, z3.BitVecVal(value, 8))  # noqa: E731
        one("config.flavour", flavour)
        self.put("depth", z3.BitVecVal(depth, 32))
        for name, size in {**{f"config.{name}": size for name, size in CONFIG_FIELDS.items()},
                           **STATE_FIELDS}.items():
            if name not in ("config.flavour", "depth"):
                self.put(name, z3.BitVec(f"state.{name}", 8 * size))
        # What control registers make of the facility follows from them ...
        _, self.memory = self.run("proof_derive")
        # ... and what counts since the last record is free again.
        for name in ("cycles", "events", "cycles_valid"):
            self.put(name, z3.BitVec(f"state.{name}", 8 * STATE_FIELDS[name]))
        _, self.memory = self.run("proof_quick")
        # 2^32 branches of 2^32 cycles each without a record would overflow the counter.
        self.holds = z3.And(
            self.invariant(), z3.ULT(self.get("cycles"), (1 << 64) - (1 << 32)))
        self.branch_holds = z3.And(
            z3.ULT(self.of_branch("cls"), 16), z3.ULT(self.of_branch("flags"), 8),
            z3.ULT(self.of_branch("cpl_from"), 4), z3.ULT(self.of_branch("cpl_to"), 4))

    def invariant(self) -> z3.BoolRef:
        """What holds of every state but for what is derived from the control registers."""
        valid, _ = self.run("proof_valid")
        mask, counters = self.get("event_mask"), self.get("config.event_counters")
        events = [z3.Extract(8 * i + 7, 8 * i, self.get("events")) for i in range(4)]
        possible = (self.get("config.depth") == self.depth if self.flavour == 1 else z3.Or(
            self.get("config.depth") == self.depth,
            z3.And(self.get("config.depth") == 0,
                   bit(self.get("config.depth_bitmap"), self.depth // 8 - 1))))
        return z3.And(
            valid == 1, possible, mask & ~counters == 0,
            *(z3.And(z3.ULE(event, 3), z3.Or(bit(mask, i), event == 0))
              for i, event in enumerate(events)),
            z3.ULE(self.get("cycles_valid"), 1), z3.ULE(self.get("enable"), 1),
            z3.ULE(self.get("frozen"), 1), self.get("ctl") & ~self.get("config.ctl_mask") == 0,
            # CYC_CNT is off: there is nothing that counts.
            z3.Or(self.timed, self.get("cycles_valid") == 0))

    # Access

    def _where(self, name: str) -> tuple[Pointer, int]:
        if name.startswith("config."):
            short = name.removeprefix("config.")
            return Pointer("state", self.module.constants[f"config_{short}"]), CONFIG_FIELDS[short]
        return Pointer("state", self.module.constants[f"state_{name}"]), STATE_FIELDS[name]

    def get(self, name: str, memory: Memory | None = None) -> z3.BitVecRef:
        at, size = self._where(name)
        return (memory or self.memory).copy().load(at, size)

    def put(self, name: str, value: z3.BitVecRef) -> None:
        self.memory.store(self._where(name)[0], value)

    def of_branch(self, name: str) -> z3.BitVecRef:
        at = Pointer("branch", self.module.constants[f"branch_{name}"])
        return self.memory.copy().load(at, BRANCH_FIELDS[name])

    def run(self, name: str, *arguments) -> tuple[object, Memory]:
        return self.module.run(name, [self.state, *arguments], self.memory)

    def shown(self, memory: Memory | None = None) -> Shown:
        memory = memory or self.memory
        head, rows = self.get("head", memory), memory.arrays["state"]
        ler = self.get("ler", memory)
        return Shown(
            lambda i: [row[z3.Extract(5, 0, head - i)] for row in rows],
            least(self.get("cycles", memory), manual.INFO_CYC_CNT),
            self.get("cycles_valid", memory) == 1,
            [z3.Extract(8 * i + 7, 8 * i, self.get("events", memory)) for i in range(4)],
            [z3.Extract(64 * i + 63, 64 * i, ler) for i in range(3)])

    # The rule (`lbrcore.reference`)

    def ctl_bit(self, number: int) -> z3.BoolRef:
        return bit(self.get("ctl"), number)

    @property
    def active(self) -> z3.BoolRef:
        enabled = self.get("enable") == 1 if self.flavour else self.ctl_bit(0)
        return z3.And(enabled, self.get("frozen") == 0)

    @property
    def timed(self) -> z3.BoolRef:
        """INFO has CYC_CNT."""
        return self.get("config.info_mask") & manual.INFO_CYC_CNT != 0

    @property
    def call_stack(self) -> z3.BoolRef:
        return self.ctl_bit(9 if self.flavour else 3)

    def class_passes(self, kind: BranchClass) -> z3.BoolRef:
        if kind in NO_BRANCH:
            return z3.BoolVal(False)
        if not self.flavour:
            offered = self.get("config.ctl_mask") & manual.CTL_CLASSES != 0
            return z3.Or(z3.Not(offered), self.ctl_bit(CTL_BIT.get(kind, OTHER_BRANCH_CTL)))
        passes = z3.Not(self.ctl_bit(SELECT_BIT.get(kind, FAR_BRANCH_SELECT)))
        if kind in JMP_OF:
            quirk = self.get("config.quirks") & QUIRK_JMPS_INCLUDE_CALLS != 0
            passes = z3.And(passes, z3.Or(z3.Not(quirk), self.class_passes(JMP_OF[kind])))
        return passes

    def ring_passes(self, cpl: z3.BitVecRef) -> z3.BoolRef:
        if self.flavour:
            return z3.Not(z3.If(cpl == 0, self.ctl_bit(0), self.ctl_bit(1)))
        offered = self.get("config.ctl_mask") & manual.CTL_CPL != 0
        return z3.Or(z3.Not(offered), z3.If(cpl == 0, self.ctl_bit(1), self.ctl_bit(2)))

    def recorded(self) -> Shown:
        """What the state shows after the branch, by the rule."""
        before, kind = self.shown(), self.of_branch("cls")
        is_one_of = lambda kinds: z3.Or(*(kind == int(one) for one in kinds))  # noqa: E731
        passes = z3.And(self.active, self.ring_passes(self.of_branch("cpl_to")), z3.Or(*(
            z3.And(kind == int(one), self.class_passes(one)) for one in BranchClass)))
        pops = z3.And(passes, self.call_stack, kind == int(BranchClass.NEAR_RET))
        pushes = z3.And(passes, z3.Not(pops))
        if not CHOICE["CALL_STACK_RECORDS_OTHERS"]:
            pushes = z3.And(pushes, z3.Or(z3.Not(self.call_stack), is_one_of(CALLS)))
        # Counts since the last record
        cycles = z3.If(before.counting,
                       least(bits(before.cycles) + bits(self.of_branch("cycles")),
                             manual.INFO_CYC_CNT),
                       before.cycles)
        events = []
        for i, count in enumerate(before.events):
            more = z3.ZeroExt(8, z3.Extract(8 * i + 7, 8 * i, self.of_branch("events")))
            counted = z3.Extract(7, 0, least(z3.ZeroExt(8, count) + more, 3))
            events.append(z3.If(bit(self.get("event_mask"), i), counted, count))
        # The record
        hidden = z3.BoolVal(False) if self.flavour else z3.Not(
            self.ring_passes(self.of_branch("cpl_from")))
        br_type = z3.If(z3.ULT(kind, 8), kind, CHOICE["OTHER_BRANCH_TYPE"])
        info = (bits(self.of_branch("flags")) << 61 | bits(br_type) << 56 | bits(kind) << 48
                | z3.If(before.counting, manual.INFO_CYC_CNT_VALID | cycles, z3.BitVecVal(0, 64)))
        for i in range(4):
            info |= z3.If(self.get("config.event_counters") != 0,
                          bits(events[i]) << 32 + 2 * i, z3.BitVecVal(0, 64))
        new = [z3.If(hidden, z3.BitVecVal(-1, 64), self.of_branch("from")),
               self.of_branch("to"), info & self.get("config.info_mask")]
        empty = z3.BitVecVal(0, 64)

        def entry(i: z3.BitVecRef) -> list[z3.BitVecRef]:
            older, newer, same = before.entry(i - 1), before.entry(i + 1), before.entry(i)
            return [z3.If(pushes, z3.If(i == 0, new[word], older[word]),
                          z3.If(pops, z3.If(i == self.depth - 1, empty, newer[word]), same[word]))
                    for word in range(3)]

        newest = before.entry(z3.BitVecVal(0, 32))
        loads = z3.And(self.active, is_one_of(LOADS_LER))
        if not CHOICE["EMPTY_STACK_CLEARS_LER"]:
            loads = z3.And(loads, z3.Or(newest[0] != 0, newest[1] != 0))
        newest[2] &= 0xEF << 56
        timed = self.timed
        restarts = z3.Or(pushes, pops) if CHOICE["POP_RESTARTS_CYCLES"] else pushes
        on = lambda one, other: z3.If(self.active, one, other)  # noqa: E731
        return Shown(
            entry,
            on(z3.If(z3.And(restarts, timed), empty, cycles), before.cycles),
            z3.If(z3.And(pushes, timed), z3.BoolVal(True), before.counting),
            [on(z3.If(pushes, z3.BitVecVal(0, 8), after), count)
             for after, count in zip(events, before.events, strict=True)],
            [z3.If(loads, word, old) for word, old in zip(newest, before.ler, strict=True)])


def same(one: Shown, other: Shown, depth: int, counts: z3.BoolRef | bool = True) -> z3.BoolRef:
    """Two states show the same; CYC_CNT matters if it `counts`."""
    i = z3.BitVec("i", 32)
    equal = [a == b for a, b in zip(one.entry(i), other.entry(i), strict=True)]
    return z3.And(
        z3.Implies(z3.ULT(i, depth), z3.And(*equal)), one.counting == other.counting,
        z3.Implies(counts, one.cycles == other.cycles),
        *(a == b for a, b in zip(one.events, other.events, strict=True)),
        *(a == b for a, b in zip(one.ler, other.ler, strict=True)))


def empty(_: z3.BitVecRef) -> list[z3.BitVecRef]:
    return [z3.BitVecVal(0, 64)] * 3
