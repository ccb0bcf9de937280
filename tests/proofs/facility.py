"""The compiled facility is the manual's: a shift register, proved for every state by induction.

What is proved is the C file of liblbrcore, which Cython makes of the core's sources, as clang
compiles it (`tests.proofs.llvm`).  What it is held to is the plain rule of `lbrcore.reference`,
written here once more as formulas: a list that shifts.  One step is taken from *any* state that the
facility can be in (every configuration, control register, head, count and content of the ring), so
that the equality holds after any number of branches and register writes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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

__all__ = ["DEPTHS", "Facility", "Theorems", "compiled", "prove"]

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


def changed(shown: Shown, **new) -> Shown:
    return replace(shown, **new)


def empty(_: z3.BitVecRef) -> list[z3.BitVecRef]:
    return [z3.BitVecVal(0, 64)] * 3


class Theorems:
    """What holds of a flavour at a depth: each method yields (name, formula)."""

    def __init__(self, module: Module, flavour: int, depth: int) -> None:
        self.module, self.flavour, self.depth = module, flavour, depth
        self.facility = Facility(module, flavour, depth)
        self.before = self.facility.shown()
        self.entry = Pointer("entry")
        self.facility.memory.add("entry", 24)
        self.component = Pointer("component")
        self.facility.memory.add("component", COMPONENT)

    def __iter__(self) -> Iterator[tuple[str, z3.BoolRef]]:
        for part in (self.recording, self.batches, self.control, self.freezing, self.events,
                     self.depths, self.tos, self.reset, self.entries, self.last_exception,
                     self.packing, self.unpacking):
            yield from part()

    def _kept(self, after: Memory, *but: str) -> z3.BoolRef:
        """Members of the state outside `but`, the records and what is derived, are as before."""
        names = [*(f"config.{name}" for name in CONFIG_FIELDS), "ctl", "depth", "event_mask",
                 "enable", "frozen", "xinuse"]
        return z3.And(*(self.facility.get(name, after) == self.facility.get(name)
                        for name in names if name not in but))

    def _well(self, after: Memory) -> z3.BoolRef:
        """What always holds of a state holds after the step: the step of the induction."""
        other = object.__new__(Facility)
        other.__dict__.update(self.facility.__dict__, memory=after.copy())
        counts = {name: other.get(name) for name in ("cycles", "events", "cycles_valid")}
        _, other.memory = other.run("proof_derive")
        for name, value in counts.items():
            other.put(name, value)
        _, other.memory = other.run("proof_quick")
        return z3.And(other.invariant(), *(
            other.get(name) == self.facility.get(name, after) for name in DERIVED))

    def _gp(self, result: z3.BitVecRef, allowed: z3.BoolRef, after: Memory) -> z3.BoolRef:
        """#GP exactly if the value is not allowed, and then nothing has changed."""
        return z3.And(
            (result == OK) == allowed, z3.Or(result == OK, result == GP),
            z3.Implies(z3.Not(allowed), z3.And(
                same(self.facility.shown(after), self.before, self.depth), self._kept(after))))

    def _restarted(self, after: Memory, **new) -> Shown:
        """What is shown after a write of a control register, counts included."""
        was, memory = self.facility.active, self.facility.memory
        self.facility.memory = after
        now = self.facility.active
        self.facility.memory = memory
        starts = z3.And(now, z3.Not(was), not CHOICE["RESTART_KEEPS_CYCLES"])
        return changed(
            self.before, counting=z3.And(self.before.counting, z3.Not(starts)),
            events=[z3.If(starts, z3.BitVecVal(0, 8), count) for count in self.before.events],
            **new)

    def recording(self):
        facility = self.facility
        holds = z3.And(facility.holds, facility.branch_holds)
        expected = facility.recorded()
        result, after = facility.run("lbr_record", facility.branch)
        yield "a branch is recorded as a shift register does", z3.Implies(holds, z3.And(
            same(facility.shown(after), expected, self.depth, expected.counting),
            self._kept(after), result == OK))
        yield "what always holds, holds after a branch", z3.Implies(holds, self._well(after))
        yield "a branch out of range is refused and changes nothing", z3.Implies(
            z3.And(facility.holds, z3.Not(facility.branch_holds)), z3.And(
                same(facility.shown(after), self.before, self.depth), self._kept(after),
                result == EINVAL))

    def batches(self):
        facility = self.facility
        expected = facility.recorded()
        result, after = facility.run("lbr_record_batch", facility.branch, z3.BitVecVal(1, 64))
        yield "a batch of one is a branch", z3.Implies(
            z3.And(facility.holds, facility.branch_holds), z3.And(
                same(facility.shown(after), expected, self.depth, expected.counting),
                self._kept(after), self._well(after), result == OK))

    def control(self):
        facility, value = self.facility, z3.BitVec("value", 64)
        result, after = facility.run("lbr_write_ctl", value)
        allowed = value & ~facility.get("config.ctl_mask") == 0
        yield "a write of the control register", z3.Implies(facility.holds, z3.And(
            self._gp(result, allowed, after),
            z3.Implies(allowed, z3.And(
                facility.get("ctl", after) == value, self._kept(after, "ctl"),
                same(facility.shown(after), self._restarted(after), self.depth, False),
                self._well(after)))))

    def freezing(self):
        facility, value = self.facility, z3.BitVec("flag", 32)
        for name, member in (("lbr_set_enable", "enable"), ("lbr_set_frozen", "frozen")):
            _, after = facility.run(name, value)
            yield f"a change of {member}", z3.Implies(facility.holds, z3.And(
                (facility.get(member, after) == 1) == (value != 0), self._kept(after, member),
                same(facility.shown(after), self._restarted(after), self.depth, False),
                self._well(after)))

    def events(self):
        facility, mask = self.facility, z3.BitVec("mask", 32)
        _, after = facility.run("lbr_set_event_mask", mask)
        new = z3.Extract(7, 0, mask) & facility.get("config.event_counters")
        counts = [z3.If(bit(new, i), count, z3.BitVecVal(0, 8))
                  for i, count in enumerate(self.before.events)]
        yield "a change of the counted events", z3.Implies(facility.holds, z3.And(
            facility.get("event_mask", after) == new, self._kept(after, "event_mask"),
            same(facility.shown(after), changed(self.before, events=counts), self.depth),
            self._well(after)))

    def depths(self):
        facility, value = self.facility, z3.BitVec("value", 64)
        if self.flavour:
            return
        result, after = facility.run("lbr_write_depth", value)
        allowed = z3.Or(*(
            z3.And(value == depth, z3.If(
                facility.get("config.depth") != 0, facility.get("config.depth") == depth,
                bit(facility.get("config.depth_bitmap"), depth // 8 - 1)))
            for depth in range(8, 65, 8)))
        # A processor without the bitmap has one depth, whichever it is.
        allowed = z3.Or(allowed, z3.And(
            facility.get("config.depth") != 0, value == bits(facility.get("config.depth"))))
        ler = self.before.ler
        if CHOICE["DEPTH_WRITE_CLEARS_LER"]:
            ler = empty(value)
        shown = facility.shown(after)
        yield "a write of the depth empties the list", z3.Implies(facility.holds, z3.And(
            self._gp(result, allowed, after),
            z3.Implies(allowed, z3.And(
                bits(facility.get("depth", after)) == value, self._kept(after, "depth"),
                same(shown, changed(self.before, entry=empty, ler=ler), 64)))))

    def tos(self):
        facility, tos = self.facility, z3.BitVec("tos", 32)
        if not self.flavour:
            return
        result, after = facility.run("lbr_write_tos", tos)
        last = self.depth - 1

        def entry(i: z3.BitVecRef) -> list[z3.BitVecRef]:
            # The physical registers stay: number i is now number old - (tos - i).
            return self.before.entry(facility.get("head") - (tos - i) & last)

        yield "a write of TOS leaves the physical registers", z3.Implies(facility.holds, z3.And(
            self._gp(result, z3.ULT(tos, self.depth), after),
            z3.Implies(z3.ULT(tos, self.depth), z3.And(
                facility.get("head", after) & last == tos, self._kept(after), self._well(after),
                same(facility.shown(after), changed(self.before, entry=entry), self.depth)))))

    def reset(self):
        facility = self.facility
        _, after = facility.run("lbr_reset")
        zero = z3.BitVecVal(0, 64)
        shown = Shown(empty, zero, z3.BoolVal(False), [z3.BitVecVal(0, 8)] * 4, empty(zero))
        yield "reset", z3.Implies(facility.holds, z3.And(
            same(facility.shown(after), shown, 64),
            *(facility.get(name, after) == 0
              for name in ("ctl", "enable", "frozen", "xinuse", "head")),
            facility.get("event_mask", after) == facility.get("config.event_counters")))

    def _canonical(self, address: z3.BitVecRef) -> z3.BitVecRef:
        """An address as registers show it: the bits above the linear width copy the top one."""
        width = bits(self.facility.get("config.linear_width"))
        one = z3.BitVecVal(1, 64)
        low = z3.If(width == 64, z3.BitVecVal(-1, 64), (one << width) - 1)
        top = address & one << width - 1 != 0
        return z3.If(top, address | ~low, address & low)

    def _three(self, after: Memory) -> list[z3.BitVecRef]:
        return [after.copy().load(Pointer("entry", 8 * word), 8) for word in range(3)]

    def entries(self):
        facility, number = self.facility, z3.BitVec("number", 32)
        result, after = facility.run("lbr_read_entry", number, self.entry)
        there = z3.ULT(number, self.depth)
        from_, to, info = self.before.entry(number)
        read = [self._canonical(from_), self._canonical(to), info]
        yield "an entry is read in canonical form", z3.Implies(facility.holds, z3.And(
            self._gp(result, there, after), same(facility.shown(after), self.before, self.depth),
            z3.Implies(there, z3.And(
                *(a == b for a, b in zip(self._three(after), read, strict=True))))))
        result, after = facility.run("lbr_write_entry", number, self.entry)
        written = self._three(facility.memory)

        def entry(i: z3.BitVecRef) -> list[z3.BitVecRef]:
            return [z3.If(i == number, new, old)
                    for new, old in zip(written, self.before.entry(i), strict=True)]

        yield "a write of an entry changes that one alone", z3.Implies(facility.holds, z3.And(
            self._gp(result, there, after), self._kept(after), self._well(after),
            z3.Implies(there, same(
                facility.shown(after), changed(self.before, entry=entry), self.depth))))

    def last_exception(self):
        facility = self.facility
        _, after = facility.run("lbr_read_ler", self.entry)
        from_, to, info = self.before.ler
        read = [self._canonical(from_), self._canonical(to), info]
        yield "LER is read in canonical form", z3.Implies(facility.holds, z3.And(
            *(a == b for a, b in zip(self._three(after), read, strict=True)),
            same(facility.shown(after), self.before, self.depth)))
        _, after = facility.run("lbr_write_ler", self.entry)
        yield "a write of LER changes LER alone", z3.Implies(facility.holds, z3.And(
            self._kept(after), self._well(after), same(
                facility.shown(after), changed(self.before, ler=self._three(facility.memory)),
                self.depth)))

    def _words(self, memory: Memory) -> list[z3.BitVecRef]:
        return [memory.copy().load(Pointer("component", at), 8) for at in range(0, COMPONENT, 8)]

    def packing(self):
        facility = self.facility
        if self.flavour:
            return
        result, after = facility.run("lbr_pack", self.component, z3.BitVecVal(COMPONENT, 64))
        expected = [facility.get("ctl"), bits(facility.get("depth"))]
        for from_, to, info in [self.before.ler, *(
                self.before.entry(z3.BitVecVal(i, 32)) for i in range(self.depth))]:
            expected += [self._canonical(from_), self._canonical(to), info]
        expected += self._words(facility.memory)[len(expected):]
        yield "XSAVES writes what registers show and no other byte", z3.Implies(
            facility.holds, z3.And(
                result == OK, same(facility.shown(after), self.before, self.depth),
                *(a == b for a, b in zip(self._words(after), expected, strict=True))))

    def unpacking(self):
        facility = self.facility
        if self.flavour:
            return
        result, after = facility.run("lbr_unpack", self.component, z3.BitVecVal(COMPONENT, 64))
        ctl, depth, *words = self._words(facility.memory)
        deepest = z3.If(facility.get("config.depth") != 0, facility.get("config.depth"), 0)
        for depths in range(8):
            deepest = z3.If(z3.And(facility.get("config.depth") == 0,
                                   bit(facility.get("config.depth_bitmap"), depths)),
                            z3.BitVecVal(8 * (depths + 1), 8), deepest)
        reserved = bits(deepest)
        for shift in (1, 2, 4):
            reserved |= z3.LShR(reserved, shift)
        allowed = z3.And(ctl & ~facility.get("config.ctl_mask") == 0,
                         z3.Or(depth == self.depth, depth & ~reserved == 0))

        def entry(i: z3.BitVecRef) -> list[z3.BitVecRef]:
            found = empty(i)
            for number in range(self.depth):
                row = words[3 + 3 * number:6 + 3 * number]
                found = [z3.If(z3.And(depth == self.depth, i == number), new, old)
                         for new, old in zip(row, found, strict=True)]
            return found

        shown = changed(self.before, entry=entry, ler=words[:3], counting=z3.And(
            self.before.counting, bool(CHOICE["RESTART_KEEPS_CYCLES"])))
        loaded = facility.shown(after)
        yield "XRSTORS loads what the component holds, or faults", z3.Implies(
            facility.holds, z3.And(
                self._gp(result, allowed, after),
                z3.Implies(allowed, z3.And(
                    facility.get("ctl", after) == ctl, self._kept(after, "ctl", "xinuse"),
                    same(changed(loaded, events=self.before.events, counting=z3.And(
                        loaded.counting, self._on(after))),
                         changed(shown, counting=z3.And(shown.counting, self._on(after))),
                         self.depth, False)))))

    def _on(self, after: Memory) -> z3.BoolRef:
        return self.facility.get("active", after) == 1
