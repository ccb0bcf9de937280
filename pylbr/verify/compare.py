"""All policies on one workload, in figures and pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lbrcore.config import LbrConfig
from pylbr.arbitration import POLICIES, make_policy
from pylbr.verify.simulation import Simulation

__all__ = ["Figures", "Workload", "compare", "program", "stream_of"]

_EDGES = 512
#: Branches between two reports.
STRIDE = 1_000_000


def program(seed: int, length: int = 1 << 16, edges: int = _EDGES) -> npt.NDArray[np.uint32]:
    """A run of a synthetic program: a random walk over basic blocks with two ways out each.

    Parameters
    ----------
    edges : int
        Two per block; way ``2 * b`` and ``2 * b + 1`` lead out of block b.

    Returns
    -------
    ndarray of uint32
        Edges in the order in which they are taken.
    """
    random = np.random.default_rng(seed)
    blocks = edges // 2
    targets = random.integers(0, blocks, edges)
    targets[::2] = (np.arange(blocks) + 1) % blocks      # the fall-through chain is one loop
    bias = random.beta(0.4, 0.4, blocks)                 # most branches are lopsided
    draws = random.random(length)
    path = np.empty(length, np.uint32)
    block = 0
    for i in range(length):
        edge = 2 * block + int(draws[i] < bias[block])
        path[i] = edge
        block = targets[edge]
    return path


def stream_of(branches: np.ndarray, edges: int = 1 << 16) -> tuple[npt.NDArray[np.uint32], int]:
    """Edges of a recorded trace, numbered by first appearance in sorted order.

    Parameters
    ----------
    branches : ndarray of BRANCH_DTYPE
    edges : int
        At most so many distinct edges are distinguished; later ones are folded.

    Returns
    -------
    (ndarray of uint32, int)
        The edges in order, and how many there are.
    """
    pairs = np.stack([branches["from"], branches["to"]], axis=1)
    unique, numbers = np.unique(pairs, axis=0, return_inverse=True)
    count = min(len(unique), edges)
    return (numbers.reshape(-1) % count).astype(np.uint32), count


@dataclass(frozen=True)
class Workload:
    """Rates, in branches; see `Simulation`."""

    cpus: int = 1
    guests: int = 2
    host_branches: int = 40
    guest_branches: int = 2000
    task_every: int = 50
    session_every: int = 400_000
    session_length: int = 200_000
    period: int = 997
    exclude_guest: bool = True


@dataclass(frozen=True)
class Figures:
    """What one policy made of the workload."""

    policy: str
    counts: dict[str, int]
    host_overlap: float
    guest_overlap: float

    def share(self, part: str, whole: str) -> float:
        """``counts[part] / counts[whole]``; 0 of nothing is 0."""
        return self.counts[part] / self.counts[whole] if self.counts[whole] else 0.0


def overlap(truth: np.ndarray, profile: np.ndarray) -> float:
    """Sum over edges of the smaller share: 1 is the same profile, 0 nothing in common."""
    if not truth.sum() or not profile.sum():
        return 0.0
    return float(np.minimum(truth / truth.sum(), profile / profile.sum()).sum())


def compare(
    workload: Workload,
    branches: int = 20_000_000,
    policies: Sequence[str] = tuple(POLICIES),
    streams: Sequence[npt.NDArray[np.uint32]] | None = None,
    edges: int = _EDGES,
    seed: int = 1,
    report: Callable[[int], object] | None = None,
) -> list[Figures]:
    """Run every policy on the same workload, streams and random numbers.

    Parameters
    ----------
    report : callable, optional
        Called now and then with how many of all runs' branches have retired since the last call.
    """
    if streams is None:
        streams = [program(owner) for owner in range(workload.guests + 1)]
    rates = {key: value for key, value in vars(workload).items() if key != "guests"}
    figures = []
    for name in policies:
        policy = make_policy(name)
        config = LbrConfig.legacy(32, linear_width=64) if policy.legacy else LbrConfig(
            linear_width=64)
        run = Simulation(policy, config, streams, edges, seed=seed, **rates)
        while (left := branches - run.branches) > 0:
            before = run.branches
            run.run(min(STRIDE, left))
            if report:
                report(min(left, run.branches - before))
        truth, profile = run.truth_counts, run.profile_counts
        figures.append(Figures(name, run.counts, overlap(truth[0], profile[0]),
                               overlap(truth[1:].ravel(), profile[1:].ravel())))
    return figures
