"""Random walks at the real depth: all that can happen, at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lbrcore.config import LbrConfig
from pylbr.verify.explore import Model
from pylbr.verify.models import ARCHITECTURAL_ONLY, FEATURES, KINDS, property_bits
from pylbr.verify.mutants import mutant
from pylbr.verify.walk import Walk

__all__ = ["Walked", "everything", "walk"]

#: Actions between two reports.
STRIDE = 1_000_000


@dataclass
class Walked:
    """How far a walk came.

    Attributes
    ----------
    actions, switches : int
        Actions taken; VM entries and exits among them.
    broken : tuple of str
        Properties that the last action broke; empty if the walk came to its end.
    """

    policy: str
    cpus: int
    guests: int
    depth: int
    seed: int
    actions: int
    switches: int
    broken: tuple[str, ...]
    seconds: float


def everything(policy: str, flaws: Sequence[str] = (), *, depth: int = 32, guests: int = 4,
               cpus: int = 2) -> Model:
    """Every feature and every kind of event, two events at a time."""
    made = mutant(policy, flaws)
    hardware = (LbrConfig.legacy(depth, linear_width=64, info_mask=0) if made.legacy
                else LbrConfig(depth=depth, linear_width=64, info_mask=0))
    features = sum(bit for name, bit in FEATURES.items()
                   if not (made.legacy and name in ARCHITECTURAL_ONLY))
    return Model(made, hardware, cpus, guests, features, list(KINDS.values()), 2)


def walk(
    policy: str,
    actions: int,
    *,
    flaws: Sequence[str] = (),
    seed: int = 1,
    guests: int = 4,
    cpus: int = 2,
    report: Callable[[int], None] | None = None,
) -> Walked:
    """Take so many actions at random, or as many as it takes to break a property.

    Parameters
    ----------
    report : callable, optional
        Called with the actions taken so far, some times per second.
    """
    model = everything(policy, flaws, guests=guests, cpus=cpus)
    ignore = property_bits(model.policy.by_design or ())
    run = Walk(model, seed)
    start = time.process_time()
    while run.steps < actions and run.run(min(STRIDE, actions - run.steps), ignore):
        if report:
            report(run.steps)
    return Walked(policy, cpus, guests, 32, seed, run.steps, run.switches, run.broken,
                  time.process_time() - start)
