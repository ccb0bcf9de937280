"""Who hands the registers to whom, in which context: read off the model, for the contract."""

from __future__ import annotations

from collections import deque

from pylbr.verify.models import Configuration
from pylbr.verify.replay import Run
from pylbr.verify.steps import ACTIONS, STEPS

__all__ = ["Handover", "handovers", "mermaid", "ownership_configuration"]

#: (owner before, owner after, what is done, context)
Handover = tuple[str, str, str, str]

#: The first micro-step of an operation is taken with the action that starts it.
_START = {name: (name, 0) for name in ("switch", "enter", "exit", "open", "close", "enable",
                                       "rotate", "migrate")}

def ownership_configuration(policy: str) -> Configuration:
    """Small, and yet every hand-over of the policy happens."""
    return Configuration(policy, depth=1, guests=1, features=("nmi", "migrate"))


def _step(kind: int, before: dict) -> tuple[str, int]:
    if ACTIONS[kind] == "step":
        return before["frames"][-1][0], before["frames"][-1][1]
    if ACTIONS[kind] == "guest":
        return "exit", 0
    return _START.get(ACTIONS[kind], ("none", 0))


def _context(step: tuple[str, int], before: dict, after: dict) -> str:
    place = "IRQ" if step[0] in ("open", "close", "enable", "rotate") else "task"
    off = place == "IRQ" or not before["irqs"] or not after["irqs"]
    return f"{place}, interrupts {'off' if off else 'on'}"


def handovers(configuration: Configuration) -> list[Handover]:
    """Every change of owner in every reachable state, each kind once, sorted."""
    first = Run(configuration.model())
    known = {first.fingerprint()}
    queue = deque([first])
    found: set[Handover] = set()
    while queue:
        run = queue.popleft()
        before = run.cpu()
        for action in run.actions():
            then = run.copy()
            then.apply(action)
            after = then.cpu()
            if after["owner"] != before["owner"]:
                step = _step(action[0], before)
                what = STEPS.get(step, ACTIONS[action[0]])
                found.add((before["owner"], after["owner"], what,
                           _context(step, before, after)))
            state = then.fingerprint()
            if state not in known:
                known.add(state)
                queue.append(then)
    return sorted(found)


def mermaid(changes: list[Handover]) -> str:
    """A state diagram; one arrow per pair of owners, its causes listed."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for before, after, what, context in changes:
        arrows.setdefault((before, after), []).append(f"{what} [{context}]")
    lines = ["stateDiagram-v2", "    [*] --> nobody"]
    for (before, after), causes in arrows.items():
        label = "<br>".join(cause.replace(":", ",") for cause in causes)
        lines.append(f"    {before.replace(' ', '_')} --> {after.replace(' ', '_')}: {label}")
    return "\n".join(lines)
