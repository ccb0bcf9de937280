"""``pylbr convert``: one format into another."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pylbr.cli import perf_words
from pylbr.cli.progress import print_notes, progress
from pylbr.errors import CommandError, TraceError
from pylbr.perf.stacks import Record, Samples
from pylbr.trace import Stacks, Trace, copy, open_any
from pylbr.trace.formats import formats, suffix_of
from pylbr.trace.modules import parse_module

if TYPE_CHECKING:
    from pylbr.profile.link import LinkProfile

HELP = "turn a trace or a file of stacks into another format"

EPILOG = """
What the input is, its content tells; what the output becomes, its suffix:

  a trace             .arrow .parquet .csv
  a file of stacks    .perf.data .perfscript .preagg .afdo.txt .csv

A file of stacks stays a file of stacks: between two samples branches are missing.
pylbr replay makes stacks of a trace.

examples:
  pylbr convert drmemtrace.app.zip -o app.arrow
  pylbr convert perf.data -o app.preagg --binary ./app
  pylbr convert branches.csv -o app.parquet --module ./app@0x555555554000
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    perf_words.add_input(parser, "IN", "file to read")
    perf_words.refuse(parser, "-F", "--fields", value=True, advice="the suffix of OUT chooses the "
                      "form; perf script -F prints other columns of OUT.perf.data")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="file to write")
    parser.add_argument(
        "--from", dest="format", metavar="FORMAT",
        help=f"format of IN, if its content misleads: {', '.join(f.name for f in formats())}",
    )
    parser.add_argument(
        "--module", metavar="FILE[@ADDRESS]", action="append", default=[],
        help="program or library that ran, loaded ADDRESS above its link addresses; "
        "its code tells the classes of branches that have none",
    )
    add_binary(parser)
    parser.add_argument(
        "--rows-per-file", metavar="N", type=int,
        help="make OUT.parquet a directory of files with N branches each",
    )
    parser.add_argument(
        "--no-verify", action="store_true", help="do not compare the container's digests"
    )


def add_binary(parser: argparse.ArgumentParser) -> None:
    """Options of the forms that are about one binary."""
    parser.add_argument(
        "--binary", metavar="ELF", help="the binary that .preagg and .afdo.txt are about"
    )
    parser.add_argument(
        "--preagg-form", choices=("traces", "branches"),
        help="lines of .preagg: traces (T; BOLT 22 and newer), or branches and runs, with "
        "mispredicts (B, F, f; every BOLT); default: traces",
    )


def run(args: argparse.Namespace) -> int:
    """Convert; quiet unless standard error is a terminal."""
    args.input = perf_words.named_input(args)
    if args.rows_per_file is not None and args.rows_per_file < 1:
        raise CommandError("--rows-per-file: at least 1")
    modules = [module for text in args.module for module in parse_module(text)]
    done = 0

    def update(count: int) -> None:
        nonlocal done
        done += count
        bar.update(count)

    with open_any(args.input, args.format, modules=modules, verify=not args.no_verify) as source:
        total = source.count if isinstance(source, Trace) else None
        unit = "branches" if isinstance(source, Trace) else "samples"
        with progress(total, unit, os.path.basename(args.input)) as bar:
            try:
                if isinstance(source, Trace):
                    _refuse_stacks(args.output)
                    count = copy.copy_trace(source, args.output, update, args.rows_per_file)
                else:
                    count = _convert_stacks(source, args, update)
            except KeyboardInterrupt:
                print(
                    f"pylbr convert: interrupted after {done:,} {unit}; {args.output} was not "
                    "written", file=sys.stderr,
                )
                return 130
        print_notes("convert", source)
    if sys.stderr.isatty():
        print(f"{count:,} {unit} -> {args.output}", file=sys.stderr)
    return 0


def _refuse_stacks(path: str) -> None:
    if suffix_of(path) in STACK_WRITERS and suffix_of(path) not in copy.SUFFIXES:
        raise CommandError(
            f"{path}: a trace holds no samples; pylbr replay makes them of it"
        )


def _convert_stacks(
    source: Stacks, args: argparse.Namespace, update: Callable[[int], None]
) -> int:
    suffix = suffix_of(args.output)
    if suffix not in STACK_WRITERS:
        raise CommandError(
            f"{args.output}: a file of stacks is written as one of {', '.join(STACK_WRITERS)}"
        )
    if os.path.exists(args.output) and os.path.samefile(source.path, args.output):
        raise TraceError(args.output, "is the file that is read; name another")
    counted = Stacks(source.metadata, _counted(source, update), source.path)
    counted.reopen = source.reopen
    return STACK_WRITERS[suffix](counted, args)


def _counted(source: Stacks, update: Callable[[int], None]) -> Iterator[Record]:
    """The records; a stream without samples is a fault, which ends the writing."""
    count = 0
    for record in source:
        yield record
        if isinstance(record, Samples):
            update(len(record))
            count += len(record)
    if not count:
        raise TraceError(source.path, "holds no samples: nothing to convert")


def _perf_data(source: Stacks, args: argparse.Namespace) -> int:
    from pylbr.perf.data_writer import write_perf_data

    return write_perf_data(args.output, source)


def _perf_script(source: Stacks, args: argparse.Namespace) -> int:
    from pylbr.perf.script_writer import measured_fields, write_perf_script

    return write_perf_script(
        args.output, source, fields=measured_fields(source.metadata), mmap_events=True,
        task_events=True,
    )


def _linked(source: Stacks, args: argparse.Namespace) -> tuple[LinkProfile, int]:
    """Counts at the link addresses of the binary, and the number of samples."""
    from pylbr.profile.aggregate import collect
    from pylbr.profile.link import link_profile

    if args.binary is None:
        raise CommandError(f"{args.output}: is about one binary; name it with --binary ELF")
    profile = collect(source)
    try:
        linked = link_profile(profile, args.binary)
    except TraceError:
        raise
    except (OSError, ValueError) as error:
        raise CommandError(f"{args.binary}: cannot be read as a 64-bit ELF file: {error}")\
            from error
    if not linked.edges and not linked.ips:
        raise TraceError(
            source.path, f"{args.binary} was mapped, but none of the {profile.samples:,} samples "
            f"and {linked.branches:,} branches is in it"
        )
    outside = linked.branches - linked.inside
    if outside:
        print(
            f"pylbr {args.command}: {outside / linked.branches:.1%} of the branches are outside of "
            f"{args.binary}", file=sys.stderr,
        )
    return linked, profile.samples


def _preagg(source: Stacks, args: argparse.Namespace) -> int:
    from pylbr.profile.preagg import FORMS, write_preagg

    profile, count = _linked(source, args)
    write_preagg(args.output, profile, args.preagg_form or FORMS[0])
    if args.preagg_form is None:
        print(
            f"pylbr {args.command}: {args.output}: trace lines, which BOLT reads from version 22 "
            "on; for an older one add --preagg-form branches", file=sys.stderr,
        )
    return count


def _autofdo(source: Stacks, args: argparse.Namespace) -> int:
    from pylbr.profile.autofdo import write_autofdo

    profile, count = _linked(source, args)
    write_autofdo(args.output, profile)
    return count


def _csv(source: Stacks, args: argparse.Namespace) -> int:
    """One row an entry."""
    import pyarrow.csv

    from pylbr.files.output import AtomicFile
    from pylbr.profile.tables import arrow_entries

    count, header = 0, True
    with AtomicFile(args.output) as output:
        for samples in source.samples():
            options = pyarrow.csv.WriteOptions(include_header=header, quoting_header="none")
            pyarrow.csv.write_csv(arrow_entries(samples, count), output.file, options)
            count, header = count + len(samples), False
    return count


#: Suffix -> writer of a stream of stacks, which returns the number of samples.
STACK_WRITERS: dict[str, Callable[[Stacks, argparse.Namespace], int]] = {
    ".perf.data": _perf_data, ".perfscript": _perf_script, ".preagg": _preagg,
    ".afdo.txt": _autofdo, ".csv": _csv,
}
