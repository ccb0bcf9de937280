"""``pylbr report``: where a program branches, and how well."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pylbr.cli import perf_options, perf_words
from pylbr.cli.progress import print_notes, progress
from pylbr.errors import CommandError
from pylbr.perf.stacks import Record, Samples, StacksMetadata, with_branches
from pylbr.printable import printable
from pylbr.profile import report
from pylbr.profile.aggregate import Profile, collect
from pylbr.profile.history import Paths
from pylbr.profile.whole import collect_trace
from pylbr.tables import Table, ends, print_table, terminal_width
from pylbr.trace import Stacks, Trace, open_any

HELP = "show hot branches, functions, mispredicts, branch history"

EPILOG = """
views:
""" + "".join(f"  {name:<12} {text}\n" for name, text in report.VIEWS.items()) + """
A file of stacks is counted entry by entry, a trace branch by branch.

examples:
  pylbr report app.perf.data                  the hottest branches
  pylbr report app.perf.data --by functions
  pylbr report app.arrow --by mispredicts --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    perf_words.add_input(
        parser, "FILE", "trace or file of stacks, of any format (default perf.data)")
    parser.add_argument(
        "--by", metavar="VIEW", choices=report.VIEWS, default="edges",
        help=f"one of {', '.join(report.VIEWS)} (default: edges)",
    )
    parser.add_argument(
        "-n", "--limit", metavar="N", type=int, default=20, help="rows to show (default: 20)"
    )
    parser.add_argument(
        "--length", metavar="N", type=int, default=4,
        help="branches in a path of the branch history (default: 4)",
    )
    parser.add_argument("--branch-history", action="store_const", const="history", dest="by",
                        help="as perf has it: the same as --by history")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV, numbers in full")
    form.add_argument("--json", action="store_true", help="print JSON, numbers in full")
    perf_options.answer(parser, perf_options.REPORT)


def run(args: argparse.Namespace) -> int:
    """Count, then print one view."""
    args.input = perf_words.named_input(args, "perf.data")
    if args.limit < 1 or args.length < 1:
        raise CommandError("--limit and --length take a number from 1 up")
    paths = Paths(args.length)
    with open_any(args.input) as source, \
            progress(getattr(source, "count", None), "", os.path.basename(args.input)) as bar:
        if isinstance(source, Trace):
            if args.by == "history":
                raise CommandError(
                    f"{args.input}: a trace has no samples to come to; pylbr replay takes some"
                )
            profile = collect_trace(source, bar.update)
            if not profile.entries:
                raise CommandError(f"{args.input}: holds no taken branches: nothing to report")
        else:
            counted = Stacks(StacksMetadata(), _counted(source, bar.update), source.path)
            counted.reopen, counted.build_ids = source.reopen, source.build_ids
            profile = collect(counted, paths if args.by == "history" else None)
    print_notes("report", source)
    if args.by == "mispredicts" and not profile.mispredicts_measured:
        raise CommandError(f"{args.input}: mispredicts were not recorded")
    rows = _rows(args, profile, paths)
    if args.json:
        head = {"file": args.input, **_totals(profile)}
        order = {"ordered_by": report.order_of(profile, args.by)}
        json.dump({**head, **order, args.by: rows}, sys.stdout, indent=2)
        print()
    elif args.csv:
        _print_csv(_flat(rows))
    else:
        _print_text(args, profile, rows)
    for problem in profile.symbols.problems:
        print(f"pylbr report: {printable(problem)}", file=sys.stderr)
    return 0


def _counted(source: Stacks, update: Callable[[int], object]) -> Iterator[Record]:
    for record in with_branches(source, "nothing to report"):
        yield record
        if isinstance(record, Samples):
            update(len(record))


def _rows(args: argparse.Namespace, profile: Profile, paths: Paths) -> list[dict[str, Any]]:
    if args.by == "history":
        return report.history_rows(profile, paths, args.limit)
    view: dict[str, Callable[[Profile, int], list[dict[str, Any]]]] = {
        "edges": report.edge_rows, "functions": report.function_rows,
        "mispredicts": report.mispredict_rows, "runs": report.run_rows,
    }
    return view[args.by](profile, args.limit)


def _totals(profile: Profile) -> dict[str, int | None]:
    missed = int(profile.edges["mispredicted"].sum())
    return {
        "samples": profile.samples, "branches": profile.entries,
        "distinct_branches": len(profile.edges),
        "mispredicted": missed if profile.mispredicts_measured else None,
        "broken_runs": profile.broken, "not_taken": profile.not_taken,
    }


def _flat(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without lists: one row for each step of a path."""
    flat = []
    for number, row in enumerate(rows):
        steps = row.pop("path", None)
        if steps is None:
            flat.append(row)
            continue
        flat += [{"path": number, **row, "position": i, **step} for i, step in enumerate(steps)]
    return flat


def _print_csv(rows: list[dict[str, Any]]) -> None:
    if rows:
        writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: _NOT_MEASURED if v is None else v for k, v in row.items()}
                         for row in rows)


_NOT_MEASURED = "n/a"
_ADDRESSES = ("from", "to", "first", "last", "branch")
#: Columns whose heading is not their name.
_HEADINGS = {"mispredict_rate": "missed", "mean_cycles": "cycles/pass"}


def _print_text(args: argparse.Namespace, profile: Profile, rows: list[dict[str, Any]]) -> None:
    totals = _totals(profile)
    head = f"{totals['branches']:,} branches"
    if profile.samples:
        head += f" in {profile.samples:,} samples"
    head += f", {totals['distinct_branches']:,} distinct"
    if totals["mispredicted"]:
        head += f", {totals['mispredicted'] / profile.entries:.1%} mispredicted"
    if profile.not_taken:
        head += f"; {profile.not_taken:,} not taken, which are left out"
    if profile.broken:
        head += f"; {profile.broken:,} adjacent entries are not connected by straight-line code"
    print(f"{printable(args.input)}: {head}")
    print(f"{report.heading(profile, args.by)}:\n")
    if not rows:
        print("  none")
    elif args.by == "history":
        _print_paths(rows)
    else:
        several = len({row.get("pid") for row in rows}) > 1
        _print_rows([_shown(row, several) for row in rows])


def _print_paths(rows: list[dict[str, Any]]) -> None:
    room = terminal_width()
    for row in rows:
        print(f"{row['share']:7.2%}  {row['count']:,} samples")
        for step in row["path"]:
            places = printable(step["from_symbol"]), printable(step["to_symbol"])
            source, target = (ends(p, (room - 13) // 2) for p in places) if room else places
            print(f"         {source} -> {target}")


def _shown(row: dict[str, Any], with_pid: bool) -> dict[str, str]:
    """Columns as text; those of no interest here left out."""
    text = {}
    for name, value in row.items():
        if name in _ADDRESSES:
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
            text[name] = f"{value:,}" if isinstance(value, int) else value
    return text


def _print_rows(rows: list[dict[str, str]]) -> None:
    numbers = frozenset(i for i, name in enumerate(rows[0]) if all(
        row[name] == _NOT_MEASURED
        or (row[name][:1].isdigit() and not row[name].startswith("0x")) for row in rows))
    print_table(Table([list(row.values()) for row in rows], list(rows[0]), numbers, names=True))
