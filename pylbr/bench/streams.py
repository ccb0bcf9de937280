"""Branches that rows of the suite are fed with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lbrcore import BRANCH_DTYPE, BranchClass

__all__ = ["MIX", "UNIFORM", "call_tree", "columns", "random_branches"]

UNIFORM: dict[int, float] = dict.fromkeys(range(6), 1.0)
#: 60 % conditional, 25 % calls and returns, the rest jumps.
MIX: dict[int, float] = {
    BranchClass.COND: 60, BranchClass.NEAR_REL_CALL: 9, BranchClass.NEAR_IND_CALL: 3.5,
    BranchClass.NEAR_RET: 12.5, BranchClass.NEAR_REL_JMP: 10, BranchClass.NEAR_IND_JMP: 5}


def random_branches(n: int, weights: Mapping[int, float], seed: int = 1) -> NDArray[np.void]:
    """`n` branches with classes drawn by `weights` (class -> weight) from both rings."""
    rng = np.random.default_rng(seed)
    branches = np.zeros(n, BRANCH_DTYPE)
    branches["from"] = rng.integers(1, 1 << 47, n)
    branches["to"] = rng.integers(1, 1 << 47, n)
    p = np.array(list(weights.values()), float)
    branches["class"] = rng.choice([int(c) for c in weights], n, p=p / p.sum())
    branches["cycles"] = rng.integers(1, 30, n)
    branches["instructions"] = rng.integers(1, 12, n)
    branches["cpl_from"] = branches["cpl_to"] = rng.choice([0, 3], n)
    return branches


def call_tree(n: int, seed: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Classes and cycles of a program that calls, loops and returns; half of all is COND."""
    rng = np.random.default_rng(seed)
    classes = np.empty(n, np.uint8)
    draws, depth = rng.random(n), 1
    for i, draw in enumerate(draws.tolist()):
        call = 0.11 if depth < 24 else 0.0
        back = 0.11 if depth > 1 else 0.0
        if draw < call:
            classes[i], depth = (4 if draw < 0.09 else 3), depth + 1
        elif draw < call + back:
            classes[i], depth = 5, depth - 1
        else:
            classes[i] = 0 if draw < 0.6 else 6 if draw < 0.88 else 2 if draw < 0.96 else 1
    return classes, rng.integers(1, 40, n, dtype=np.uint32)


def columns(n: int) -> dict[str, NDArray[np.generic]]:
    """`n` branches of a call tree, 22 bytes each."""
    classes, cycles = call_tree(1 << 18)
    start = np.arange(n, dtype=np.uint64) * np.uint64(12) + np.uint64(0x400000)
    flags = np.where(np.random.default_rng(2).random(1 << 18) < 0.03, 4, 0).astype(np.uint8)
    return {"from": start, "to": start + np.uint64(96), "class": np.resize(classes, n),
            "cycles": np.resize(cycles, n), "flags": np.resize(flags, n)}
