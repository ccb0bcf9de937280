"""Rows of the reports: what a person or a script is shown of a profile."""

from __future__ import annotations

from typing import Any

import numpy as np

from pylbr.profile.aggregate import Profile
from pylbr.profile.history import Paths

__all__ = ["VIEWS", "edge_rows", "function_rows", "history_rows", "mispredict_rows", "run_rows"]

Row = dict[str, Any]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _place(profile: Profile, name: str, pid: int, address: int) -> Row:
    """Address, as text since JSON's numbers end at 2^53, and symbol of one end."""
    return {name: f"{address:#x}", f"{name}_symbol": str(profile.symbols.place(pid, address))}


def edge_rows(profile: Profile, limit: int) -> list[Row]:
    """The most frequent taken branches."""
    edges = profile.edges
    order = np.argsort(-edges["count"].astype("i8"), kind="stable")[:limit]
    total = int(edges["count"].sum())
    return [
        {
            "share": _share(count, total), "count": count,
            "mispredict_rate": _share(mispredicted, count), "mispredicted": mispredicted,
            "pid": pid, **_place(profile, "from", pid, first), **_place(profile, "to", pid, last),
        }
        for first, last, _, count, mispredicted, _, _, pid in edges[order].tolist()
    ]  # fmt: skip


def run_rows(profile: Profile, limit: int) -> list[Row]:
    """The straight runs in which most cycles, or without cycles most passes, were spent."""
    runs = profile.runs
    total = int(runs["cycles"].sum())
    weight = runs["cycles"] if total else runs["count"]
    order = np.argsort(-weight.astype("i8"), kind="stable")[:limit]
    whole = int(weight.sum())
    return [
        {
            "share": _share(cycles if total else count, whole), "count": count,
            "cycles": cycles, "mean_cycles": _share(cycles, timed), "pid": pid,
            **_place(profile, "first", pid, first), **_place(profile, "last", pid, last),
        }
        for first, last, _, count, _, cycles, timed, pid in runs[order].tolist()
    ]  # fmt: skip


def mispredict_rows(profile: Profile, limit: int) -> list[Row]:
    """The branch instructions that were mispredicted most often."""
    branches = profile.branches()
    total = int(branches["mispredicted"].sum())
    return [
        {
            "share": _share(mispredicted, total), "mispredicted": mispredicted,
            "mispredict_rate": _share(mispredicted, count), "count": count, "targets": targets,
            "pid": pid, **_place(profile, "branch", pid, address),
        }
        for address, pid, targets, count, mispredicted in branches[:limit].tolist()
        if mispredicted
    ]  # fmt: skip


def function_rows(profile: Profile, limit: int) -> list[Row]:
    """The functions in which most cycles, or without cycles most branches, were counted."""
    functions = profile.functions()
    cycles = sum(f.cycles for f in functions)
    branches = sum(f.branches for f in functions)
    return [
        {
            "share": _share(f.cycles, cycles) if cycles else _share(f.branches, branches),
            "cycles": f.cycles, "branches": f.branches,
            "mispredict_rate": _share(f.mispredicted, f.branches),
            "mispredicted": f.mispredicted, "entered": f.entered, "samples": f.samples,
            "function": f.function, "file": f.path,
        }
        for f in functions[:limit]
    ]  # fmt: skip


def history_rows(profile: Profile, paths: Paths, limit: int) -> list[Row]:
    """The most frequent ways to a sample, the newest branch first."""
    return [
        {
            "share": _share(count, paths.samples), "count": count, "pid": pid,
            "path": [
                {**_place(profile, "from", pid, first), **_place(profile, "to", pid, last)}
                for first, last in branches
            ],
        }
        for count, pid, branches in paths.most_common(limit)
    ]  # fmt: skip


#: View -> what it shows.
VIEWS = {
    "edges": "taken branches, the most frequent first",
    "functions": "functions, by cycles",
    "history": "the last branches before a sample, the most frequent ways first",
    "mispredicts": "mispredicted branches",
    "runs": "code between two branches, by cycles",
}
