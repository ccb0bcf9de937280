"""Contention scripts: what a host does beside a guest, and when.

A script is a text file, one line a point; ``#`` begins a comment::

    policy lease +no-wipe               # of pylbr arbitrate, with planted flaws
    holds P1 P4                         # these properties are asked for at the end
    at 5000 open pinned exclude-guest   # when 5000 instructions have been executed
    every 400 exit                      # at every 400th
    port 1 close                        # when the guest writes 1 to port F5h
    port 1 open pinned before vm-entry  # when that micro-step comes next

Whatever is due happens in the host, between a VM exit and a VM entry:

===================================  ===================================================
``exit`` [``pmi``]                   nothing but the exit itself, or one by a host's PMI
``open`` [``pinned``]                perf opens an event on this CPU, or bound to the vCPU's
[``exclude-guest``] [``user``]       thread
[``task``] [``call-stack``]
[``pebs``]
``close`` [``cpu N`` | ``task N``]   perf closes its oldest event, or that one
``enable`` ``cpu N`` | ``task N``    perf enables an event that is in ERROR
``rotate``                           perf's multiplex timer
``sample`` [N]                       a counter of the host overflows: a PMI, and a sample,
                                     which should have N records of the host
``overflow``                         a counter of the host overflows, and its PMI comes later
``pebs``                             the processor writes a PEBS record of the host
``switch`` [N]                       another task has the CPU for N branches (default 40)
``switch host`` | ``other``          ... until the next VM entry: the host's, another vCPU's
``branches`` N                       the host takes N branches
``migrate`` [CONTROL]                user space reads the vCPU's registers and sets them
                                     again; LBR_CTL should be CONTROL there
``vcpu`` EVENT                       what comes to the guest, or what the machine has no
                                     instruction for
``other`` INSTRUCTION                another guest executes that on the same CPU, or takes a
                                     ``branch`` or ``fault``
===================================  ===================================================

An event of a vCPU is ``init``, ``smi``, ``rsm``, ``db``, ``reset``, ``pmi`` (a counter of the
guest overflows), ``ack`` (LBR_FRZ is cleared), ``pebs`` (a PEBS record of the guest), ``vmlaunch``,
``vmlaunch-controls``, ``vmcall`` or ``debugctl`` (L2 sets IA32_DEBUGCTL.LBR).  The guest's program
continues as L2 after ``vmlaunch``.

``before STEP [PART]`` lets an act wait for a micro-step (docs/stories.md), for a later part of it
with a number.  What waits is done in its order; a point at which all wait does not exit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pylbr.arbitration import Policy, make_policy
from pylbr.arbitration.microsteps import EVENT_ON_TASK, Instruction, Step
from pylbr.errors import ConfigurationError

__all__ = ["Act", "HOLDS", "INSTRUCTIONS", "OPEN_FLAGS", "Point", "STEPS", "Script", "read_script"]

#: Words of ``open``: bits of EventFlag in `pylbr.host.perf`.
OPEN_FLAGS: Final = {"pinned": 1, "exclude-guest": 2, "user": 16, "task": EVENT_ON_TASK,
                     "call-stack": 32, "pebs": 128}
#: Properties that a host can look at; a guest's program checks the others.
HOLDS: Final = ("P1", "P2", "P4", "P5", "P6", "P20", "P20b", "P21", "P22", "P23")
#: Micro-steps and what guests do, as scripts and stories name them.
STEPS: Final = {step.name.lower().replace("_", "-"): int(step) for step in Step}
INSTRUCTIONS: Final = {
    name.removeprefix("GUEST_").lower().replace("_", "-"): int(number)
    for name, number in Instruction.__members__.items() if name.startswith("GUEST_")}
#: Of them, those that the program of a machine cannot do itself.
_VCPU = frozenset({"init", "smi", "rsm", "db", "reset", "pmi", "ack", "pebs", "vmlaunch",
                   "vmlaunch-controls", "vmcall", "debugctl"})
#: What has no model with legacy LBRs.
_ARCHITECTURAL = frozenset({"smi", "rsm", "debugctl", "depth", "xsaves", "xrstors"})
_PLAIN = frozenset({"exit", "close", "sample", "migrate", "rotate", "overflow", "pebs"})
#: What cannot happen inside an operation of the hypervisor.
_WHOLE = frozenset({"exit", "switch", "migrate", "vcpu", "other", "task", "exit-pmi", "branch",
                    "fault"})
_SWITCH = 40
_MOST = 1 << 40
_LARGEST = 1 << 20
Make = Callable[[str, Iterable[str]], Policy]


@dataclass(frozen=True)
class Act:
    """What the host does: `name` as in a script, and its number: of branches, of an event, flags.

    Attributes
    ----------
    name : str
    number : int
        -1 where the script has none and the act asks for none.
    step, part : int
        Micro-step before which it is done; 0: at once.
    """

    name: str
    number: int = 0
    step: int = 0
    part: int = 0


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
    flaws : tuple of str
        Planted in the policy.
    holds : tuple of str
        Properties that the script asks for.
    host_freezes : bool
        perf sets FREEZE_LBRS_ON_PMI with architectural LBRs.
    make : callable
        Makes the policy of its name and flaws.
    """

    policy: str
    points: tuple[Point, ...]
    flaws: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    host_freezes: bool = False
    make: Make = make_policy

    @property
    def title(self) -> str:
        """Policy and flaws as a script names them."""
        return " ".join((self.policy, *(f"+{flaw}" for flaw in self.flaws)))


def read_script(path: str | Path, make: Make = make_policy) -> Script:
    """Read a script.

    Parameters
    ----------
    make : callable, optional
        Makes policies: `pylbr.verify.mutants.mutant` has more flaws than `make_policy`.

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
    reader = _Reader(make)
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        try:
            if words:
                reader.line(words)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}, line {number}: {error}") from None
    if not reader.policy:
        raise ConfigurationError(f"{path}: no line 'policy NAME'")
    return Script(reader.policy, tuple(reader.points), reader.flaws, reader.holds,
                  reader.host_freezes, make)


class _Reader:
    """The lines of a script so far."""

    def __init__(self, make: Make) -> None:
        self.make, self.policy, self.legacy = make, "", False
        self.flaws: tuple[str, ...] = ()
        self.holds: tuple[str, ...] = ()
        self.host_freezes = False
        self.points: list[Point] = []

    def line(self, words: list[str]) -> None:
        if words[0] == "policy" and len(words) > 1:
            self._policy(words[1], words[2:])
        elif words[0] == "holds" and len(words) > 1:
            for word in words[1:]:
                if word not in HOLDS:
                    raise ConfigurationError(f"holds {word!r}: a host can look at "
                                             f"{', '.join(HOLDS)}")
            self.holds += tuple(words[1:])
        elif words == ["perf", "freezes"]:
            if self.legacy:
                raise ConfigurationError("perf freezes: only with architectural LBRs")
            self.host_freezes = True
        else:
            self.points.append(self._point(words))

    def _policy(self, name: str, words: list[str]) -> None:
        for word in words:
            if not re.fullmatch(r"\+\S+", word):
                raise ConfigurationError(f"{word!r}: must be +FLAW")
        self.flaws = tuple(word[1:] for word in words)
        self.legacy = self.make(name, self.flaws).legacy
        self.policy = name

    def _point(self, words: list[str]) -> Point:
        if len(words) < 3 or words[0] not in ("at", "every", "port"):
            raise ConfigurationError("must be 'policy NAME', 'holds P…', 'perf freezes', or "
                                     "'at N', 'every N' or 'port N' and what happens then")
        least, most = {"port": (0, 255)}.get(words[0], (1, _MOST))
        number = _number(words[1], least, most)
        step = part = 0
        if "before" in words:
            place = words.index("before")
            step, part = _place(words[place + 1:])
            words = words[:place]
        act = _act(words[2], words[3:]) if len(words) > 2 else None
        if act is None or step and act.name in _WHOLE:
            raise ConfigurationError("before: it must follow open, close, enable, rotate, sample, "
                                     "overflow, pebs or branches")
        named = next((n for n, i in INSTRUCTIONS.items() if i == act.number), "")
        if self.legacy and act.name in ("vcpu", "other") and named in _ARCHITECTURAL:
            raise ConfigurationError(f"{act.name} {named}: guests with legacy LBRs have no model "
                                     "of it")
        return Point(words[0], number, Act(act.name, act.number, step, part))


def _place(words: list[str]) -> tuple[int, int]:
    if not words or words[0] not in STEPS or len(words) > 2:
        raise ConfigurationError(f"before {' '.join(words)!r}: must be one of {', '.join(STEPS)}, "
                                 "and the number of its part")
    return STEPS[words[0]], _number(words[1], 0, 255) if len(words) > 1 else 0


def _act(name: str, words: list[str]) -> Act:
    text = " ".join(words)
    if name in _PLAIN and not words:
        return Act(name, -1 if name in ("close", "migrate") else 0)
    if name == "open" and all(word in OPEN_FLAGS for word in words):
        return Act(name, sum(OPEN_FLAGS[word] for word in set(words)))
    if name in ("switch", "branches", "sample") and re.fullmatch(r"\S*\d\S*", text):
        return Act(name, _number(text, 0, 1 << 20))
    if name == "switch" and not words:
        return Act(name, _SWITCH)
    if name == "switch" and text in ("host", "guest", "other"):
        return Act("task", ("host", "guest", "other").index(text))
    if name == "exit" and text == "pmi":
        return Act("exit-pmi")
    if name in ("close", "enable") and re.fullmatch(r"(cpu|task) [01]", text):
        return Act(name, int(text[-1]) | (EVENT_ON_TASK if text[0] == "t" else 0))
    if name == "migrate" and re.fullmatch(r"0x[0-9A-Fa-f]{1,16}", text):
        return Act(name, int(text, 16))
    if name == "vcpu" and text in _VCPU:
        return Act(name, INSTRUCTIONS[text])
    if name == "other" and text in INSTRUCTIONS:
        return Act(name, INSTRUCTIONS[text])
    if name == "other" and text in ("branch", "fault"):
        return Act(text)
    raise ConfigurationError(
        f"no act {' '.join([name, *words])!r}: must be exit [pmi], close [cpu N | task N], "
        f"enable cpu N | task N, rotate, sample [N], overflow, pebs, migrate [CONTROL], "
        f"switch [N | host | guest | other], branches N, vcpu EVENT, other INSTRUCTION or open "
        f"and any of {', '.join(OPEN_FLAGS)}")


def _number(word: str, least: int, most: int) -> int:
    if not word.isascii() or not word.isdigit() or not least <= int(word) <= most:
        raise ConfigurationError(f"{word!r}: must be a number, {least} to {most}")
    return int(word)
