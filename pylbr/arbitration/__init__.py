"""Who holds the LBRs: one interface, one policy a file."""

from __future__ import annotations

from collections.abc import Iterable

from pylbr.arbitration.arch_lbr_v2 import ArchLbrV2
from pylbr.arbitration.kvm_legacy import KvmLegacy
from pylbr.arbitration.lease import Lease
from pylbr.arbitration.mediated import Mediated
from pylbr.arbitration.microsteps import Policy
from pylbr.arbitration.request import Request
from pylbr.errors import ConfigurationError

__all__ = ["POLICIES", "Policy", "make_policy"]

#: Name -> class, arguments, and the flaws that it has as it stands.
POLICIES: dict[str, tuple[type[Policy], dict[str, bool], frozenset[str]]] = {
    "kvm-legacy": (KvmLegacy, {}, frozenset()),
    "kvm-legacy-2024": (KvmLegacy, {}, frozenset({"stale-snapshot"})),
    "kvm-legacy-designed": (KvmLegacy, {"designed": True}, frozenset()),
    "arch-lbr-v2": (
        ArchLbrV2, {}, frozenset(ArchLbrV2.FLAWS) - {"no-entry-load", "pebs-baseline"},
    ),
    "arch-lbr-v2-fixed": (ArchLbrV2, {}, frozenset()),
    "request": (Request, {}, frozenset()),
    "mediated": (Mediated, {}, frozenset()),
    "lease": (Lease, {}, frozenset()),
}


def make_policy(name: str, flaws: Iterable[str] = ()) -> Policy:
    """The policy `name`, with further `flaws` (names out of its ``FLAWS``)."""
    if name not in POLICIES:
        raise ConfigurationError(
            f"there is no policy {name!r}; policies are {', '.join(POLICIES)}")
    kind, arguments, own = POLICIES[name]
    return kind(own | set(flaws), **arguments)
