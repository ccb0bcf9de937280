"""``pylbr inspect``: what a file holds."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from pylbr.cli import perf_words
from pylbr.cli.progress import print_notes, progress
from pylbr.printable import printable
from pylbr.trace import Stacks, Trace, open_any
from pylbr.trace.formats import detect
from pylbr.trace.summary import describe_stacks, describe_trace

HELP = "say what a trace or a file of stacks holds"

EPILOG = """
examples:
  pylbr inspect app.arrow           format, processor model, modules, columns, number of branches
  pylbr inspect --all app.arrow     reads every branch: digests, classes, addresses
  pylbr inspect --json perf.data
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    perf_words.add_input(parser, "FILE", "file to look at")
    parser.add_argument(
        "-a", "--all", action="store_true",
        help="read a trace to its end: check it and count its classes",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print what the file says and, if asked, what it holds."""
    args.input = perf_words.named_input(args)
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
        print("\n".join(printable(line) for line in _lines(found)))
    return 0


def _lines(found: dict[str, Any], indent: str = "") -> list[str]:
    """A dict as aligned lines; lists of dicts one row each."""
    width = max((len(name) for name in found), default=0)
    lines = []
    for name, value in found.items():
        label = f"{indent}{name:<{width}}"
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")] if value else []
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{indent}{name}")
            lines += [
                f"{indent}  " + "  ".join(str(v) for v in row.values() if v not in ("", None))
                for row in value
            ]
        elif isinstance(value, list):
            lines.append(f"{label}  {', '.join(map(str, value))}")
        elif value not in ("", None):
            lines.append(f"{label}  {value:,}" if isinstance(value, int) else f"{label}  {value}")
    return lines
