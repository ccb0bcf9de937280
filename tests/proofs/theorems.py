"""What is proved of the facility: a step by a branch, an access or XSAVE, from any state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import z3

from tests.proofs.facility import (
    CHOICE,
    COMPONENT,
    CONFIG_FIELDS,
    DERIVED,
    EINVAL,
    GP,
    OK,
    Facility,
    Shown,
    bit,
    bits,
    empty,
    same,
)
from tests.proofs.llvm import Memory, Module, Pointer

__all__ = ["Theorems"]


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
        return replace(
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
            same(facility.shown(after), replace(self.before, events=counts), self.depth),
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
                same(shown, replace(self.before, entry=empty, ler=ler), 64)))))

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
                same(facility.shown(after), replace(self.before, entry=entry), self.depth)))))

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
                facility.shown(after), replace(self.before, entry=entry), self.depth))))

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
                facility.shown(after), replace(self.before, ler=self._three(facility.memory)),
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

        shown = replace(self.before, entry=entry, ler=words[:3], counting=z3.And(
            self.before.counting, bool(CHOICE["RESTART_KEEPS_CYCLES"])))
        loaded = facility.shown(after)
        yield "XRSTORS loads what the component holds, or faults", z3.Implies(
            facility.holds, z3.And(
                self._gp(result, allowed, after),
                z3.Implies(allowed, z3.And(
                    facility.get("ctl", after) == ctl, self._kept(after, "ctl", "xinuse"),
                    same(replace(loaded, events=self.before.events, counting=z3.And(
                        loaded.counting, self._on(after))),
                         replace(shown, counting=z3.And(shown.counting, self._on(after))),
                         self.depth, False)))))

    def _on(self, after: Memory) -> z3.BoolRef:
        return self.facility.get("active", after) == 1
