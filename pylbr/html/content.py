"""What the page of a profile contains, as data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from pylbr.errors import CommandError, UnsupportedFeature
from pylbr.html.code import CodeWriter
from pylbr.html.flame import FlameTree
from pylbr.html.texts import Texts
from pylbr.profile import report, report_text
from pylbr.profile.annotated import annotate
from pylbr.profile.difference import difference_rows, sides
from pylbr.profile.file_profile import FileProfile
from pylbr.profile.lines import LineTables, hottest
from pylbr.profile.routines import Routine, routines_of

__all__ = ["empty_content", "profile_content"]

_ROWS: Final = 200          # of a table other than that of functions
_FUNCTIONS: Final = 3000
_CODES: Final = 200
_COMPARED: Final = 1000
_TRIES: Final = 5           # functions that find no room before the rest is left out
#: Characters of JSON: all of it, and the code in it.
_LARGEST: Final = 4_500_000
_LARGEST_CODE: Final = 2_500_000
_ALL: Final = 1 << 62
Content = dict[str, Any]


def empty_content(title: str) -> Content:
    """The content of a page without a profile."""
    return {"title": title, "summary": "", "notes": [], "texts": [], "functions": [],
            "allFunctions": 0, "cycles": False, "samples": False, "codes": [], "flame": None,
            "tables": {}, "timelines": [], "compared": None}


def profile_content(
    profile: FileProfile, flame: FlameTree | None, before: FileProfile | None = None,
    update: Callable[[int], object] = lambda _: None,
) -> Content:
    """The content of the page of a profile.

    Parameters
    ----------
    profile : FileProfile
    flame : FlameTree, optional
        The call stacks, where there are some.
    before : FileProfile, optional
        An earlier profile to compare with.
    update : callable, optional
        Called with the number of functions whose code was read.
    """
    texts = Texts()
    routines = routines_of(profile)
    content = empty_content(texts.shown(profile.path))
    content |= {"summary": report_text.summary(profile.path, profile),
                "cycles": profile.cycles_measured, "samples": bool(profile.samples)}
    rows, place = _functions(profile, routines, texts)
    content |= {"functions": rows[:_FUNCTIONS], "allFunctions": len(rows)}
    content["tables"] = _tables(profile)
    if flame is not None and flame.total:
        content["flame"] = {"unit": flame.unit, "nodes": [
            [parent, texts.number(name), texts.number(file), count]
            for parent, name, file, count in flame.nodes()]}
    if before is not None:
        content["compared"] = _compared(before, profile, texts)
    content["texts"] = texts.all
    room = min(_LARGEST_CODE, _LARGEST - len(json.dumps(content)))
    content["codes"], problems = _codes(profile, routines, texts, room, update)
    for number, code in enumerate(content["codes"]):
        code["row"] = place[code.pop("routine")]
        if code["row"] < _FUNCTIONS:
            rows[code["row"]][7] = number
    content["codes"] = [code for code in content["codes"] if code["row"] < _FUNCTIONS]
    content["notes"] = [texts.shown(line) for line in _notes(profile, problems)]
    return content


def _notes(profile: FileProfile, problems: list[str]) -> list[str]:
    lines = list(dict.fromkeys([*profile.symbols.problems, *problems]))
    return lines[:5] + ([f"and {len(lines) - 5} more remarks"] if len(lines) > 5 else [])


def _functions(profile: FileProfile, routines: list[Routine], texts: Texts) -> tuple[
        list[list[Any]], dict[int, int]]:
    """Rows of the table of functions, and the row of each routine, by its identity.

    A row: name, file, cycles, branches, mispredicted, times entered, samples, number of its code.
    """
    measured, predictions = profile.cycles_measured, profile.mispredicts_measured
    rows = [(id(r), str(r), r.image.path, r.cycles, r.branches, r.mispredicted, r.entered,
             r.samples) for r in routines]
    readable = {(r.image.path, r.name) for r in routines}
    rows += [(0, f.function, f.path, f.cycles, f.branches, f.mispredicted, f.entered, f.samples)
             for f in profile.functions() if (f.path, f.function) not in readable]
    rows.sort(key=lambda row: (-row[3], -row[4], -row[7], row[1], row[2]))
    place = {row[0]: at for at, row in enumerate(rows) if row[0]}
    return [[texts.number(name), texts.number(path), cycles if measured else None, branches,
             missed if predictions else None, entered, samples, -1]
            for _, name, path, cycles, branches, missed, entered, samples in rows], place


def _codes(profile: FileProfile, routines: list[Routine], texts: Texts, room: int,
           update: Callable[[int], object]) -> tuple[list[Content], list[str]]:
    """The code of the hottest routines, as far as there is room."""
    wanted = hottest(routines, _CODES)
    tables = LineTables(wanted)
    writer = CodeWriter(texts, profile.mispredicts_measured)
    found: list[tuple[Routine, Content]] = []
    problems = tables.problems
    before, too_large = sum(map(len, texts.all)), 0
    for routine in wanted:
        update(1)
        try:
            code = writer.code(annotate(routine), tables)
        except (OSError, ValueError, UnsupportedFeature) as error:
            problems.append(str(error))
            continue
        size = len(json.dumps({**code, "out": [way[:4] for way in code["out"]]}))
        if room - size - (sum(map(len, texts.all)) - before) < 0:
            too_large += 1
            if too_large > _TRIES:
                break
            continue
        room -= size
        found.append((routine, code))
    if len(found) < len(routines):
        problems.append(f"the code of the {len(found)} hottest of {len(routines)} functions is on "
                        "this page")
    number = {(r.image.path, r.start): at for at, (r, _) in enumerate(found)}
    extents = {(r.image.path, r.start): r for r, _ in found}
    for routine, code in found:
        code["routine"] = id(routine)
        for way in code["out"]:
            way[4] = _number_of(way[4], extents, number, routine)
    return [code for _, code in found], problems


def _number_of(target: Any, extents: dict[tuple[str, int], Routine],
               number: dict[tuple[str, int], int], routine: Routine) -> int:
    """Number of the code that a place is in; -1 if it is not on the page."""
    if not target.linked:
        return -1
    key = target.path, target.address - target.offset
    return number[key] if key in extents and extents[key].holds(target) else -1


def _tables(profile: FileProfile) -> Content:
    """The other tables of the report, those that were recorded."""
    tables: Content = {}
    for view in report.VIEWS:
        if view == "functions" or (view == "history" and profile.paths is None):
            continue
        try:
            rows = profile.rows(view, _ALL if view == "history" else _ROWS)
        except CommandError:
            continue
        columns = [name for name in report.COLUMNS[view] if name != "pid"]
        tables[view] = {
            "heading": report.heading(profile, view), "columns": columns, "total": len(rows),
            "rows": [[_cell(row[name]) for name in columns] for row in rows[:_ROWS]]}
    return tables


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return " \u2190 ".join(Texts().shown(f"{step['from_symbol']} \u2192 {step['to_symbol']}")
                               for step in value)
    if isinstance(value, float):
        return round(value, 6)
    return Texts().shown(value) if isinstance(value, str) else value


def _compared(before: FileProfile, after: FileProfile, texts: Texts) -> Content:
    rows = difference_rows(before, after, _ALL)
    names = ("change", "before", "after", "branches_before", "branches_after",
             "mispredict_rate_before", "mispredict_rate_after", "function", "file")
    return {
        "names": [texts.shown(before.path), texts.shown(after.path)],
        "measure": "cycles" if before.cycles_measured and after.cycles_measured else "branches",
        "sides": [asdict(side) for side in sides(before, after)], "total": len(rows),
        "rows": [[_cell(row[name]) for name in names] for row in rows[:_COMPARED]],
    }
