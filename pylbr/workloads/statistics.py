"""What makes a branch stream easy or hard: its mix of classes, loops, calls and targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lbrcore import BranchClass

__all__ = ["Statistics", "statistics_of"]

_CALLS = (int(BranchClass.NEAR_REL_CALL), int(BranchClass.NEAR_IND_CALL))
_INDIRECT = (int(BranchClass.NEAR_IND_JMP), int(BranchClass.NEAR_IND_CALL))
_CONDITIONS = (int(BranchClass.COND), int(BranchClass.NOT_TAKEN))


@dataclass(frozen=True)
class Statistics:
    """Of some branches, oldest first, of one thread.

    Attributes
    ----------
    classes : dict of int to float
        Share of each `BranchClass`.
    instructions : float
        Per branch.
    taken : float
        Share of conditional branches that are taken.
    loops : tuple of float
        How many times in a row a backward conditional branch is taken, where it is: median, mean
        and 90th percentile.
    depth : tuple of float
        Calls that have not returned, above the least: mean, and 90th percentile.
    targets : float
        Different targets of an indirect jump or call, mean over its executions.
    sites : int
        Different branches.
    entropy : float
        Bits per conditional branch that a guess by the branch alone leaves.
    """

    classes: dict[int, float]
    instructions: float
    taken: float
    loops: tuple[float, float, float]
    depth: tuple[float, float]
    targets: float
    sites: int
    entropy: float


def statistics_of(rows: np.ndarray) -> Statistics:
    """Statistics of an array of BRANCH_DTYPE.

    Raises
    ------
    ValueError
        It is empty.
    """
    if not len(rows):
        raise ValueError("no branches")
    kinds = rows["class"].astype(np.int64)
    counts = np.bincount(kinds, minlength=16)
    condition = np.isin(kinds, _CONDITIONS)
    taken = kinds[condition] == BranchClass.COND
    sites, site = np.unique(rows["from"], return_inverse=True)
    return Statistics(
        {kind: count / len(rows) for kind, count in enumerate(counts.tolist()) if count},
        float(rows["instructions"].mean()),
        float(taken.mean()) if len(taken) else 0.0,
        _loops(rows, site), _depth(kinds), _targets(rows, kinds, site), len(sites),
        _entropy(site[condition], taken))


def _loops(rows: np.ndarray, site: np.ndarray) -> tuple[float, float, float]:
    backward = (rows["class"] == BranchClass.COND) & (rows["to"] <= rows["from"])
    ever = np.zeros(int(site.max()) + 1, bool)
    ever[site[backward]] = True
    looping = ever[site] & np.isin(rows["class"], _CONDITIONS)
    order = np.argsort(site[looping], kind="stable")
    at, again = site[looping][order], backward[looping][order]
    begin = np.flatnonzero(np.concatenate([[True], (at[1:] != at[:-1]) | (again[1:] != again[:-1])])
                           ) if len(at) else np.zeros(0, np.int64)
    lengths = np.diff(begin, append=len(at))[again[begin]] if len(at) else begin
    if not len(lengths):
        return 0.0, 0.0, 0.0
    return float(np.median(lengths)), float(lengths.mean()), float(np.percentile(lengths, 90))


def _depth(kinds: np.ndarray) -> tuple[float, float]:
    step = np.isin(kinds, _CALLS).astype(np.int64) - (kinds == BranchClass.NEAR_RET)
    depth = np.cumsum(step)
    depth -= depth.min()
    return float(depth.mean()), float(np.percentile(depth, 90))


def _targets(rows: np.ndarray, kinds: np.ndarray, site: np.ndarray) -> float:
    indirect = np.isin(kinds, _INDIRECT)
    if not indirect.any():
        return 0.0
    pairs = np.unique(np.column_stack([site[indirect].astype(np.uint64), rows["to"][indirect]]),
                      axis=0)
    many = np.bincount(pairs[:, 0].astype(np.int64), minlength=int(site.max()) + 1)
    return float(many[site[indirect]].mean())


def _entropy(site: np.ndarray, taken: np.ndarray) -> float:
    if not len(site):
        return 0.0
    total = np.bincount(site).astype(float)
    ones = np.bincount(site, taken.astype(float), minlength=len(total))
    share = ones[total > 0] / total[total > 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    return float((np.nan_to_num(bits) * total[total > 0]).sum() / len(site))
