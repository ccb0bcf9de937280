"""Policies with guards left out."""

from __future__ import annotations

from collections.abc import Iterable

from pylbr.arbitration import Policy, known_flaws, make_policy
from pylbr.errors import ConfigurationError
from pylbr.verify import _mutants  # type: ignore[attr-defined]  # woven, without a stub
from pylbr.verify.guards import GUARDS, POLICIES

__all__ = ["flaws_of", "mutant"]


def flaws_of(policy: str) -> dict[str, tuple[str, str]]:
    """Guards that can be left out of `policy`, or bugs of the code after which it is modelled.

    Returns
    -------
    dict
        Name -> (what it is, feature without which nothing can show, or an empty string).
    """
    known = {name: (what, needs[0] if needs else "")
             for name, (_, what, *needs) in known_flaws(make_policy(policy)).items()}
    return known | {guard.name: (guard.what, guard.needs) for guard in GUARDS.values()
                    if policy in guard.policies}


def mutant(policy: str, flaws: Iterable[str] = ()) -> Policy:
    """`policy` with `flaws`, names out of `flaws_of`.

    Raises
    ------
    ConfigurationError
        There is no such policy, or it has no such flaw.
    """
    flaws = tuple(flaws)
    if not flaws or policy not in POLICIES:
        return make_policy(policy, flaws)
    known = flaws_of(policy)
    for flaw in flaws:
        if flaw not in known:
            raise ConfigurationError(f"policy {policy} has no flaw {flaw!r}; it has "
                                     f"{', '.join(known)}")
    made = getattr(_mutants, POLICIES[policy])()
    made.leave_out([list(GUARDS).index(flaw) for flaw in flaws])
    return made
