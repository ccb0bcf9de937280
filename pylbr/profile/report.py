"""Rows of the reports: what a person or a script is shown of a profile."""

from __future__ import annotations

from typing import Any

import numpy as np

from pylbr.errors import CommandError
from pylbr.files.program_text import ProgramText
from pylbr.profile.aggregate import Profile
from pylbr.profile.callers import calls_of
from pylbr.profile.history import Paths
from pylbr.profile.lines import lines_of

__all__ = [
    "COLUMNS", "VIEWS", "caller_rows", "edge_rows", "function_rows", "heading", "history_rows",
    "line_rows", "mispredict_rows", "order_of", "run_rows",
]  # fmt: skip

Row = dict[str, Any]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _mean(total: float, count: float) -> float | None:
    """Mean of what was measured `count` times; None if never."""
    return total / count if count else None


def _missed(profile: Profile, mispredicted: int, count: int) -> Row:
    """How often a branch was mispredicted; None where that was not recorded."""
    if not profile.mispredicts_measured:
        return {"mispredict_rate": None, "mispredicted": None}
    return {"mispredict_rate": _share(mispredicted, count), "mispredicted": mispredicted}


def _place(profile: Profile, name: str, space: int, address: int) -> Row:
    """Address, as text since JSON's numbers end at 2^53, and symbol of one end."""
    place = profile.symbols.place(space, address)
    shown = place.address if profile.by_place else address
    return {name: f"{shown:#x}", f"{name}_symbol": str(place)}


def _pid(profile: Profile, space: int) -> int | None:
    """The process; None in a sum of several inputs."""
    return None if profile.by_place else profile.spaces.pid_of(space)


def edge_rows(profile: Profile, limit: int) -> list[Row]:
    """The most frequent taken branches."""
    edges = profile.edges
    order = np.argsort(-edges["count"].astype("i8"), kind="stable")[:limit]
    total = int(edges["count"].sum())
    return [
        {
            "share": _share(count, total), "count": count,
            **_missed(profile, mispredicted, count), "pid": _pid(profile, space),
            **_place(profile, "from", space, first), **_place(profile, "to", space, last),
        }
        for first, last, _, count, mispredicted, _, _, space in edges[order].tolist()
    ]  # fmt: skip


def run_rows(profile: Profile, limit: int) -> list[Row]:
    """The straight runs in which most cycles, or without cycles most passes, were spent."""
    runs = profile.runs
    measured = profile.cycles_measured
    weight = runs["cycles"] if measured else runs["count"]
    order = np.argsort(-weight.astype("i8"), kind="stable")[:limit]
    whole = int(weight.sum())
    return [
        {
            "share": _share(cycles if measured else count, whole), "count": count,
            "cycles": cycles if timed else None, "mean_cycles": _mean(cycles, timed),
            "pid": _pid(profile, space),
            **_place(profile, "first", space, first), **_place(profile, "last", space, last),
        }
        for first, last, _, count, _, cycles, timed, space in runs[order].tolist()
    ]  # fmt: skip


def mispredict_rows(profile: Profile, limit: int) -> list[Row]:
    """The branch instructions that were mispredicted most often."""
    branches = profile.branches()
    total = int(branches["mispredicted"].sum())
    return [
        {
            "share": _share(mispredicted, total), "mispredicted": mispredicted,
            "mispredict_rate": _share(mispredicted, count), "count": count, "targets": targets,
            "pid": _pid(profile, space), **_place(profile, "branch", space, address),
        }
        for address, space, targets, count, mispredicted in branches[:limit].tolist()
        if mispredicted
    ]  # fmt: skip


def function_rows(profile: Profile, limit: int) -> list[Row]:
    """The functions in which most cycles, or without cycles most branches, were counted."""
    functions = profile.functions()
    measured = profile.cycles_measured
    cycles = sum(f.cycles for f in functions)
    branches = sum(f.branches for f in functions)
    return [
        {
            "share": _share(f.cycles, cycles) if measured else _share(f.branches, branches),
            "cycles": f.cycles if measured else None, "branches": f.branches,
            **_missed(profile, f.mispredicted, f.branches), "entered": f.entered,
            "samples": f.samples if profile.samples else None,
            "function": f.function, "file": f.path,
        }
        for f in functions[:limit]
    ]  # fmt: skip


def line_rows(profile: Profile, limit: int) -> list[Row]:
    """The source lines in which most cycles, or without cycles most instructions, were counted.

    Raises
    ------
    CommandError
        There are none.
    """
    lines, problems = lines_of(profile)
    if not lines:
        raise CommandError("no source lines: the files that ran cannot be read here, or have no "
                           "debug information (build them with -g)")
    profile.symbols.problems += [p for p in problems if p not in profile.symbols.problems]
    measured = profile.cycles_measured
    whole = sum(line.cycles if measured else line.executed for line in lines)
    texts = ProgramText()
    return [
        {
            "share": _share(line.cycles if measured else line.executed, whole),
            "cycles": round(line.cycles) if measured else None, "instructions": line.executed,
            "branches": line.branches, **_missed(profile, line.mispredicted, line.branches),
            "line": f"{line.line.file}:{line.line.line}", "text": texts.line(*line.line),
            "function": line.functions.most_common(1)[0][0],
        }
        for line in lines[:limit]
    ]  # fmt: skip


def caller_rows(profile: Profile, limit: int) -> list[Row]:
    """Which function enters which, the most frequent first."""
    calls = calls_of(profile)
    total = sum(call.count for call in calls)
    return [
        {
            "share": _share(call.count, total), "count": call.count,
            **_missed(profile, call.mispredicted, call.count),
            "caller": call.caller, "caller_file": call.caller_file,
            "callee": call.callee, "callee_file": call.callee_file,
        }
        for call in calls[:limit]
    ]  # fmt: skip


def history_rows(profile: Profile, paths: Paths, limit: int) -> list[Row]:
    """The most frequent ways to a sample, the newest branch first."""
    return [
        {
            "share": _share(count, paths.samples), "count": count,
            "pid": _pid(profile, space),
            "path": [
                {**_place(profile, "from", space, first), **_place(profile, "to", space, last)}
                for first, last in branches
            ],
        }
        for count, space, branches in paths.most_common(limit)
    ]  # fmt: skip


#: View -> what it shows and in what order, where that was recorded.
VIEWS = {
    "callers": "which function enters which, by count",
    "edges": "taken branches, by count",
    "functions": "functions, by cycles",
    "history": "the last branches before a sample, by count",
    "lines": "source lines, by cycles",
    "mispredicts": "branch instructions, by mispredicts",
    "runs": "code between two branches, by cycles",
}
#: View -> its columns, in order.
COLUMNS = {
    "callers": ("share", "count", "mispredict_rate", "mispredicted", "caller", "caller_file",
                "callee", "callee_file"),
    "edges": ("share", "count", "mispredict_rate", "mispredicted", "pid", "from", "from_symbol",
              "to", "to_symbol"),
    "functions": ("share", "cycles", "branches", "mispredict_rate", "mispredicted", "entered",
                  "samples", "function", "file"),
    "history": ("share", "count", "pid", "path"),
    "lines": ("share", "cycles", "instructions", "branches", "mispredict_rate", "mispredicted",
              "line", "text", "function"),
    "mispredicts": ("share", "mispredicted", "mispredict_rate", "count", "targets", "pid",
                    "branch", "branch_symbol"),
    "runs": ("share", "count", "cycles", "mean_cycles", "pid", "first", "first_symbol", "last",
             "last_symbol"),
}
_WITHOUT_CYCLES = {"functions": "branches", "lines": "instructions", "runs": "count"}


def order_of(profile: Profile, view: str) -> str:
    """What the rows of a view are ordered by."""
    if view in _WITHOUT_CYCLES and not profile.cycles_measured:
        return _WITHOUT_CYCLES[view]
    return VIEWS[view].rpartition(" by ")[2]


def heading(profile: Profile, view: str) -> str:
    """`VIEWS` as it applies to a profile."""
    what, _, usual = VIEWS[view].rpartition(" by ")
    order = order_of(profile, view)
    return f"{what} by {order}" + ("" if order == usual else f" (no {usual} were recorded)")
