"""Counts by source line."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from pylbr.errors import UnsupportedFeature
from pylbr.files.elf_lines import SourceLine, source_lines
from pylbr.profile.aggregate import Profile
from pylbr.profile.annotated import Annotated, annotate
from pylbr.profile.routines import Routine, routines_of

__all__ = ["LineCounts", "LineTables", "hottest", "lines_of"]

_MOST = 500
_ENOUGH = 0.999


@dataclass(slots=True)
class LineCounts:
    """What was counted in the instructions of one source line.

    Attributes
    ----------
    executed : int
        Executions of instructions.
    cycles : float
        Those of straight runs, divided evenly over the instructions of each.
    branches, mispredicted : int
        Taken branches from them.
    functions : Counter
        Function -> executions: a line of a template or an inlined function is in several.
    """

    line: SourceLine
    executed: int = 0
    cycles: float = 0.0
    branches: int = 0
    mispredicted: int = 0
    functions: Counter[str] = field(default_factory=Counter)


class LineTables:
    """Source lines of the instructions of some routines.

    Attributes
    ----------
    problems : list of str
        Files whose debug information cannot be used.
    """

    def __init__(self, routines: Iterable[Routine]) -> None:
        self.problems: list[str] = []
        self._tables: dict[str, tuple[list[int], list[SourceLine]]] = {}
        stretches: dict[str, list[tuple[int, int]]] = defaultdict(list)
        debug: dict[str, str] = {}
        for routine in routines:
            path = routine.image.path
            stretches[path].append((routine.start, routine.end))
            debug[path] = routine.image.debug_file()
        for path, wanted in stretches.items():
            found: dict[int, SourceLine] = {}
            for name in filter(None, (path, debug[path])):
                try:
                    found = found or source_lines(name, wanted)
                except (OSError, ValueError) as error:
                    self.problems.append(f"{error}: no source lines of it")
            self._tables[path] = list(found), list(found.values())

    def at(self, routine: Routine, address: int) -> SourceLine | None:
        """The line of a link address; None where there is none."""
        starts, lines = self._tables.get(routine.image.path, ([], []))
        at = bisect_right(starts, address) - 1
        if at < 0 or starts[at] < routine.start or not lines[at].line:
            return None
        return lines[at]


def hottest(routines: list[Routine], most: int = _MOST) -> list[Routine]:
    """The first routines of some that are ordered, with 99.9 % of what they are ordered by."""
    weights = [r.cycles for r in routines]
    if not any(weights):
        weights = [r.branches for r in routines]
    total, so_far = sum(weights), 0
    for at, weight in enumerate(weights):
        if so_far >= total * _ENOUGH:
            return routines[:min(at, most)]
        so_far += weight
    return routines[:most]


def lines_of(profile: Profile) -> tuple[list[LineCounts], list[str]]:
    """Counts by source line, the most cycles, then executions, first, and what was in the way."""
    routines = hottest(routines_of(profile))
    tables = LineTables(routines)
    counts: dict[SourceLine, LineCounts] = {}
    for routine in routines:
        try:
            _count(annotate(routine), tables, counts)
        except (OSError, ValueError, UnsupportedFeature) as error:
            tables.problems.append(str(error))
    ordered = sorted(counts.values(), key=lambda c: (-c.cycles, -c.executed, c.line))
    return ordered, tables.problems


def _count(code: Annotated, tables: LineTables, counts: dict[SourceLine, LineCounts]) -> None:
    """Add the counts of one routine."""
    name = str(code.routine)
    lines = [tables.at(code.routine, one.address) for one in code.instructions]
    for i, line in enumerate(lines):
        if line is None or not code.counts[i]:
            continue
        found = counts.setdefault(line, LineCounts(line))
        found.executed += int(code.counts[i])
        found.functions[name] += int(code.counts[i])
        if code.cycles is not None:
            found.cycles += float(code.cycles[i])
    for leaving in code.routine.leaving:
        line = lines[code.index(leaving.source)] if lines else None
        if line in counts and line is not None:
            counts[line].branches += leaving.count
            counts[line].mispredicted += leaving.mispredicted
