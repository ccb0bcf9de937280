"""``pylbr inspect``: what a file contains."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from pylbr.cli import perf_words
from pylbr.cli.pager import add_terminal_options
from pylbr.cli.progress import print_notes, progress
from pylbr.printable import printable
from pylbr.tables import Table, print_table
from pylbr.trace import Stacks, Trace, open_any
from pylbr.trace.formats import detect
from pylbr.trace.summary import describe_stacks, describe_trace

HELP = "describe a trace or branch-stack file"

EPILOG = """
examples:
  pylbr inspect app.arrow           format, processor model, modules, columns, number of branches
  pylbr inspect --all app.arrow     reads every branch: digests, classes, addresses
  pylbr inspect --json perf.data
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    perf_words.add_input(parser, "FILE", "file to look at (default: perf.data)")
    parser.add_argument(
        "-a", "--all", action="store_true",
        help="read a trace to its end: check it and count its classes",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_terminal_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the metadata of a file and, if asked, a summary of its content."""
    args.input = perf_words.named_input(args, "perf.data")
    entry = detect(args.input)
    found: dict[str, Any] = {
        "file": args.input, "format": f"{entry.name} ({entry.description})", "kind": entry.kind,
    }
    if os.path.isfile(args.input):
        found["bytes"] = os.path.getsize(args.input)
    with open_any(args.input, entry.name) as source, \
            progress(getattr(source, "count", None), "", os.path.basename(args.input)) as bar:
        if isinstance(source, Trace):
            found |= describe_trace(source, bar.update if args.all else None)
        elif isinstance(source, Stacks):
            found |= describe_stacks(source, bar.update)
    print_notes("inspect", source)
    if args.json:
        json.dump(found, sys.stdout, indent=2)
        print()
    else:
        _print(found)
    return 0


def _print(found: dict[str, Any], indent: int = 0) -> None:
    """Print a dict: what has one value first, then its dicts and its lists of dicts."""
    rows, parts = [], {}
    for name, value in found.items():
        if isinstance(value, dict) or (
                isinstance(value, list) and value and isinstance(value[0], dict)):
            parts[name] = value
        elif value not in ("", []):
            rows.append((name, _text(value)))
    print_table(Table(rows, indent=indent))
    for name, value in parts.items():
        if value:
            print(" " * indent + printable(name))
        if isinstance(value, dict):
            _print(value, indent + 2)
            continue
        cells = [[str(v) for v in row.values() if v not in ("", None)] for row in value]
        columns = max(map(len, cells))
        print_table(Table([row + [""] * (columns - len(row)) for row in cells],
                          indent=indent + 2))


def _text(value: Any) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
