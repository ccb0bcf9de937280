"""``pylbr merge``: one profile of many recordings."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Final

from pylbr.cli.fdata import FDATA, add_bolt, write_fdata
from pylbr.cli.inputs import absolute, add_inputs, named_inputs
from pylbr.cli.progress import progress
from pylbr.cli.workers import add_workers, workers
from pylbr.errors import CommandError
from pylbr.files.elf import ElfImage
from pylbr.profile.formats import LINKED, write_linked
from pylbr.profile.merge import Counts, merge_inputs
from pylbr.profile.resume import Parts

HELP = "add up recordings of one binary into one profile"

#: Suffixes of the forms that inputs are added up in.
SUMS: Final = (*LINKED, FDATA)

EPILOG = f"""
Inputs are files of stacks, traces, and pre-aggregated text, in any mixture; a pattern in quotes
and a directory stand for their files, a URL (pip install 'pylbr[remote]') for what is there, or
with * or a / at its end for the files there. The suffix of OUT chooses the form:

  {' '.join(SUMS)}

BOLT itself makes its form, .fdata, without perf. The result is the same for every number of jobs.

examples:
  pylbr merge host1.perf.data host2.perf.data -o app.preagg --binary ./app
  pylbr merge 'fleet/*.perf.data' -o app.profgen.txt --binary ./app --jobs 8
  pylbr merge day.preagg --weighted-input 3,peak.perf.data -o all.afdo.txt --binary ./app
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    add_inputs(parser, "IN", "recording, trace or pre-aggregated text")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="file to write")
    parser.add_argument("--binary", metavar="ELF", required=True,
                        help="the binary that the profile is about")
    add_workers(parser, "count inputs", "-j")
    parser.add_argument("--resume", metavar="DIRECTORY",
                        help="keep the counts of each input there, and use those that are there: "
                        "an interrupted merge continues")
    add_bolt(parser)
    parser.add_argument("--preagg-form", choices=("traces", "branches"),
                        help="lines of .preagg, as pylbr convert has them")


def run(args: argparse.Namespace) -> int:
    """Count the inputs and write their sum."""
    if not (args.inputs or args.inputs_more or args.weighted_input):
        raise CommandError("no input is named")
    count = Parts(os.path.abspath(args.resume)).count if args.resume else None
    return write_sum(args, named_inputs(args), count)


def write_sum(
    args: argparse.Namespace, named: list[tuple[str, int]],
    count: Callable[[str, str], Counts] | None = None,
) -> int:
    """Write the sum of the inputs `named`; output, binary, form and workers as `args` have them."""
    if not args.output.lower().endswith(SUMS):
        raise CommandError(f"{args.output}: the suffix chooses the form: {', '.join(SUMS)}")
    if args.binary is None:
        raise CommandError(f"{args.output}: is about one binary; name it with --binary ELF")
    inputs = [(absolute(name), weight) for name, weight in named]
    if os.path.realpath(args.output) in (os.path.realpath(name) for name, _ in inputs):
        raise CommandError(f"{args.output}: is among the inputs; name another")
    try:
        image = ElfImage(args.binary)
    except (OSError, ValueError) as error:
        raise CommandError(
            f"{args.binary}: cannot be read as a 64-bit ELF file: {error}") from error
    with progress(len(inputs), "inputs", os.path.basename(args.output)) as bar, \
            workers(args, len(inputs)) as found:
        counts = merge_inputs(inputs, os.path.abspath(args.binary), found.executor,
                              lambda path: bar.update(1), count, found.number)
    if not counts.edges and not counts.ips:
        raise CommandError(f"none of the {counts.branches:,} branches is in {args.binary}")
    if args.output.lower().endswith(FDATA):
        write_fdata(args.output, counts.profile(image), args.bolt)
    else:
        write_linked(args.output, counts.profile(image), args.preagg_form)
    if sys.stderr.isatty():
        print(f"{counts.branches:,} branches of {len(inputs)} inputs -> {args.output}",
              file=sys.stderr)
    return 0
