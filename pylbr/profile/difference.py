"""Two profiles beside each other, before and after a change, by function."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from pylbr.profile.aggregate import FunctionCounts, Profile

__all__ = ["Side", "difference_rows", "sides", "split_name"]

Row = dict[str, Any]
#: What BOLT, GCC and LLVM append to the name of a function that they copy, split or cut.
_PARTS: Final = re.compile(
    r"(?: ?\(?\.(?:cold|part|constprop|isra|warm|org|llvm|lto_priv)(?:\.\d+)*\)?"
    r"|/\d+(?:\(\*\d+\))?)+$")


def split_name(name: str) -> str:
    """Name of the function that a part or copy is of: ``f`` of ``f.cold.0`` and ``f/1``."""
    return _PARTS.sub("", name) or name


@dataclass(frozen=True, slots=True)
class Side:
    """Figures of one profile that do not depend on how long it was recorded.

    Attributes
    ----------
    branches : int
        Taken branches that were counted.
    run_bytes : float or None
        Mean bytes of straight code between two taken branches; None: there is none.
    cycles_per_branch : float or None
        None: no cycles were recorded.
    mispredict_rate : float or None
        None: not recorded.
    """

    branches: int
    run_bytes: float | None
    cycles_per_branch: float | None
    mispredict_rate: float | None


def sides(*profiles: Profile) -> list[Side]:
    """Figures of each profile."""
    return [_side(profile) for profile in profiles]


def _side(profile: Profile) -> Side:
    edges, runs = profile.edges, profile.runs
    count, timed = int(edges["count"].sum()), int(edges["timed"].sum())
    passes, size = 0, 0
    for first, last, _, times, _, _, _, space in runs.tolist():
        begin, end = profile.symbols.place(space, first), profile.symbols.place(space, last)
        if begin.path == end.path and end.address >= begin.address:
            passes += times
            size += times * (end.address - begin.address)
    missed = int(edges["mispredicted"].sum())
    return Side(
        count, size / passes if passes else None,
        int(edges["cycles"].sum()) / timed if timed else None,
        missed / count if profile.mispredicts_measured and count else None)


@dataclass(slots=True)
class _Sum:
    """Counts of a function and its parts."""

    file: str
    cycles: int = 0
    branches: int = 0
    mispredicted: int = 0


def _by_name(functions: list[FunctionCounts]) -> dict[str, _Sum]:
    """Counts by name; what has none, by file."""
    found: dict[str, _Sum] = {}
    for one in functions:
        name = split_name(one.function) if one.function else f"[{one.path or 'not mapped'}]"
        entry = found.setdefault(name, _Sum(one.path))
        entry.cycles += one.cycles
        entry.branches += one.branches
        entry.mispredicted += one.mispredicted
    return found


def difference_rows(before: Profile, after: Profile, limit: int) -> list[Row]:
    """Functions by how much their share has changed: of cycles where both profiles have them,
    else of branches.

    A function that is in one of the profiles alone has a share of 0 in the other, and no rate of
    mispredicts.
    """
    cycles = before.cycles_measured and after.cycles_measured
    tables = [_by_name(profile.functions()) for profile in (before, after)]
    totals = [sum(f.cycles if cycles else f.branches for f in table.values()) or 1
              for table in tables]
    rows: list[Row] = []
    for name in dict.fromkeys([*tables[1], *tables[0]]):
        found = [table.get(name) for table in tables]
        shares = [(f.cycles if cycles else f.branches) / total if f else 0.0
                  for f, total in zip(found, totals, strict=True)]
        rates = [f.mispredicted / f.branches if f and f.branches and p.mispredicts_measured
                 else None for f, p in zip(found, (before, after), strict=True)]
        file = (found[1] or found[0] or _Sum("")).file
        rows.append({
            "change": shares[1] - shares[0], "before": shares[0], "after": shares[1],
            "branches_before": found[0].branches if found[0] else 0,
            "branches_after": found[1].branches if found[1] else 0,
            "mispredict_rate_before": rates[0], "mispredict_rate_after": rates[1],
            "function": name, "file": file,
        })  # fmt: skip
    rows.sort(key=lambda row: (-abs(row["change"]), -row["after"], row["function"]))
    return rows[:limit]
