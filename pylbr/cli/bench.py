"""``pylbr bench``: the published benchmark suite."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import pylbr
from pylbr.bench.chart import svg
from pylbr.bench.compare import Difference, compare, difference_table, tree_of
from pylbr.bench.contest import Row, RowResult
from pylbr.bench.history import add_run, commit_of
from pylbr.bench.report import as_json, floor_lines, markdown, table
from pylbr.bench.suite import Result, chosen
from pylbr.bench.suite import run as run_suite
from pylbr.cli.pager import add_terminal_options
from pylbr.errors import CommandError
from pylbr.files.output import AtomicFile
from pylbr.tables import print_table

HELP = "measure this pylbr beside alternatives on this machine"

EPILOG = """
Each row is measured beside an alternative, turn by turn. What needs a program that is missing is
shown with its name. The quick form takes two to three minutes, --full some twenty.

examples:
  pylbr bench
  pylbr bench --full -o results          results.md, results.json, results.svg
  pylbr bench core replay.threads
  pylbr bench core --compare HEAD~20     two revisions, with a test of whether they differ
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("rows", metavar="ROW", nargs="*",
                        help="rows or areas, * matches (default: all)")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--full", action="store_true", help="larger inputs and more rounds")
    parser.add_argument("-o", "--output", metavar="NAME",
                        help="write NAME.md, NAME.json and NAME.svg")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--compare", metavar="REV",
                        help="measure this revision of git, or the pylbr in this directory, too, "
                        "and test whether the rows differ")
    parser.add_argument("--history", metavar="DIRECTORY",
                        help="keep the results there in the form that asv publishes")
    add_terminal_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    rows = chosen(args.rows)
    if args.list:
        print("\n".join(f"{row.name:<20}{row.title}" for row in rows))
        return 0
    if args.compare is not None:
        if args.output or args.history:
            raise CommandError("--compare: does not go with --output and --history")
        return _compare(args, rows)
    result = run_suite(rows, not args.full, _told)
    if args.output:
        _write(args.output, result)
    if args.history:
        add_run(Path(args.history), result, commit_of(_checkout(), result.version))
    if args.json:
        json.dump(as_json(result), sys.stdout, indent=1)
        print()
        return 0
    print("\n".join(floor_lines(result.machine)) + "\n")
    print_table(table(result.rows))
    return 0


def _checkout() -> Path:
    """Where this pylbr lies: a checkout, or what it is installed in."""
    return Path(pylbr.__file__).resolve().parent.parent


def _told(row: RowResult) -> None:
    if sys.stderr.isatty():
        print(f"{row.row.name}: {row.seconds:.1f} s", file=sys.stderr)


def _write(name: str, result: Result) -> None:
    texts = {".md": markdown(result), ".json": json.dumps(as_json(result), indent=1) + "\n",
             ".svg": svg(result)}
    for suffix, text in texts.items():
        with AtomicFile(f"{os.fspath(name)}{suffix}") as output:
            output.file.write(text.encode())


def _compare(args: argparse.Namespace, rows: list[Row]) -> int:
    def told(one: Difference) -> None:
        if sys.stderr.isatty():
            print(f"{one.row.name}: {one.verdict}", file=sys.stderr)

    with tree_of(args.compare, _checkout()) as before:
        found = compare(rows, before, _checkout(), not args.full, told)
    if args.json:
        json.dump([{"row": one.row.name, "unit": one.unit, "kind": one.kind,
                    "before": one.before, "after": one.after, "p": one.chance,
                    "verdict": one.verdict} for one in found], sys.stdout, indent=1)
        print()
        return 0
    print_table(difference_table(found, args.compare, "this"))
    return 0
