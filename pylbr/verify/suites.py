"""What `pylbr verify` runs: the standard set, its extensions, the known bugs, the mutants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pylbr.arbitration import known_flaws, make_policy
from pylbr.verify.guards import GUARDS, POLICIES
from pylbr.verify.models import ARCHITECTURAL_ONLY, Configuration, Result, explore
from pylbr.verify.mutants import flaws_of

__all__ = [
    "CORRECT", "EQUIVALENT", "EXTENDED", "SWITCHED", "FlawResult", "broken_claims", "by_design",
    "hunt", "mutants", "switches",
]

#: Our policies that claim every property: those that have guards.
CORRECT = tuple(POLICIES)
#: Policies whose known bugs can be switched on.
SWITCHED = ("arch-lbr-v2-fixed", "kvm-legacy-designed", "mediated-arch-lbr-fixed")


def of_legacy(features: Iterable[str]) -> tuple[str, ...]:
    """Features that policies with legacy LBRs have."""
    return tuple(name for name in features if name not in ARCHITECTURAL_ONLY)


def by_design(policy: str) -> tuple[str, ...]:
    """Properties that a policy breaks in so many ways that a search continues after them."""
    return make_policy(policy).by_design or ()


def broken_claims(policy: str, broken: Iterable[str]) -> tuple[str, ...]:
    """Properties out of `broken` that the policy claims to hold."""
    claims = make_policy(policy).claims
    return tuple(name for name in broken if claims is None or name in claims)


#: Further sets, at depth 1: what they add to branches, switches, entries, exits and events.
EXTENDED: dict[str, dict] = {
    "ler": {"features": ("nmi", "nmi-branch", "migrate", "fault", "xsaves"),
            "kinds": ("cpu-exclude", "cpu")},
    "filters": {"features": ("nmi", "nmi-branch", "migrate", "kernel", "xsaves"),
                "kinds": ("cpu-exclude", "cpu", "cpu-user")},
    "events": {"features": ("migrate", "init", "smm", "db"), "kinds": ("cpu-exclude", "cpu")},
    "tasks": {"features": ("nmi", "migrate", "write"),
              "kinds": ("task-exclude", "task-flexible", "cpu-flexible", "cpu"),
              "guests": 1, "events": 2},
    "nested": {"features": ("nmi", "migrate", "write", "xsaves", "nested"),
               "kinds": ("cpu-exclude", "cpu"), "guests": 1},
    "vpmi": {"features": ("nmi", "nmi-branch", "migrate", "vpmi"),
             "kinds": ("cpu-exclude", "cpu"), "guests": 1},
    "pebs": {"features": ("nmi", "nmi-branch", "migrate", "pebs"),
             "kinds": ("cpu-exclude", "cpu", "cpu-pebs")},
    "timer": {"features": ("nmi", "rotate", "enable"), "events": 2, "guests": 1,
              "kinds": ("cpu-exclude", "cpu", "cpu-flexible", "cpu-flexible-user")},
    "state": {"features": ("nmi", "fault", "xsaves", "xrstors", "reset"),
              "kinds": ("cpu-exclude", "cpu")},
    "freeze": {"features": ("nmi", "nmi-branch", "vpmi", "host-freeze"),
               "kinds": ("cpu-exclude", "cpu", "task-stack"), "guests": 1},
    "stack": {"features": ("nmi", "write"), "kinds": ("task-stack", "cpu-exclude"), "events": 2,
              "guests": 1},
    "cpus": {"features": ("nmi",), "kinds": ("cpu-exclude",), "cpus": 2},
    "all": {"features": ("nmi", "migrate", "nested", "vpmi", "pebs"),
            "kinds": ("cpu-exclude", "cpu-pebs"), "guests": 1, "cpus": 2},
}

#: Where a flaw is looked for, the smallest first.
_GROUNDS: tuple[dict, ...] = (
    {"guests": 1, "depth": 1, "kinds": (), "features": ("migrate", "write", "depth", "xsaves")},
    {"guests": 1, "depth": 1, "kinds": (), "features": ("init", "smm", "db")},
    {"guests": 1, "depth": 1, "kinds": (), "features": ("migrate", "fault", "xsaves")},
    {"guests": 1, "depth": 1, "kinds": ("cpu-exclude", "cpu"),
     "features": ("nmi", "nmi-branch", "migrate", "write", "depth", "xsaves")},
    {"guests": 1, "depth": 1, "kinds": ("cpu-exclude", "cpu"),
     "features": ("nmi", "nmi-branch", "fault", "xsaves")},
    {"guests": 1, "depth": 1, "kinds": ("cpu-exclude", "cpu-user"),
     "features": ("nmi", "nmi-branch", "kernel", "xsaves")},
    {"guests": 1, "depth": 1, "kinds": ("task-flexible", "cpu"), "events": 2,
     "features": ("nmi", "migrate")},
    {"guests": 1, "depth": 1, "kinds": ("task-flexible", "cpu-user"), "events": 2,
     "features": ("nmi", "kernel")},
    {"guests": 2, "depth": 1, "kinds": ("cpu-exclude", "cpu"),
     "features": ("nmi", "nmi-branch", "migrate", "write", "depth", "xsaves")},
    {"guests": 2, "depth": 2, "kinds": ("cpu-exclude", "cpu"),
     "features": ("nmi", "nmi-branch", "migrate", "write", "depth", "xsaves")},
)
#: Where a flaw is looked for that needs a feature (`flaws_of`).
_OWN_GROUNDS: dict[str, tuple[dict, ...]] = {
    feature: tuple({"guests": 1, "depth": 1, "kinds": kinds, "features": ("nmi", feature, *more)}
                   for more in ((), ("migrate",), ("nmi-branch",)))
    for feature, kinds in (
        ("nested", ("cpu-exclude", "cpu")), ("vpmi", ("cpu-exclude", "cpu")),
        ("pebs", ("cpu-exclude", "cpu-pebs")), ("host-freeze", ("cpu-exclude", "cpu")),
        ("reset", ("cpu-exclude", "cpu")))
} | {
    "stack": ({"guests": 1, "depth": 1, "kinds": ("task-stack",), "features": ("nmi",)},
              {"guests": 1, "depth": 2, "kinds": ("task-stack", "cpu-exclude"), "events": 2,
               "features": ("nmi",)}),
}


@dataclass
class FlawResult:
    """One flaw of one policy.

    Attributes
    ----------
    found : tuple of str
        Properties that it breaks and the policy without it does not; empty if none.
    result : Result
        The search that showed it, or the last one.
    """

    policy: str
    flaw: str
    what: str
    found: tuple[str, ...]
    result: Result


#: Guards that change nothing a state can show, and why.
EQUIVALENT = {
    "keep-enabled": "the wipe that follows is an XRSTORS of the initial state, and that zeroes "
                    "LBR_CTL too; both steps run with interrupts off and nothing branches "
                    "between them",
    "keep-host-image": "events close with interrupts on, and by then the image has been put "
                       "back: between VM exit and that point no interrupt is taken",
    "keep-depth": "in a search guests and host have one depth; walks with another kill it "
                  "(test_walk)",
}


def _base(policy: str, ground: dict, known: dict) -> Result:
    key = (policy, str(ground))
    if key not in known:
        known[key] = explore(Configuration(policy, **ground), ignore=by_design(policy))
    return known[key]


def hunt(policy: str, flaw: str, known: dict | None = None) -> FlawResult:
    """Look for a property that `flaw` breaks and `policy` without it does not."""
    known = {} if known is None else known
    what, needs = flaws_of(policy)[flaw]
    result = None
    legacy = make_policy(policy).legacy
    for ground in _OWN_GROUNDS[needs] if needs else _GROUNDS:
        if legacy:
            ground = {**ground, "features": of_legacy(ground["features"])}
        base = _base(policy, ground, known)
        result = explore(Configuration(policy, (flaw,), **ground),
                         ignore=by_design(policy))
        found = tuple(name for name in result.broken if name not in base.broken)
        if found:
            return FlawResult(policy, flaw, what, found, result)
    assert result is not None
    return FlawResult(policy, flaw, what, (), result)


def switches(
    report: Callable[[str], None] | None = None, policies: Iterable[str] = (),
) -> Iterator[FlawResult]:
    """Every known bug: the findings on v2, and merged KVM's; or those of `policies`."""
    known: dict = {}
    for policy in tuple(policies) or SWITCHED:
        for flaw in known_flaws(make_policy(policy)):
            if report:
                report(f"{policy} +{flaw}")
            yield hunt(policy, flaw, known)


def mutants(
    report: Callable[[str], None] | None = None, policies: Iterable[str] = (),
) -> Iterator[FlawResult]:
    """Every guard of every correct policy, or of `policies`, left out by itself."""
    known: dict = {}
    for policy in tuple(policies) or CORRECT:
        for guard in GUARDS.values():
            if policy not in guard.policies:
                continue
            if report:
                report(f"{policy} +{guard.name}")
            yield hunt(policy, guard.name, known)
