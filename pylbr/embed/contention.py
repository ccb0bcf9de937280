"""A host that also uses the LBRs while a guest runs: what it does when.

A script is a text file, one line a point; ``#`` begins a comment::

    policy lease
    at 5000 open pinned exclude-guest   # when 5000 instructions have been executed
    every 400 exit                      # at every 400th
    port 1 close                        # when the guest writes 1 to port F5h

Whatever is due happens in the host, between a VM exit and a VM entry:

===================================  ===================================================
``exit``                             nothing but the exit itself
``open`` [``pinned``]                perf opens an event on this CPU, or bound to the vCPU's
[``exclude-guest``] [``user``]       thread
[``task``]
``close``                            perf closes its oldest event
``sample``                           a counter of the host overflows: a PMI, and a sample
``switch`` [N]                       another task has the CPU for N branches (default 40)
``branches`` N                       the host takes N branches
``migrate``                          user space reads the vCPU's registers and sets them again
===================================  ===================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pylbr.arbitration import Policy, make_policy
from pylbr.arbitration.microsteps import EVENT_ON_TASK
from pylbr.embed.vcpu import VirtualProcessor
from pylbr.errors import ConfigurationError

__all__ = ["Act", "Contention", "Point", "Script", "read_script"]

#: Words of ``open``: bits of EventFlag in `pylbr.host.perf`.
_FLAGS = {"pinned": 1, "exclude-guest": 2, "user": 16, "task": EVENT_ON_TASK}
_PLAIN = frozenset({"exit", "close", "sample", "migrate"})
_SWITCH = 40
_MOST = 1 << 40
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Act:
    """What the host does: `name` as in a script, and its number (of branches, or flags)."""

    name: str
    number: int = 0


@dataclass(frozen=True)
class Point:
    """When it does so: "at" or "every" so many instructions, or at a write of "port" F5h."""

    when: str
    number: int
    act: Act


@dataclass(frozen=True)
class Script:
    """A policy and what happens under it.

    Attributes
    ----------
    policy : str
        Out of ``pylbr.arbitration.POLICIES``.
    points : tuple of Point
        Those due at one time happen in this order.
    """

    policy: str
    points: tuple[Point, ...]


def read_script(path: str | Path) -> Script:
    """Read a script.

    Raises
    ------
    ConfigurationError
        With the line that makes no sense.
    OSError
    """
    with open(path, encoding="utf-8", errors="replace") as stream:
        text = stream.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise ConfigurationError(f"{path}: larger than 1 MiB: no contention script")
    policy, points = "", []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        try:
            if words[:1] == ["policy"] and len(words) == 2:
                make_policy(words[1])
                policy = words[1]
            elif words:
                points.append(_point(words))
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}, line {number}: {error}") from None
    if not policy:
        raise ConfigurationError(f"{path}: no line 'policy NAME'")
    return Script(policy, tuple(points))


def _point(words: list[str]) -> Point:
    if len(words) < 3 or words[0] not in ("at", "every", "port"):
        raise ConfigurationError("must be 'policy NAME', or 'at N', 'every N' or 'port N' and "
                                 "what happens then")
    least, most = {"port": (0, 255)}.get(words[0], (1, _MOST))
    return Point(words[0], _number(words[1], least, most), _act(words[2], words[3:]))


def _act(name: str, words: list[str]) -> Act:
    if name in _PLAIN and not words:
        return Act(name)
    if name == "open" and all(word in _FLAGS for word in words):
        return Act(name, sum(_FLAGS[word] for word in set(words)))
    if name in ("switch", "branches") and len(words) == 1:
        return Act(name, _number(words[0], 0, 1 << 20))
    if name == "switch" and not words:
        return Act(name, _SWITCH)
    raise ConfigurationError(
        f"no act {' '.join([name, *words])!r}: must be exit, close, sample, migrate, switch [N], "
        f"branches N or open and any of {', '.join(_FLAGS)}")


def _number(word: str, least: int, most: int) -> int:
    if not word.isascii() or not word.isdigit() or not least <= int(word) <= most:
        raise ConfigurationError(f"{word!r}: must be a number, {least} to {most}")
    return int(word)


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
        self.policy: Policy = make_policy(script.policy)
        self.lost = False
        self._at = sorted((p for p in script.points if p.when == "at"), key=lambda p: p.number)
        self._every = [p for p in script.points if p.when == "every"]
        self._due = [p.number for p in self._every]
        self._ports = [p for p in script.points if p.when == "port"]
        self._cpu: VirtualProcessor | None = None
        self.samples = self.absent = self.cut = self.own = self.others = 0
        self.breaches = self.refused = 0
        self._traces_guest = False

    def take(self, cpu: VirtualProcessor) -> None:
        """From now on it is this guest's host."""
        self._cpu = cpu

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
        """What the guest reads at port F5h: bit 0, records were lost since its last reset."""
        return int(self._vcpu.contended.lost)

    @property
    def _vcpu(self) -> VirtualProcessor:
        assert self._cpu is not None
        return self._cpu

    @property
    def leaked(self) -> int:
        """Records of the host that the guest has read."""
        return self._vcpu.contended.leaked

    def _do(self, acts: list[Act]) -> None:
        if not acts:
            return
        contended = self._vcpu.contended
        contended.leave()
        try:
            for act in acts:
                self._one(act)
        finally:
            contended.enter()
        self._vcpu.msrs.host_has_run()

    def _one(self, act: Act) -> None:
        contended = self._vcpu.contended
        if act.name == "open":
            self.refused += not contended.open(act.number)
            self._traces_guest |= not act.number & _FLAGS["exclude-guest"]
        elif act.name == "close":
            contended.close()
        elif act.name == "sample":
            self._sample()
        elif act.name == "switch":
            contended.switch(act.number)
        elif act.name == "migrate":
            contended.migrate()
        contended.branches(act.number if act.name == "branches" else 1)

    def _sample(self) -> None:
        present, cut, own, others = self._vcpu.contended.sample()
        self.samples += 1
        self.absent += not present
        self.cut += cut
        self.own += own
        self.others += others
        if not self._traces_guest:
            self.breaches += others

    def summary(self) -> str:
        """One line of figures."""
        contended = self._vcpu.contended
        return (
            f"contention under {self.script.policy}: {contended.exited} VM exits for LBRs and "
            f"host, {self.leaked} host records read by the guest; host: {self.samples} samples, "
            f"{self.absent} without records, {self.cut} marked cut, {self.own} own records, "
            f"{self.others} of the guest ({self.breaches} against exclude-guest), "
            f"{self.refused} events refused")
