"""A host that also uses the LBRs while a guest runs: it does what a script asks for."""

from __future__ import annotations

from collections import deque

from pylbr.arbitration import Policy
from pylbr.embed.contention_script import OPEN_FLAGS, Act, Point, Script, read_script
from pylbr.embed.vcpu import VirtualProcessor

__all__ = ["Act", "Contention", "Point", "Script", "read_script"]

#: Bits of `ContendedCpu.failures` and of `ContendedCpu.broken`, and the properties that they break.
_FAILURES = {1: "P6", 2: "P22", 4: "P23"}
_BROKEN = {1: "P20", 2: "P20b", 4: "P5"}


class Contention:
    """The host's side of a machine.

    Parameters
    ----------
    script : Script

    Attributes
    ----------
    script : Script
    policy : Policy
    lost : bool
        Of a machine that was moved here: the policy there had reported a loss.
    next : int or None
        When something is due next, in instructions.
    samples, absent, cut : int
        PMIs of the host; those that found no records; those whose window is marked as cut.
    own, others : int
        Records in the samples: the host's, and the guest's.
    breaches : int
        Records of the guest in samples while every event so far excluded guests.
    refused : int
        Events that perf could not open.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.policy: Policy = script.make(script.policy, script.flaws)
        self.lost = False
        self._at = sorted((p for p in script.points if p.when == "at"), key=lambda p: p.number)
        self._every = [p for p in script.points if p.when == "every"]
        self._due = [p.number for p in self._every]
        self._ports = [p for p in script.points if p.when == "port"]
        self._cpu: VirtualProcessor | None = None
        self._waiting: deque[Act] = deque()
        self.refused = 0
        self._other_control = False

    def take(self, cpu: VirtualProcessor) -> None:
        """From now on it is this guest's host."""
        self._cpu = cpu
        cpu.contended.due = self._step_comes
        if self.script.host_freezes:
            cpu.contended.host_freezes()

    @property
    def next(self) -> int | None:
        return min([*(p.number for p in self._at[:1]), *self._due], default=None)

    def arrive(self, instructions: int) -> None:
        """So many were executed: do what is due, once."""
        due = [p.act for p in self._at if p.number <= instructions]
        del self._at[:len(due)]
        for i, point in enumerate(self._every):
            if self._due[i] <= instructions:
                due.append(point.act)
                self._due[i] = instructions - instructions % point.number + point.number
        self._do(due)

    def written(self, value: int) -> None:
        """The guest has written to port F5h."""
        self._do([p.act for p in self._ports if p.number == value])

    def flags(self) -> int:
        """What the guest reads at port F5h: bit 0, records were lost since its last reset; bit 1,
        it is L2."""
        contended = self._vcpu.contended
        return int(contended.lost) | contended.in_level2 << 1

    @property
    def _vcpu(self) -> VirtualProcessor:
        assert self._cpu is not None
        return self._cpu

    @property
    def leaked(self) -> int:
        """Records of the host that the guest has read."""
        return self._vcpu.contended.leaked

    samples = property(lambda self: self._vcpu.contended.samples)
    absent = property(lambda self: self._vcpu.contended.absent)
    cut = property(lambda self: self._vcpu.contended.cut)
    own = property(lambda self: self._vcpu.contended.own)
    others = property(lambda self: self._vcpu.contended.others)
    breaches = property(lambda self: self._vcpu.contended.breaches)

    @property
    def broken(self) -> tuple[str, ...]:
        """Properties that were seen broken on the host's side."""
        contended = self._vcpu.contended
        found = {name for bit, name in _FAILURES.items() if contended.failures & bit}
        found |= {name for bit, name in _BROKEN.items() if contended.broken & bit}
        for name, count in (("P1", contended.leaked), ("P2", contended.mixed),
                            ("P4", contended.breaches), ("P21", contended.missed),
                            ("P5", self._other_control)):
            if count:
                found.add(name)
        return tuple(sorted(found, key=lambda name: (int(name[1:].rstrip("b")), name)))

    @property
    def unmet(self) -> tuple[str, ...]:
        """Those of them that the script asks for."""
        return tuple(name for name in self.broken if name in self.script.holds)

    # What is done

    def _do(self, acts: list[Act]) -> None:
        """Acts that wait are noted; the others are done, outside the guest or as its exit."""
        contended = self._vcpu.contended
        for act in acts:
            if act.step:
                self._waiting.append(act)
                contended.waits = True
            elif act.name == "vcpu":
                if not contended.in_guest:
                    contended.enter()
                contended.vcpu(act.number)
            elif act.name == "exit-pmi":
                if not contended.in_guest:
                    contended.enter()
                contended.leave(True)
            else:
                if contended.in_guest:
                    contended.leave()
                self._one(act)
                contended.branches(act.number if act.name == "branches" else 1)
        if not contended.in_guest:
            contended.enter()
        if acts:
            self._vcpu.msrs.host_has_run()

    def _step_comes(self, step: int, part: int) -> None:
        """Do what has waited for this micro-step."""
        waiting = self._waiting
        while waiting and (waiting[0].step, waiting[0].part) == (step, part):
            act = waiting.popleft()
            self._one(act)
            if act.name == "branches":
                self._vcpu.contended.branches(act.number)
        self._vcpu.contended.waits = bool(waiting)

    def _one(self, act: Act) -> None:
        contended, number = self._vcpu.contended, act.number
        if act.name == "open":
            contended.traces_guest |= not number & OPEN_FLAGS["exclude-guest"]
            self.refused += not contended.open(number)
        elif act.name == "migrate":
            contended.migrate()
            self._other_control |= number >= 0 and contended.saved_control != number
        elif act.name in ("branch", "fault"):
            contended.other_branch(act.name == "fault")
        elif act.name in ("rotate", "pebs", "overflow"):
            getattr(contended, act.name)()
        elif act.name in ("close", "enable", "sample", "switch", "task", "other"):
            getattr(contended, act.name)(number)

    def summary(self) -> str:
        """One line of figures, and one for what the script asks for and was broken."""
        contended = self._vcpu.contended
        text = (
            f"contention under {self.script.title}: {contended.exited} VM exits for LBRs and "
            f"host, {self.leaked} host records read by the guest; host: {self.samples} samples, "
            f"{self.absent} without records, {self.cut} marked cut, {self.own} own records, "
            f"{self.others} of the guest ({self.breaches} against exclude-guest), "
            f"{self.refused} events refused")
        if contended.mixed:
            text += f"; {contended.mixed} records of another guest read by the guest"
        if self.script.holds:
            text += "".join(
                f"\n{name} {'broken' if name in self.broken else 'holds'}"
                for name in self.script.holds)
        return text
