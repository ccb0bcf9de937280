"""``pylbr doctor``: why a profile would be empty or poor."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import Any

from pylbr.cli import perf_words
from pylbr.cli.pager import add_terminal_options
from pylbr.cli.progress import progress
from pylbr.errors import CommandError
from pylbr.perf.stacks import Stacks
from pylbr.printable import printable
from pylbr.profile.doctor import CONSUMERS, Diagnosis, examine
from pylbr.trace import open_any

HELP = "explain why a profile of a recording would be empty or poor, and what helps"

EPILOG = """
Consumers of branch stacks write empty profiles without a word. The verdicts are what perf report,
perf2bolt, llvm-profgen and AutoFDO make of FILE: good, poor or empty.

examples:
  pylbr doctor perf.data
  pylbr doctor perf.data --binary ./app
  pylbr doctor --json perf.data
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    perf_words.add_input(parser, "FILE", "recording with branch stacks (default perf.data)")
    parser.add_argument("--binary", metavar="ELF", help="the binary that a profile is wanted of")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_terminal_options(parser)


def run(args: argparse.Namespace) -> int:
    """Examine, then print findings and verdicts."""
    args.input = perf_words.named_input(args, "perf.data")
    with open_any(args.input) as source, progress(None, "", os.path.basename(args.input)):
        if not isinstance(source, Stacks):
            raise CommandError(f"{args.input}: is a trace of every branch, of which consumers read "
                               "no form; pylbr replay takes samples of it")
        found = examine(source, args.binary)
    verdicts = {consumer: found.verdict(consumer) for consumer in CONSUMERS}
    if args.json:
        json.dump({"file": args.input, **found.figures, "verdicts": verdicts,
                   "findings": [asdict(finding) for finding in found.findings]},
                  sys.stdout, indent=2)
        print()
    else:
        _print(args.input, found, verdicts)
    return int("empty" in verdicts.values())


def _print(name: str, found: Diagnosis, verdicts: dict[str, str]) -> None:
    figures = found.figures
    print(printable(f"{name}: {figures['branches']:,} branches in {figures['samples']:,} samples"
                    f"{_share(figures['mapped'], 'mapped')}"
                    f"{_share(figures.get('in_binary'), 'in the binary')}"))
    files: Any = figures["files"]
    for path, share in files.items():
        print(printable(f"  {share:6.1%}  {path}"))
    print()
    for consumer, verdict in verdicts.items():
        print(f"  {consumer:<14}{verdict}")
    print()
    for finding in found.findings:
        concerns = "" if len(finding.concerns) == len(CONSUMERS) else (
            f" [{', '.join(finding.concerns)}]")
        print(printable(f"{finding.level}: {finding.what}{concerns}"))
        if finding.advice:
            print(printable(f"  -> {finding.advice}"))
    if not found.findings:
        print("nothing is wrong with it")


def _share(value: object, what: str) -> str:
    return f", {value:.1%} {what}" if isinstance(value, float) else ""
