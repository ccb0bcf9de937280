"""Actions in words, both ways: what a story prints is what `pylbr verify --story` reads.

The names of steps, operations, instructions and kinds of action are those of the enumerations in
`pylbr.arbitration.microsteps` and `pylbr.verify.world`.  docs/stories.md has the whole language.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pylbr.arbitration.microsteps import EVENT_ON_TASK, Instruction, Step
from pylbr.verify.models import KINDS, name_of, names
from pylbr.verify.world import ActionKind, Branch

__all__ = ["INSTRUCTIONS", "STEPS", "action_of", "instruction", "kind", "normal", "word_of"]

Action = tuple[int, int, int]

#: Names of the micro-steps: name -> number.
STEPS: Final = names(Step)
#: What a guest does, as stories spell it: words -> number.  Registers have their MSR's name.
INSTRUCTIONS: Final = {
    {"read": "rdmsr LBR", "write": "wrmsr LBR", "enable": "wrmsr LBR_CTL",
     "disable": "wrmsr LBR_CTL 0", "user-filter": "wrmsr LBR_CTL user", "depth": "wrmsr LBR_DEPTH",
     "debugctl": "wrmsr DEBUGCTL", "freeze": "wrmsr FREEZE_LBRS_ON_PMI",
     "ack": "wrmsr LBR_FRZ 0", "pmi": "counter overflows", "pebs": "PEBS record",
     "vmlaunch-controls": "vmlaunch with controls"}.get(name, name): number
    for name, number in names(Instruction, "GUEST_").items()}
_EXITS: Final = names(Instruction, "EXIT_")
_KIND: Final = names(ActionKind)
_BRANCHES: Final = names(Branch)


def normal(text: str) -> str:
    """Lower case, single spaces; ``_`` and ``-`` as they are."""
    return " ".join(text.lower().split())


_BY_NORMAL: Final = names(Instruction, "GUEST_") | {
    normal(words): number for words, number in INSTRUCTIONS.items()}


def kind(name: str) -> int:
    """Number of a kind of action: ``host-branch``, ``open``, …"""
    return _KIND[name]


def instruction(words: str) -> int:
    """Number of what a guest does: ``rdmsr LBR``, ``xsaves``, …"""
    return _BY_NORMAL[normal(words)]


def _task(number: int) -> str:
    return "host" if number == 0 else f"vCPU {'ABCD'[number - 1]}"


def _branch(argument: int) -> str:
    return "".join(f" {name}" for name, bit in _BRANCHES.items() if argument & bit)


def _event(argument: int) -> str:
    return (f"{'task' if argument & EVENT_ON_TASK else 'cpu'} event "
            f"{argument & ~EVENT_ON_TASK}")


def word_of(action: Action, before: dict, cpus: int = 1) -> str:
    """Words of an action; `before` is `Run.cpu` of its processor before it."""
    what, cpu, argument = action
    name = name_of(_KIND, what)
    guest = f"guest {before['guest']}"
    text = {
        "step": lambda: before["frames"][-1][1],
        "host-branch": lambda: "host branch" + _branch(argument),
        "guest-branch": lambda: f"{guest} branch" + _branch(argument),
        "guest": lambda: f"{guest} {name_of(INSTRUCTIONS, argument)}",
        "exit": lambda: f"exit {name_of(_EXITS, argument)}",
        "switch": lambda: f"switch to {_task(argument)}",
        "open": lambda: f"IPI opens {name_of(KINDS, argument)}",
        "close": lambda: f"IPI closes {_event(argument)}",
        "enable": lambda: f"IPI enables {_event(argument)}",
        "rotate": lambda: "timer rotates",
        "nmi": lambda: "NMI branches" if argument else "NMI",
        "pebs-record": lambda: "PEBS record",
        "overflow": lambda: "host counter overflows",
    }.get(name, lambda: name)()
    return f"CPU {cpu}: {text}" if cpus > 1 else text


def _number(words: str) -> int | None:
    return _BY_NORMAL.get(words)


def _branch_bits(words: str) -> int | None:
    bits = 0
    for word in words.split():
        if word not in _BRANCHES:
            return None
        bits |= _BRANCHES[word]
    return bits


def _guest_words(words: str) -> tuple[str, int] | None:
    if words.split(" ", 1)[0] == "branch":
        bits = _branch_bits(words[6:])
        return None if bits is None else ("guest-branch", bits)
    number = _number(words)
    return None if number is None else ("guest", number)


def _host_words(words: str) -> tuple[str, int] | None:
    if found := re.fullmatch(r"host branch(.*)", words):
        bits = _branch_bits(found[1])
        return None if bits is None else ("host-branch", bits)
    if found := re.fullmatch(r"switch to (host|vcpu ([a-d]))", words):
        return "switch", 0 if found[1] == "host" else 1 + "abcd".index(found[2])
    if found := re.fullmatch(r"ipi opens (\S+)", words):
        return ("open", KINDS[found[1]]) if found[1] in KINDS else None
    if found := re.fullmatch(r"ipi (close|enable)s (cpu|task) event (\d)", words):
        return found[1], int(found[3]) | (EVENT_ON_TASK if found[2] == "task" else 0)
    if found := re.fullmatch(r"exit (\S+)", words):
        return ("exit", _EXITS[found[1]]) if found[1] in _EXITS else None
    whole = {"nmi": ("nmi", 0), "pmi": ("nmi", 0), "nmi branches": ("nmi", 1),
             "timer rotates": ("rotate", 0), "enter": ("enter", 0), "migrate": ("migrate", 0),
             "host counter overflows": ("overflow", 0),
             "pebs record": ("pebs-record", 0), "exit": ("exit", 0), "interrupt": ("exit", 0)}
    return whole.get(words)


def action_of(words: str, cpu: int, possible: Iterable[Action]) -> Action | None:
    """The action that normal words without a processor mean; None if they mean none.

    Parameters
    ----------
    possible : iterable of (int, int, int)
        What can happen now: ``IPI closes`` and ``IPI enables`` alone mean the first that can.
    """
    if words in ("ipi closes", "ipi enables"):
        wanted = _KIND[words[4:-1]]
        return next((a for a in possible if a[0] == wanted and a[1] == cpu), (wanted, cpu, 0))
    if found := re.fullmatch(r"guest(?: [a-d])? (.+)", words):
        meant = _guest_words(found[1])
    else:
        meant = _host_words(words)
    return None if meant is None else (_KIND[meant[0]], cpu, meant[1])
