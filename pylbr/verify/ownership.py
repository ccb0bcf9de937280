"""Hand-overs of the registers and their contexts, read off the model, for the contract."""

from __future__ import annotations

from collections import deque

from pylbr.arbitration.microsteps import Step
from pylbr.verify.models import Configuration, name_of, names
from pylbr.verify.replay import Run
from pylbr.verify.words import STEPS
from pylbr.verify.world import ActionKind

__all__ = ["Handover", "handovers", "mermaid", "ownership_configuration"]

#: (owner before, owner after, what is done, context)
Handover = tuple[str, str, str, str]

#: Action -> the micro-step that it takes, the first of its operation.
_BEGINS = {ActionKind.SWITCH: Step.TASK_OUT, ActionKind.ENTER: Step.SAFE_POINT,
           ActionKind.EXIT: Step.VM_EXIT, ActionKind.GUEST: Step.VM_EXIT,
           ActionKind.MIGRATE: Step.MIGRATE_PUT}
#: All take `Step.RESCHEDULE`.
_INTERRUPTS = {ActionKind.OPEN: "IPI opens an event", ActionKind.CLOSE: "IPI closes an event",
               ActionKind.ENABLE: "IPI enables an event", ActionKind.ROTATE: "timer rotates"}
_IN_IRQ = frozenset({*_INTERRUPTS.values(), name_of(STEPS, Step.IRQ_RETURN)})


def ownership_configuration(policy: str) -> Configuration:
    """Small, and yet every hand-over of the policy happens."""
    return Configuration(policy, depth=1, guests=1, features=("nmi", "migrate"))


def _step(action: tuple[int, int, int], before: dict) -> str:
    """The micro-step that an action takes; of an interrupt, which one it is."""
    kind = ActionKind(action[0])
    if kind == ActionKind.STEP:
        return before["frames"][-1][1]
    if kind in _BEGINS:
        return name_of(STEPS, _BEGINS[kind])
    return _INTERRUPTS.get(kind) or name_of(names(ActionKind), kind)


def _context(step: str, before: dict, after: dict) -> str:
    place = "IRQ" if step in _IN_IRQ else "task"
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
                step = _step(action, before)
                found.add((before["owner"], after["owner"], step,
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
        where = context.replace("IRQ, interrupts off", "IRQ").replace("interrupts", "irqs")
        arrows.setdefault((before, after), []).append(f"{what} [{where}]")
    lines = ["stateDiagram-v2", "    [*] --> unowned"]
    for (before, after), causes in arrows.items():
        label = "<br>".join(cause.replace(":", ",") for cause in causes)
        lines.append(f"    {before.replace(' ', '_')} --> {after.replace(' ', '_')}: {label}")
    return "\n".join(lines)
