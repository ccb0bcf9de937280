"""``pylbr report``: where a program branches, and how well."""

from __future__ import annotations

import argparse
import json
import os
import sys

from pylbr.cli import perf_options
from pylbr.cli.inputs import add_inputs, named_inputs
from pylbr.cli.progress import print_notes, progress
from pylbr.errors import CommandError
from pylbr.printable import printable
from pylbr.profile import report, report_text
from pylbr.profile.added import Sum
from pylbr.profile.file_profile import FileProfile, count_file
from pylbr.profile.history import Paths
from pylbr.profile.remote import fetched
from pylbr.trace import open_any

HELP = "show hot branches, functions, mispredicts, branch history"

EPILOG = """
views:
""" + "".join(f"  {name:<12} {text}\n" for name, text in report.VIEWS.items()) + """
A file of stacks is counted entry by entry, a trace branch by branch. Several inputs are added up
by file and address in it, so that they may lie elsewhere in each process.

examples:
  pylbr report app.perf.data                  the hottest branches
  pylbr report app.perf.data --by functions
  pylbr report app.arrow --by mispredicts --json
  pylbr report 'fleet/*.perf.data' --weighted-input 3,peak.perf.data
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    add_inputs(parser, "FILE", "trace or file of stacks, of any format (default perf.data)")
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
    named = named_inputs(args, "perf.data")
    if args.limit < 1 or args.length < 1:
        raise CommandError("--limit and --length take a number from 1 up")
    history = args.length if args.by == "history" else 0
    if len(named) == 1 and named[0][1] == 1:
        profile = _count(named[0][0], history)
    else:
        total = Sum(Paths(history) if history else None)
        for name, weight in named:
            one = _count(name, history)
            if args.by == "mispredicts" and not one.mispredicts_measured:
                raise CommandError(f"{name}: mispredicts were not recorded")
            total.add(one, weight, one.paths)
        profile = total.profile(f"{len(named)} inputs")
    rows = profile.rows(args.by, args.limit)
    if args.json:
        head: dict[str, object] = {"file": profile.path, **report_text.totals(profile)}
        if profile.by_place:
            head["inputs"] = [{"file": name, "weight": weight} for name, weight in named]
        order = {"ordered_by": report.order_of(profile, args.by)}
        json.dump({**head, **order, args.by: rows}, sys.stdout, indent=2)
        print()
    elif args.csv:
        report_text.print_csv(rows)
    else:
        report_text.print_text(profile.path, args.by, profile, rows)
    for problem in profile.symbols.problems:
        print(f"pylbr report: {printable(problem)}", file=sys.stderr)
    return 0


def _count(name: str, history: int) -> FileProfile:
    """Counts of one input."""
    with fetched([name]) as (path,), open_any(path) as source, \
            progress(getattr(source, "count", None), "", os.path.basename(name)) as bar:
        profile = count_file(source, history, bar.update, name)
        print_notes("report", source)
    return profile
