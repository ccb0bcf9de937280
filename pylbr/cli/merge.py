"""``pylbr merge``: one profile of many recordings."""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext

from pylbr.cli.progress import progress
from pylbr.errors import CommandError
from pylbr.files.elf import ElfImage
from pylbr.profile.formats import LINKED, write_linked
from pylbr.profile.merge import inputs_of, merge_inputs

HELP = "add up recordings of one binary into one profile"

EPILOG = f"""
Inputs are files of stacks, traces, and pre-aggregated text, in any mixture; a pattern in quotes
and a directory stand for their files. The suffix of OUT chooses the form:

  {' '.join(LINKED)}

The result is the same for every number of jobs.

examples:
  pylbr merge host1.perf.data host2.perf.data -o app.preagg --binary ./app
  pylbr merge 'fleet/*.perf.data' -o app.profgen.txt --binary ./app --jobs 8
  pylbr merge day.preagg --weighted-input 3,peak.perf.data -o all.afdo.txt --binary ./app
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("inputs", metavar="IN", nargs="*", help="file, pattern or directory")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="file to write")
    parser.add_argument("--binary", metavar="ELF", required=True,
                        help="the binary that the profile is about")
    parser.add_argument("--weighted-input", metavar="N,FILE", action="append", default=[],
                        help="an input whose counts are multiplied by N")
    parser.add_argument("-j", "--jobs", metavar="N", type=int, default=1,
                        help="processes that count inputs (default: 1)")
    parser.add_argument("--preagg-form", choices=("traces", "branches"),
                        help="lines of .preagg, as pylbr convert has them")


def run(args: argparse.Namespace) -> int:
    """Count the inputs and write their sum."""
    if args.jobs < 1:
        raise CommandError("--jobs: at least 1")
    if not args.output.lower().endswith(tuple(LINKED)):
        raise CommandError(f"{args.output}: the suffix chooses the form: {', '.join(LINKED)}")
    weights = [_weighted(word) for word in args.weighted_input]
    names = inputs_of([*args.inputs, *(name for _, name in weights)])
    if not names:
        raise CommandError("no input is named")
    heavier = {name: weight for weight, word in weights for name in inputs_of([word])}
    inputs = [(name, heavier.get(name, 1)) for name in names]
    if os.path.realpath(args.output) in map(os.path.realpath, names):
        raise CommandError(f"{args.output}: is among the inputs; name another")
    try:
        image = ElfImage(args.binary)
    except (OSError, ValueError) as error:
        raise CommandError(
            f"{args.binary}: cannot be read as a 64-bit ELF file: {error}") from error
    with progress(len(names), "inputs", os.path.basename(args.output)) as bar, \
            _executor(min(args.jobs, len(names))) as executor:
        try:
            counts = merge_inputs(inputs, args.binary, executor, lambda path: bar.update(1))
        except BrokenProcessPool as error:
            raise CommandError(
                "a worker process was ended from outside (was there enough memory?); nothing was "
                "written; fewer --jobs need less") from error
    if not counts.edges and not counts.ips:
        raise CommandError(f"none of the {counts.branches:,} branches is in {args.binary}")
    write_linked(args.output, counts.profile(image), args.preagg_form)
    if sys.stderr.isatty():
        print(f"{counts.branches:,} branches of {len(names)} inputs -> {args.output}",
              file=sys.stderr)
    return 0


def _weighted(word: str) -> tuple[int, str]:
    number, comma, name = word.partition(",")
    if not comma or not number.isdigit() or not int(number):
        raise CommandError(f"--weighted-input {word}: a whole number from 1 on, a comma, a file")
    return int(number), name


def _executor(jobs: int) -> AbstractContextManager[Executor | None]:
    return nullcontext() if jobs == 1 else ProcessPoolExecutor(jobs)
