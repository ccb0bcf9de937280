"""Host against guest at every micro-step, and every interleaving."""

from __future__ import annotations

from functools import partial

from pylbr.arbitration import as_called, make_policy
from pylbr.selftest.ktap import Case
from pylbr.verify import script
from pylbr.verify.models import Configuration, explore
from pylbr.verify.properties import TITLES
from pylbr.verify.suites import by_design

__all__ = ["matrix_cases", "search_cases"]

#: What the guest does while the event of the host comes at each micro-step.
_STORY = ("guest wrmsr LBR_CTL; guest branch; exit irq; host branch; vm-entry; guest branch; "
          "guest rdmsr LBR; switch to host; host branch; switch to vCPU A; vm-entry; "
          "guest rdmsr LBR; exit irq; exit-irqs-on")
_OPENED = "IPI opens {}; host branch; " + _STORY
#: Event -> the story in which it is placed.
_EVENTS = {
    "IPI opens cpu-exclude": _STORY, "IPI opens cpu": _STORY, "IPI opens cpu-flexible": _STORY,
    "IPI opens task-exclude": _STORY, "IPI opens task-flexible": _STORY,
    "NMI": _OPENED.format("cpu-exclude"), "NMI branches": _OPENED.format("cpu-exclude"),
    "IPI closes": _OPENED.format("cpu-exclude"), "migrate": _OPENED.format("cpu-exclude"),
    "switch to vCPU B": _OPENED.format("cpu-exclude"),
}


def _claimed(policy: str) -> frozenset[str]:
    claims = make_policy(policy).claims
    return frozenset(TITLES if claims is None else claims)


def _placed(policy: str, event: str) -> tuple[bool, list[str]]:
    outcomes = script.what_if(event, script.read(_EVENTS[event], policy))
    broken = sorted({name for outcome in outcomes for name in outcome.broken})
    first = {name: next(f"after {o.after or 'the beginning'}" for o in outcomes
                        if name in o.broken) for name in broken}
    claimed = _claimed(policy) or frozenset(TITLES)  # all, if what breaks is documented
    return not claimed & {*broken}, [f"{len(outcomes)} points",
                        *(f"{name}: {TITLES[name]}, {at}" for name, at in first.items())]


def matrix_cases(policy: str) -> list[Case]:
    """One event of the host at every micro-step of a guest's run."""
    claims = bool(_claimed(policy))
    return [Case(f"{event} at every micro-step", partial(_placed, policy, event), claims)
            for event in _EVENTS]


def search_cases(policy: str) -> list[Case]:
    """Each property in every reachable state of the standard set, one entry, two guests."""
    found: list[object] = []

    def run(name: str) -> tuple[bool, list[str]]:
        if not found:
            found.append(explore(Configuration(policy, depth=1), ignore=by_design(policy)))
        result = found[0]
        broken = result.broken.get(name)  # type: ignore[attr-defined]
        remarks = [f"{result.states:,} states"] if name == "P1" else []  # type: ignore[attr-defined]
        if broken:
            remarks.append(f"broken in {len(broken[0])} steps; "
                           f"pylbr verify {as_called(policy)} --depth 1 --stories")
        return not broken, remarks

    return [Case(f"{name} in every interleaving; broken if {title}", partial(run, name),
                 name in _claimed(policy)) for name, title in TITLES.items()]
