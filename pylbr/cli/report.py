"""``pylbr report``: where a program branches, and how well."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict

from pylbr.cli import perf_options
from pylbr.cli.html_page import write_page
from pylbr.cli.inputs import add_inputs, named_inputs
from pylbr.cli.pager import add_terminal_options
from pylbr.cli.progress import print_notes, progress
from pylbr.errors import CommandError
from pylbr.printable import printable
from pylbr.profile import code_report, difference, report, report_text
from pylbr.profile.added import Sum
from pylbr.profile.annotated import annotate
from pylbr.profile.disassembly import SYNTAXES
from pylbr.profile.file_profile import FileProfile, count_file
from pylbr.profile.history import Paths
from pylbr.profile.lines import LineTables
from pylbr.profile.remote import fetched
from pylbr.profile.routines import routines_of
from pylbr.trace import open_any

HELP = "show hot branches, functions, source lines, code, mispredicts, branch history"

EPILOG = """
views:
""" + "".join(f"  {name:<12} {text}\n" for name, text in {
    **report.VIEWS, "code": "a function: source, instructions, cycles per block, branches",
}.items()) + """
A file of stacks is counted entry by entry, a trace branch by branch. Several inputs are added up
by file and address in it, so that they may lie elsewhere in each process.

On a terminal the report is shown by a pager: PYLBR_PAGER, PAGER, or less; empty or cat for none.

examples:
  pylbr report app.perf.data                  the hottest branches
  pylbr report app.perf.data --by functions
  pylbr report app.perf.data --by code --function main
  pylbr report app.arrow --by mispredicts --json
  pylbr report after.perf.data --diff before.perf.data
  pylbr report app.arrow --html app.html       everything on one page
  pylbr report 'fleet/*.perf.data' --weighted-input 3,peak.perf.data
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    add_inputs(parser, "FILE", "trace or file of stacks, of any format (default perf.data)")
    views = (*report.VIEWS, "code")
    parser.add_argument(
        "--by", metavar="VIEW", choices=views,
        help=f"one of {', '.join(views)} (default: edges, with --diff functions)",
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
    parser.add_argument("--function", metavar="NAME",
                        help="of --by code: the function, or a part of its name (default: the "
                        "hottest)")
    parser.add_argument("-M", "--disassembler-style", choices=SYNTAXES, default="att",
                        metavar="STYLE", help="of --by code: att (default) or intel")
    parser.add_argument("--diff", metavar="BEFORE",
                        help="show what has changed since an earlier profile, by function")
    parser.add_argument("--html", metavar="OUT.html",
                        help="write all of it as one page that loads nothing: functions, code, "
                        "control flow, flame graph, tables, --timeline, --diff")
    parser.add_argument("--timeline", metavar="FILE", action="append", default=[],
                        help="of --html: a timeline of pylbr verify --out")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV, numbers in full")
    form.add_argument("--json", action="store_true", help="print JSON, numbers in full")
    add_terminal_options(parser)
    perf_options.answer(parser, perf_options.REPORT)


def run(args: argparse.Namespace) -> int:
    """Count, then print one view."""
    if args.timeline and not args.html:
        raise CommandError("--timeline belongs to --html")
    given = args.inputs or args.inputs_more or args.weighted_input
    named = named_inputs(args, "perf.data") if given or not args.timeline else []
    if args.limit < 1 or args.length < 1:
        raise CommandError("--limit and --length take a number from 1 up")
    if args.function is not None and args.by not in (None, "code"):
        raise CommandError("--function belongs to --by code")
    if args.diff is not None and args.by not in (None, "functions"):
        raise CommandError("--diff compares functions; leave --by out")
    before = None if args.diff is None else count_input(args.diff, 0)
    if args.html:
        write_page(args, named, before)
        return 0
    args.by = args.by or ("code" if args.function is not None else
                          "functions" if args.diff is not None else "edges")
    if args.by == "code" and args.csv:
        raise CommandError("--by code is no table: text or --json")
    profile = _profile(args, named)
    if before is not None:
        _print_difference(args, before, profile)
    elif args.by == "code":
        _print_code(args, profile)
    else:
        _print_view(args, profile, named)
    for problem in profile.symbols.problems:
        print(f"pylbr report: {printable(problem)}", file=sys.stderr)
    return 0


def _profile(args: argparse.Namespace, named: list[tuple[str, int]]) -> FileProfile:
    """The counts of all inputs."""
    history = args.length if args.by == "history" else 0
    if len(named) == 1 and named[0][1] == 1:
        return count_input(named[0][0], history)
    total = Sum(Paths(history) if history else None)
    for name, weight in named:
        one = count_input(name, history)
        if args.by == "mispredicts" and not one.mispredicts_measured:
            raise CommandError(f"{name}: mispredicts were not recorded")
        total.add(one, weight, one.paths)
    return total.profile(f"{len(named)} inputs")


def _print_view(args: argparse.Namespace, profile: FileProfile,
                named: list[tuple[str, int]]) -> None:
    rows = profile.rows(args.by, args.limit)
    if args.json:
        head: dict[str, object] = {"file": profile.path, **report_text.totals(profile)}
        if profile.by_place:
            head["inputs"] = [{"file": name, "weight": weight} for name, weight in named]
        order = {"ordered_by": report.order_of(profile, args.by)}
        _print_json({**head, **order, args.by: rows})
    elif args.csv:
        report_text.print_csv(rows)
    else:
        report_text.print_text(profile.path, args.by, profile, rows)


def _print_code(args: argparse.Namespace, profile: FileProfile) -> None:
    routine = code_report.chosen(routines_of(profile), args.function)
    try:
        code = annotate(routine, args.disassembler_style)
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    tables = LineTables([routine])
    profile.symbols.problems += tables.problems
    predictions = profile.mispredicts_measured
    if args.json:
        _print_json({"file": profile.path, **report_text.totals(profile),
                     "code": code_report.code_rows(code, tables, predictions)})
        return
    print(report_text.summary(profile.path, profile))
    print("\n".join([*code_report.code_head(code), "",
                     *code_report.code_text(code, tables, predictions)]))


def _print_difference(args: argparse.Namespace, before: FileProfile, after: FileProfile) -> None:
    rows = difference.difference_rows(before, after, args.limit)
    figures = difference.sides(before, after)
    if args.json:
        _print_json({"before": {"file": before.path, **asdict(figures[0])},
                     "after": {"file": after.path, **asdict(figures[1])}, "functions": rows})
    elif args.csv:
        report_text.print_csv(rows)
    else:
        report_text.print_difference(before, after, figures, rows)


def _print_json(content: dict[str, object]) -> None:
    json.dump(content, sys.stdout, indent=2)
    print()


def count_input(name: str, history: int) -> FileProfile:
    """Counts of one input."""
    with fetched([name]) as (path,), open_any(path) as source, \
            progress(getattr(source, "count", None), "", os.path.basename(name)) as bar:
        profile = count_file(source, history, bar.update, name)
        print_notes("report", source)
    return profile
