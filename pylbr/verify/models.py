"""Configurations to explore, and the search itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any

from lbrcore.config import LbrConfig
from pylbr.arbitration import Policy
from pylbr.arbitration.microsteps import EVENT_ON_TASK
from pylbr.errors import ConfigurationError
from pylbr.host.perf import EventFlag as E
from pylbr.verify.explore import Explorer, Model
from pylbr.verify.mutants import mutant
from pylbr.verify.properties import NAMES, names_of
from pylbr.verify.world import Feature

__all__ = [
    "FEATURES", "KINDS", "STANDARD", "Configuration", "Result", "explore", "name_of", "names",
]


def names(enumeration: type[IntEnum], prefix: str = "") -> dict[str, int]:
    """Members of an enumeration of the models that begin with a prefix, as stories spell them:
    ``F_NMI_BRANCH`` is ``nmi-branch``."""
    return {name.removeprefix(prefix).lower().replace("_", "-"): int(value)
            for name, value in enumeration.__members__.items() if name.startswith(prefix)}


def name_of(known: dict[str, int], number: int) -> str:
    """The name of a number; the number itself if it has none."""
    return next((name for name, value in known.items() if value == number), f"{number:#x}")


#: What may happen besides branches, task switches, entries and exits; see `Feature`.
FEATURES = names(Feature, "F_")

#: Host events that perf may open.
KINDS: dict[str, int] = {
    "cpu": E.PINNED,                        # traces guests
    "cpu-exclude": E.PINNED | E.EXCLUDE_GUEST,
    "cpu-flexible": E.EXCLUDE_GUEST,
    "cpu-flexible-user": E.EXCLUDE_GUEST | E.USER_ONLY,
    "task": E.PINNED | EVENT_ON_TASK,       # of the task that runs; traces guests
    # A user's call stack, kept with the task
    "task-stack": E.PINNED | E.EXCLUDE_GUEST | E.USER_ONLY | E.CALL_STACK | EVENT_ON_TASK,
    "task-exclude": E.PINNED | E.EXCLUDE_GUEST | EVENT_ON_TASK,
    "task-flexible": E.EXCLUDE_GUEST | EVENT_ON_TASK,
    "cpu-pebs": E.PINNED | E.EXCLUDE_GUEST | E.PEBS,
    "cpu-user": E.PINNED | E.EXCLUDE_GUEST | E.USER_ONLY,
}

#: Kind of event -> the feature that puts what it changes into the state.
NEEDS = {"cpu-pebs": "pebs"}

#: Feature -> why policies with legacy LBRs do not have it.
ARCHITECTURAL_ONLY = {
    "smm": "whose guests have no model of SMM",
    "host-freeze": "which a PMI switches off: no LBR_FRZ outlasts it",
}

#: The standard set: one CPU, a host task, migration; of perf, events that are pinned to the CPU,
#: with and without exclude_guest, and one that is flexible.
STANDARD: dict[str, tuple[str, ...]] = {
    "features": ("nmi", "migrate", "xsaves", "write", "depth", "nmi-branch"),
    "kinds": ("cpu-exclude", "cpu", "cpu-flexible"),
}


@dataclass(frozen=True)
class Configuration:
    """What is explored; plain values, so that a story can be replayed from a file.

    Parameters
    ----------
    policy : str
        Name out of `pylbr.arbitration.POLICIES`.
    flaws : tuple of str
        Guards left out, or bugs on top of those that the policy has (`mutants.flaws_of`).
    depth, guests, cpus : int
    features, kinds : tuple of str
        Names out of `FEATURES` and `KINDS`.
    events : int
        Host events that may be open on a CPU at once, 1 or 2.
    """

    policy: str
    flaws: tuple[str, ...] = ()
    depth: int = 2
    guests: int = 2
    cpus: int = 1
    features: tuple[str, ...] = STANDARD["features"]
    kinds: tuple[str, ...] = STANDARD["kinds"]
    events: int = 1

    def model(self, policy: Policy | None = None) -> Model:
        """The model to run.

        Parameters
        ----------
        policy : Policy, optional
            Instead of the one that `policy` and `flaws` name.

        Raises
        ------
        ConfigurationError
            A name is unknown or a number out of its range.
        """
        for names, known, what in ((self.features, FEATURES, "feature"),
                                   (self.kinds, KINDS, "kind of event")):
            for name in names:
                if name not in known:
                    raise ConfigurationError(
                        f"there is no {what} {name!r}; there are {', '.join(known)}")
        for kind, feature in NEEDS.items():
            if kind in self.kinds and feature not in self.features:
                raise ConfigurationError(f"kind of event {kind!r} needs the feature {feature!r}")
        policy = policy or mutant(self.policy, self.flaws)
        for name in policy.claims or ():
            if name not in NAMES:
                raise ConfigurationError(f"policy {policy.name} claims {name!r}, which is no "
                                         f"property; properties are {', '.join(NAMES)}")
        if not 1 <= self.depth <= 3 or (policy.legacy and self.depth == 3):
            raise ConfigurationError(
                f"depth: a model has 1 to 3 entries (legacy LBRs 1 or 2), not {self.depth}")
        for feature, why in ARCHITECTURAL_ONLY.items():
            if policy.legacy and feature in self.features:
                raise ConfigurationError(
                    f"feature {feature}: policy {policy.name} has legacy LBRs, {why}")
        hardware = (LbrConfig.legacy(self.depth, linear_width=64, info_mask=0) if policy.legacy
                    else LbrConfig(depth=self.depth, linear_width=64, info_mask=0))
        return Model(
            policy, hardware, self.cpus, self.guests,
            sum(FEATURES[name] for name in self.features),
            [KINDS[name] for name in self.kinds], self.events)

    def to_dict(self) -> dict:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Configuration:
        """Of what `to_dict` gave.

        Raises
        ------
        ConfigurationError
            Values of other types, or names that a configuration does not have.
        """
        if not isinstance(values, dict):
            raise ConfigurationError("configuration: no names and values")
        checked: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, str):
                value = _RENAMED.get(value, value)
            kind = _TYPES.get(name)
            if kind is tuple and isinstance(value, (list, tuple)) and all(
                    isinstance(item, str) for item in value):
                checked[name] = tuple(_RENAMED.get(item, item) for item in value)
            elif type(value) is kind and (
                    kind is str or isinstance(value, int) and not abs(value) >> 31):
                checked[name] = value
            else:
                raise ConfigurationError(f"configuration: {str(name)[:40]} {str(value)[:40]!r}: "
                                         "unknown, or of another type")
        if "policy" not in checked:
            raise ConfigurationError("configuration: the policy is missing")
        return cls(**checked)


#: Policies and flaws that files of stories may have under an older name.
_RENAMED = {"arch-lbr-v2-mended": "arch-lbr-v2-fixed", "xsaves-door": "no-xss-exiting",
            "pebs-door": "guest-pebs-lbrs", "steal-in-irq": "take-in-ipi"}
#: Type of each value of a configuration.
_TYPES: dict[str, type] = {
    "policy": str, "flaws": tuple, "features": tuple, "kinds": tuple,
    "depth": int, "guests": int, "cpus": int, "events": int}


@dataclass
class Result:
    """What a search found.

    Attributes
    ----------
    broken : dict
        Property -> (states, action), the shortest way to break it.
    memory : int
        What the states took, in bytes.
    """

    configuration: Configuration
    states: int
    transitions: int
    diameter: int
    complete: bool
    seconds: float
    broken: dict[str, tuple] = field(default_factory=dict)
    memory: int = 0


def property_bits(names: Iterable[str]) -> int:
    """Bits of the named properties."""
    return sum(1 << NAMES.index(name) for name in names)


def explore(
    configuration: Configuration,
    *,
    ignore: Iterable[str] = (),
    stop: bool = False,
    limit: int | None = None,
    canonical: bool = True,
    report: Callable[[int, int], None] | None = None,
) -> Result:
    """Search every interleaving.

    Parameters
    ----------
    ignore : iterable of str
        Properties whose failure does not end a path.
    stop : bool
        End at the first failure of a property that is not ignored.
    limit : int, optional
        Give up after so many states; the result is then not `complete`.
    canonical : bool
        Take states that differ in the naming of guests or records as one.
    report : callable, optional
        Called with (states, depth) some times per second.
    """
    watched = ~property_bits(ignore) & 0xFFFFFFFF
    explorer = Explorer(configuration.model(), canonical)
    start = time.process_time()
    while not explorer.run(20_000, watched, watched if stop else 0):
        if report:
            report(explorer.states, explorer.depth)
        if limit and explorer.states > limit:
            break
    seconds = time.process_time() - start
    broken = {name: explorer.path(NAMES.index(name)) for name in names_of(explorer.failed)}
    return Result(configuration, explorer.states, explorer.transitions, explorer.depth,
                  explorer.complete, seconds, broken, explorer.memory)
