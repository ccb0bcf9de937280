"""``pylbr convert``: one format into another."""

from __future__ import annotations

import argparse
import os
import sys

from pylbr.cli import perf_options
from pylbr.cli.fdata import FDATA, add_bolt
from pylbr.cli.inputs import add_inputs, named_inputs
from pylbr.cli.merge import SUMS, write_sum
from pylbr.cli.progress import print_notes, progress
from pylbr.cli.workers import add_workers
from pylbr.errors import CommandError
from pylbr.files.format import WriteOptions
from pylbr.profile.merge import is_preaggregated
from pylbr.profile.remote import fetched
from pylbr.trace import Trace, copy, open_any
from pylbr.trace.formats import output_format, output_suffixes, readable
from pylbr.trace.modules import parse_module

HELP = "turn a trace or a file of stacks into another format"

EPILOG = f"""
The format of the input is recognised by its content, that of the output by its suffix:

  a trace             {' '.join(output_suffixes("trace"))}
  a file of stacks    {' '.join(output_suffixes("stacks"))}

A file of stacks stays a file of stacks: between two samples branches are missing.
pylbr replay makes stacks of a trace.
Several inputs, weights and pre-aggregated text are added up, as pylbr merge does, into one of

  {' '.join(SUMS)}

examples:
  pylbr convert drmemtrace.app.zip -o app.arrow
  pylbr convert perf.data -o app.preagg --binary ./app
  pylbr convert 'fleet/*.perf.data' -o app.preagg --binary ./app
  pylbr convert branches.csv -o app.parquet --module ./app@0x555555554000
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    add_inputs(parser, "IN", "what to read (default perf.data)")
    add_workers(parser, "count inputs that are added up", "-j")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="file to write")
    parser.add_argument(
        "--from", dest="format", metavar="FORMAT",
        help=f"format of IN, if its content misleads: {', '.join(f.name for f in readable())}",
    )
    parser.add_argument(
        "--module", metavar="FILE[@ADDRESS]", action="append", default=[],
        help="program or library that ran, loaded ADDRESS above its link addresses; "
        "its code gives the classes of branches that have none",
    )
    add_binary(parser)
    add_bolt(parser)
    parser.add_argument(
        "--rows-per-file", metavar="N", type=int,
        help="make OUT.parquet a directory of files with N branches each",
    )
    parser.add_argument(
        "--small", action="store_true",
        help="make OUT.lbrt about half as large; it is read and written at a tenth of the speed",
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="do not compare the container's digests"
    )
    perf_options.answer(parser, perf_options.SCRIPT)


def add_binary(parser: argparse.ArgumentParser) -> None:
    """Options of the forms that are about one binary."""
    parser.add_argument(
        "--binary", metavar="ELF", help="the binary that .preagg and other sums are about"
    )
    parser.add_argument(
        "--preagg-form", choices=("traces", "branches"),
        help="lines of .preagg: traces (T; BOLT 22 and newer), or branches and runs, with "
        "mispredicts (B, F, f; every BOLT); default: traces",
    )


def run(args: argparse.Namespace) -> int:
    """Convert; quiet unless standard error is a terminal."""
    named = named_inputs(args, "perf.data")
    if args.rows_per_file is not None and args.rows_per_file < 1:
        raise CommandError("--rows-per-file: at least 1")
    if len(named) != 1 or named[0][1] != 1:
        return _write_sum(args, named)
    with fetched([named[0][0]]) as (args.input,):
        # Counts that were added up already can be nothing but a part of a sum.
        if args.output.lower().endswith(FDATA) or (
                args.output.lower().endswith(SUMS) and os.path.isfile(args.input)
                and is_preaggregated(args.input)):
            return _write_sum(args, [(args.input, 1)])
        return _convert(args)


def _write_sum(args: argparse.Namespace, named: list[tuple[str, int]]) -> int:
    if not args.output.lower().endswith(SUMS):
        raise CommandError(f"{args.output}: several inputs, and weights, are added up in "
                           f"{', '.join(SUMS)} alone; convert one after the other")
    given = [word for word, value in (("--from", args.format), ("--module", args.module),
                                      ("--no-verify", args.no_verify),
                                      ("--rows-per-file", args.rows_per_file),
                                      ("--small", args.small)) if value]
    if given:
        raise CommandError(f"{given[0]}: does not go with inputs that are added up")
    return write_sum(args, named)


def _convert(args: argparse.Namespace) -> int:
    modules = [module for text in args.module for module in parse_module(text)]
    with open_any(args.input, args.format, modules=modules, verify=not args.no_verify) as source:
        total = source.count if isinstance(source, Trace) else None
        unit = "branches" if isinstance(source, Trace) else "samples"
        with progress(total, unit, os.path.basename(args.input)) as bar:
            options = WriteOptions(
                bar.update, lambda line: print(f"pylbr convert: {line}", file=sys.stderr),
                args.rows_per_file, args.binary, args.preagg_form, args.small)
            try:
                if isinstance(source, Trace):
                    _refuse_stacks(args.output)
                    count = copy.copy_trace(source, args.output, options)
                else:
                    _refuse_others(args.output)
                    if args.small:
                        raise CommandError("--small: only a trace, as .lbrt, has a small coding")
                    count = copy.copy_stacks(source, args.output, options)
            except KeyboardInterrupt:
                print(
                    f"pylbr convert: interrupted after {bar.n:,} {unit}; {args.output} was not "
                    "written", file=sys.stderr,
                )
                return 130
        print_notes("convert", source)
    if sys.stderr.isatty():
        print(f"{count:,} {unit} -> {args.output}", file=sys.stderr)
    return 0


def _refuse_stacks(path: str) -> None:
    if output_format(path, "stacks") and not output_format(path, "trace"):
        raise CommandError(
            f"{path}: a trace holds no samples; pylbr replay makes them of it"
        )


def _refuse_others(path: str) -> None:
    if output_format(path, "stacks") is None:
        raise CommandError(
            f"{path}: a file of stacks is written as one of "
            f"{', '.join(output_suffixes('stacks'))}"
        )
