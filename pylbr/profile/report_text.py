"""A report printed: as a table for people, as CSV, and its totals."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from typing import Any

from pylbr.printable import printable
from pylbr.profile import report
from pylbr.profile.aggregate import Profile
from pylbr.profile.difference import Side
from pylbr.profile.history import Paths
from pylbr.tables import Table, ends, print_table, terminal_width

__all__ = [
    "print_csv", "print_difference", "print_text", "rows_of", "summary", "table_of", "totals",
]  # fmt: skip

Row = dict[str, Any]


def rows_of(view: str, profile: Profile, paths: Paths, limit: int) -> list[Row]:
    """At most `limit` rows of one of `pylbr.profile.report.VIEWS`."""
    if view == "history":
        return report.history_rows(profile, paths, limit)
    views: dict[str, Callable[[Profile, int], list[Row]]] = {
        "callers": report.caller_rows, "edges": report.edge_rows,
        "functions": report.function_rows, "lines": report.line_rows,
        "mispredicts": report.mispredict_rows, "runs": report.run_rows,
    }
    return views[view](profile, limit)


def totals(profile: Profile) -> dict[str, int | None]:
    """What was counted in all; None: not measured."""
    missed = int(profile.edges["mispredicted"].sum())
    return {
        "samples": profile.samples, "branches": profile.entries,
        "distinct_branches": len(profile.edges),
        "mispredicted": missed if profile.mispredicts_measured else None,
        "broken_runs": profile.broken, "not_taken": profile.not_taken,
    }


def _flat(rows: list[Row]) -> list[Row]:
    """Rows without lists: one row for each step of a path."""
    flat = []
    for number, row in enumerate(rows):
        steps = row.pop("path", None)
        if steps is None:
            flat.append(row)
            continue
        flat += [{"path": number, **row, "position": i, **step} for i, step in enumerate(steps)]
    return flat


def print_csv(rows: list[Row]) -> None:
    """Print rows as CSV on standard output; a path has a row for each step."""
    rows = _flat(rows)
    if rows:
        writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: _NOT_MEASURED if v is None else v for k, v in row.items()}
                         for row in rows)


_NOT_MEASURED = "n/a"
_ADDRESSES = ("from", "to", "first", "last", "branch")
#: Columns whose heading is not their name.
_HEADINGS = {"mispredict_rate": "missed", "mean_cycles": "cycles/pass"}
#: What stands where a file has no symbol, or an address no file; in JSON and CSV it is empty.
_UNNAMED = {"function": "[no symbol]", "caller": "[no symbol]", "file": "[not mapped]",
            "caller_file": "[not mapped]"}


def summary(name: str, profile: Profile) -> str:
    """What was counted in the file `name`, as a line."""
    counts = totals(profile)
    head = f"{counts['branches']:,} branches"
    if profile.samples:
        head += f" in {profile.samples:,} samples"
    head += f", {counts['distinct_branches']:,} distinct"
    if counts["mispredicted"]:
        head += f", {counts['mispredicted'] / profile.entries:.1%} mispredicted"
    if profile.not_taken:
        head += f"; {profile.not_taken:,} not taken, which are left out"
    if profile.broken:
        head += f"; {profile.broken:,} adjacent entries are not connected by straight-line code"
    return f"{printable(name)}: {head}"


def print_text(name: str, view: str, profile: Profile, rows: list[Row]) -> None:
    """Print rows of a view of the file `name` as a table on standard output."""
    print(summary(name, profile))
    print(f"{report.heading(profile, view)}:\n")
    if not rows:
        print("  none")
    elif view == "history":
        _print_paths(rows)
    else:
        print_table(table_of(rows))


def print_difference(before: Profile, after: Profile, figures: list[Side],
                     rows: list[Row]) -> None:
    """Print two profiles beside each other: their figures, then functions."""
    names = ("taken branches counted", "bytes of code between them", "cycles per taken branch",
             "mispredicted")
    def shown(side: Side) -> list[str]:
        return [f"{side.branches:,}", _figure(side.run_bytes), _figure(side.cycles_per_branch),
                _NOT_MEASURED if side.mispredict_rate is None else f"{side.mispredict_rate:.2%}"]

    columns = [names, *map(shown, figures)]
    print_table(Table([list(row) for row in zip(*columns, strict=True)],
                      ("", "before", "after"), frozenset({1, 2})))
    measure = "cycles" if before.cycles_measured and after.cycles_measured else "branches"
    print(f"\nfunctions, by the change of their share of {measure}:\n")
    if rows:
        print_table(Table(
            [[f"{100 * row['change']:+.2f}", f"{row['before']:.2%}", f"{row['after']:.2%}",
              *(_NOT_MEASURED if row[name] is None else f"{row[name]:.2%}"
                for name in ("mispredict_rate_before", "mispredict_rate_after")),
              row["function"] or _UNNAMED["function"], row["file"] or _UNNAMED["file"]]
             for row in rows],
            ("change", "before", "after", "missed before", "after", "function", "file"),
            frozenset(range(5)), names=True))


def _figure(value: float | None) -> str:
    return _NOT_MEASURED if value is None else f"{value:.1f}"


def _print_paths(rows: list[Row]) -> None:
    width = terminal_width()
    for row in rows:
        print(f"{row['share']:7.2%}  {row['count']:,} samples")
        for step in row["path"]:
            places = printable(step["from_symbol"]), printable(step["to_symbol"])
            source, target = (ends(p, (width - 13) // 2) for p in places) if width else places
            print(f"         {source} -> {target}")


def _shown(row: Row, with_pid: bool) -> dict[str, str]:
    """Columns as text; those of no interest here left out."""
    text = {}
    for name, value in row.items():
        if name in _ADDRESSES and f"{name}_symbol" in row:
            text[name] = row[f"{name}_symbol"]
        elif name.endswith("_symbol") or (name == "pid" and not with_pid):
            continue
        elif name == "pid":
            text[name] = str(value)
        elif value is None:
            text[_HEADINGS.get(name, name)] = _NOT_MEASURED
        elif name in ("share", "mispredict_rate"):
            text[_HEADINGS.get(name, name)] = f"{value:.2%}"
        elif isinstance(value, float):
            text[_HEADINGS.get(name, name)] = f"{value:.1f}"
        else:
            text[name] = f"{value:,}" if isinstance(value, int) else value or _UNNAMED.get(name, "")
    return text


def table_of(rows: list[Row]) -> Table:
    """Rows of any view but the history as a table of text."""
    several = len({row.get("pid") for row in rows}) > 1
    shown = [_shown(row, several) for row in rows]
    head = list(shown[0]) if shown else []
    numbers = frozenset(i for i, name in enumerate(head) if all(
        row[name] == _NOT_MEASURED
        or (row[name][:1].isdigit() and not row[name].startswith("0x")) for row in shown))
    return Table([list(row.values()) for row in shown], head, numbers, names=True)
