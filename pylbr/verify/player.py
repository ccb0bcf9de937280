"""Plays a story in words: what is written happens, and before it what it takes to get there."""

from __future__ import annotations

import re

from pylbr.arbitration.microsteps import Operation
from pylbr.errors import StateError
from pylbr.verify.explore import Model
from pylbr.verify.models import name_of, names
from pylbr.verify.properties import names_of
from pylbr.verify.replay import Run
from pylbr.verify.words import STEPS, Action, action_of, kind, normal, word_of

__all__ = ["Player", "operation_of"]

#: Actions after which something that is waited for will not come any more.
PATIENCE = 200

_OPERATIONS = names(Operation, "OP_")
_FIRST = {number for number in STEPS.values() if number % 8 == 0}


def operation_of(step: str) -> str:
    """The operation that has this micro-step: ``switch``, ``enter``, …; ``open`` stands for every
    interrupt."""
    return name_of(_OPERATIONS, STEPS[step] >> 3)


class Player:
    """A run that is directed in words.

    Attributes
    ----------
    steps : list of dict
        Per action: ``word``, ``action``, ``cpu``, ``before`` and ``after`` (`Run.cpu`), ``seen``,
        ``broken``.
    """

    def __init__(self, model: Model, cpus: int = 1) -> None:
        self.run, self.cpus = Run(model), cpus
        self.steps: list[dict] = []

    def apply(self, action: Action) -> dict:
        """Let one action happen.

        Raises
        ------
        StateError
            It cannot happen here.
        """
        if not 0 <= action[1] < self.cpus:
            raise StateError(f"story: step {len(self.steps) + 1}: there is no CPU {action[1]}")
        before = self.run.cpu(action[1])
        try:
            broken = names_of(self.run.apply(action))
        except (ValueError, IndexError, OverflowError) as error:
            raise StateError(f"story: step {len(self.steps) + 1}: {error}") from None
        self.steps.append({
            "word": word_of(action, before, self.cpus), "action": action, "cpu": action[1],
            "before": before, "after": self.run.cpu(action[1]), "seen": self.run.seen(),
            "broken": broken})
        return self.steps[-1]

    def play(self, item: str) -> None:
        """Do what one item of a story asks for, and before it what must come first.

        Raises
        ------
        StateError
            The words are not known, or it cannot happen.
        """
        cpu, text = self._split(item)
        if cpu >= self.cpus:
            raise StateError(f"story: {item!r}: the story has {self.cpus} CPU")
        if found := re.fullmatch(r"(.+?) (after|before) (\S+)", text):
            begun = self._reach(cpu, found[3], item, begin=found[2] == "after")
            if found[2] == "after":
                self._take(cpu, found[3], begun, whole=True)
            self._exactly(cpu, found[1], item)
        elif text in STEPS:
            self._take(cpu, text, self._reach(cpu, text, item), whole=False)
        else:
            self._lead_to(cpu, text)
            self._exactly(cpu, text, item)

    def can(self, item: str) -> bool:
        """Can these words, without `after` or `before`, happen this instant?"""
        cpu, text = self._split(item)
        return cpu < self.cpus and self._possible(cpu, text)

    def exits_for(self, item: str) -> bool:
        """Is this an interrupt, and does a guest run whose exit it would be?"""
        cpu, text = self._split(item)
        here = self.run.cpu(cpu)
        return bool(here["guest"] and not here["frames"]
                    and text.split()[0] in ("ipi", "timer", "nmi", "pmi", "pebs"))

    def finish(self, cpu: int = 0, depth: int = 0) -> None:
        """Run until at most `depth` operations are in flight on a processor."""
        for _ in range(PATIENCE):
            if len(self.run.cpu(cpu)["frames"]) <= depth:
                return
            self._step(cpu)
        raise StateError(f"story: an operation does not end within {PATIENCE} micro-steps")

    # Parts

    def _split(self, item: str) -> tuple[int, str]:
        text = normal(item)
        found = re.fullmatch(r"cpu (\d): ?(.*)", text)
        return (int(found[1]), found[2]) if found else (0, text)

    def _next(self, cpu: int) -> str | None:
        frames = self.run.cpu(cpu)["frames"]
        return frames[-1][1] if frames else None

    def _step(self, cpu: int) -> None:
        self.apply((kind("step"), cpu, 0))

    def _take(self, cpu: int, name: str, begun: bool, whole: bool) -> None:
        """Take the micro-step that is next: one part of it, or all."""
        if not begun:
            self._step(cpu)
        for _ in range(PATIENCE if whole else 0):
            if self._next(cpu) != name:
                return
            self._step(cpu)

    def _possible(self, cpu: int, text: str) -> bool:
        actions = self.run.actions()
        action = action_of(text, cpu, actions)
        return action in actions and self._names_the_guest(cpu, text)

    def _names_the_guest(self, cpu: int, text: str) -> bool:
        found = re.match(r"guest ([a-d]) ", text)
        return not found or self.run.cpu(cpu)["guest"] == found[1].upper()

    def _exactly(self, cpu: int, text: str, item: str) -> None:
        actions = self.run.actions()
        action = action_of(text, cpu, actions)
        if action is None:
            raise StateError(f"story: {item!r} is not known; docs/stories.md lists the words")
        if action not in actions or not self._names_the_guest(cpu, text):
            can = "; ".join(word_of(a, self.run.cpu(a[1]), self.cpus) for a in actions)
            raise StateError(f"story: {item!r} cannot happen after step {len(self.steps)}; "
                             f"possible: {can}")
        self.apply(action)

    def _reach(self, cpu: int, name: str, item: str, begin: bool = True) -> bool:
        """Until the next micro-step is the one of that name; True if the action that began its
        operation has taken it already."""
        if name not in STEPS:
            raise StateError(f"story: {item!r}: there is no micro-step {name!r}; there are "
                             f"{', '.join(STEPS)}")
        for _ in range(PATIENCE):
            here = self.run.cpu(cpu)
            if here["frames"] and here["frames"][-1][1] == name:
                return False
            if here["frames"]:
                self._step(cpu)
                continue
            word = self._beginning(here, operation_of(name))
            if word is None:
                raise StateError(f"story: {item!r}: {name} belongs to an interrupt; write which, "
                                 "such as 'IPI opens cpu-exclude'")
            starts = STEPS[name] in _FIRST and _STARTS.get(word.split()[0]) == operation_of(name)
            if starts and not begin:
                return True
            self._exactly(cpu, word, item)
            if starts:
                return True
        raise StateError(f"story: {item!r}: {name} is not reached within {PATIENCE} actions")

    def _beginning(self, here: dict, operation: str) -> str | None:
        """With nothing in flight, what leads to an operation."""
        if operation == "open":
            return None
        if here["guest"]:
            return "exit irq"
        if operation == "switch":
            return f"switch to {'vcpu a' if here['task'] == 'host' else 'host'}"
        if here["task"] == "host":
            return "switch to vcpu a"
        return "migrate" if operation == "migrate" else "enter"

    def _lead_to(self, cpu: int, text: str) -> None:
        """Until these words can happen, if known ways lead there."""
        for _ in range(PATIENCE):
            if self._possible(cpu, text):
                return
            here = self.run.cpu(cpu)
            if here["frames"]:
                self._step(cpu)
                continue
            word = self._way(here, text)
            if word is None or not self._possible(cpu, word):
                return
            self._exactly(cpu, word, word)

    def _way(self, here: dict, text: str) -> str | None:
        """With nothing in flight, what must happen before these words can."""
        found = re.match(r"guest( ([a-d]))? ", text)
        if found:
            wanted = f"vCPU {found[2].upper()}" if found[2] else here["task"]
            if here["guest"]:
                return None if here["task"] == wanted else "exit irq"
            if here["task"] == "host" or here["task"] != wanted:
                return f"switch to {normal(wanted) if wanted != 'host' else 'vcpu a'}"
            return "enter"
        if text.startswith("exit"):
            return None if here["guest"] else (
                "switch to vcpu a" if here["task"] == "host" else "enter")
        if here["guest"]:
            return "exit irq"
        if text in ("enter", "migrate") and here["task"] == "host":
            return "switch to vcpu a"
        return None


#: First word of an action -> the operation that it begins.
_STARTS = {"switch": "switch", "enter": "enter", "exit": "exit", "migrate": "migrate"}
