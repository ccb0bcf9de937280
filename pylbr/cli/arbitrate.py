"""pylbr arbitrate: what each policy costs host and guests on the same workload."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lbrcore import BranchClass
from pylbr import trace
from pylbr.arbitration import POLICIES, named
from pylbr.cli.pager import add_terminal_options
from pylbr.cli.progress import progress
from pylbr.errors import CommandError
from pylbr.tables import print_table
from pylbr.verify.charts import figure_table, save_charts, sweep_table
from pylbr.verify.compare import Figures, Workload, compare, stream_of

HELP = "compare the arbitration policies on one workload"

#: Mean guest branches between two exits, for the sweep.
SWEEP = (50, 200, 1_000, 5_000, 25_000)


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("policies", nargs="*", metavar="POLICY",
                        help=f"default: all of {', '.join(POLICIES)}; a file NAME.py is a policy "
                        "in plain Python, NAME.pyx one in Cython")
    parser.add_argument("--branches", type=int, default=20_000_000,
                        help="branches of each run (default: %(default)s)")
    rates = Workload()
    parser.add_argument("--cpus", type=int, choices=(1, 2), default=rates.cpus,
                        help="physical CPUs, between which vCPUs move (default: %(default)s)")
    for name, words in (
        ("guests", "vCPUs"),
        ("host_branches", "host branches between a VM exit and the next entry, mean"),
        ("guest_branches", "guest branches between two exits, mean"),
        ("task_every", "world switches per task switch, mean"),
        ("session_every", "branches until perf opens an event, mean"),
        ("session_length", "branches until it closes, mean"),
        ("period", "branches per sample"),
    ):
        parser.add_argument("--" + name.replace("_", "-"), type=int, metavar="N",
                            default=getattr(rates, name),
                            help=f"{words} (default: %(default)s)")
    parser.add_argument("--trace-guests", action="store_true",
                        help="host events do not exclude guests")
    parser.add_argument("--trace", nargs="+", metavar="FILE", default=[],
                        help="what runs, instead of synthetic programs: the host's trace, then "
                        "one of each guest; the last stands for those that are not given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sweep", action="store_true",
                        help="also vary the length of a stay in the guest")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write charts (SVG) there")
    parser.add_argument("--json", action="store_true",
                        help="print JSON instead of tables: counts and profile overlaps of each "
                        "policy, and of each length of the sweep")
    add_terminal_options(parser)


def _workload(args: argparse.Namespace, **changes: int) -> Workload:
    values = {key: getattr(args, key) for key in vars(Workload()) if key != "exclude_guest"}
    return Workload(exclude_guest=not args.trace_guests, **{**values, **changes})


def _branches(path: str, limit: int) -> np.ndarray:
    """The first taken branches of a trace."""
    parts, count = [], 0
    with trace.open(path) as source:
        columns = [name for name in ("from", "to", "class") if name in source.columns]
        for chunk in source.chunks(columns):
            branches = chunk.branches
            if "class" in columns:
                branches = branches[branches["class"] != BranchClass.NOT_TAKEN]
            parts.append(branches[:limit - count])
            count += len(parts[-1])
            if count == limit:
                break
    if not count:
        raise CommandError(f"{path}: has no taken branch")
    return np.concatenate(parts)


def _streams(args: argparse.Namespace) -> tuple[list[np.ndarray], int] | None:
    """Of the host and of each guest, and how many edges the largest has."""
    if not args.trace:
        return None
    if len(args.trace) > 1 + args.guests:
        raise CommandError(f"--trace: one of the host and at most {args.guests} of guests, not "
                           f"{len(args.trace)}")
    of_file = {path: stream_of(_branches(path, args.branches)) for path in set(args.trace)}
    files = args.trace + args.trace[-1:] * (1 + args.guests - len(args.trace))
    return [of_file[path][0] for path in files], max(count for _, count in of_file.values())


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.branches < 1:
        raise CommandError(f"--branches: must be 1 or more, not {args.branches}")
    streams = _streams(args)
    options: dict[str, Any] = {"seed": args.seed}
    if streams is not None:
        options["streams"], options["edges"] = streams
    policies = named(args.policies) or list(POLICIES)
    sweep: dict[int, list[Figures]] = {}
    lengths = SWEEP if args.sweep else ()
    total = (1 + len(lengths)) * len(policies) * args.branches
    with progress(total, "branch", "arbitrate") as bar:
        options["report"] = bar.update
        figures = compare(_workload(args), args.branches, policies, **options)
        for length in lengths:
            sweep[length] = compare(_workload(args, guest_branches=length), args.branches,
                                    policies, **options)
    if args.json:
        print(json.dumps({
            "policies": [asdict(f) for f in figures],
            "sweep": {length: [asdict(f) for f in row] for length, row in sweep.items()}},
            indent=1))
    else:
        print_table(figure_table(figures))
    if sweep and not args.json:
        print()
        print_table(sweep_table(sweep))
    if args.out:
        for path in save_charts(figures, sweep, args.out):
            print(f"wrote {path}", file=sys.stderr if args.json else sys.stdout)
    return 0
