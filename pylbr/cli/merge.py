"""``pylbr merge``: one profile of many recordings."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from pylbr.cli.progress import progress
from pylbr.errors import CommandError
from pylbr.files.elf import ElfImage
from pylbr.profile.formats import LINKED, write_linked
from pylbr.profile.merge import inputs_of, merge_inputs
from pylbr.profile.resume import Parts

HELP = "add up recordings of one binary into one profile"

#: Seconds to wait for a scheduler.
_PATIENCE: Final = 10
#: How often a part is counted again whose worker was lost.
_RETRIES: Final = 10

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
    parser.add_argument("--dask", metavar="ADDRESS",
                        help="the workers of a dask.distributed cluster count, whose scheduler has "
                        "this address, which must see the same files (pip install pylbr[dask])")
    parser.add_argument("--resume", metavar="DIRECTORY",
                        help="keep the counts of each input there, and use those that are there: "
                        "an interrupted merge continues")
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
    inputs = [(os.path.abspath(name), heavier.get(name, 1)) for name in names]
    if os.path.realpath(args.output) in map(os.path.realpath, names):
        raise CommandError(f"{args.output}: is among the inputs; name another")
    try:
        image = ElfImage(args.binary)
    except (OSError, ValueError) as error:
        raise CommandError(
            f"{args.binary}: cannot be read as a 64-bit ELF file: {error}") from error
    count = Parts(os.path.abspath(args.resume)).count if args.resume else None
    with progress(len(names), "inputs", os.path.basename(args.output)) as bar, \
            _executor(args, len(names)) as executor:
        try:
            counts = merge_inputs(inputs, os.path.abspath(args.binary), executor,
                                  lambda path: bar.update(1), count)
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


@contextmanager
def _executor(args: argparse.Namespace, inputs: int) -> Iterator[Executor | None]:
    """What counts the inputs."""
    if args.dask:
        with _cluster(args.dask) as executor:
            yield executor
    elif min(args.jobs, inputs) == 1:
        yield None
    else:
        with ProcessPoolExecutor(min(args.jobs, inputs)) as executor:
            yield executor


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    """The workers of a dask.distributed scheduler."""
    try:
        from distributed import Client
    except ImportError as error:
        raise CommandError("--dask needs dask.distributed: pip install pylbr[dask]") from error
    try:
        client = Client(address, timeout=_PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise CommandError(f"--dask {address}: no scheduler answers there ({error})") from error
    with client:
        versions = _versions(client)
        if len(versions) != 1:
            raise CommandError(f"--dask {address}: pylbr is of several versions there, or missing: "
                               + "; ".join(sorted(versions)))
        yield client.get_executor(pure=False, retries=_RETRIES)


def _versions(client: Any) -> set[str]:
    """Versions of pylbr here and on the workers."""
    found = client.run(_version)
    if not found:
        raise CommandError("--dask: the scheduler has no workers")
    return {_version(), *found.values()}


def _version() -> str:
    try:
        return version("pylbr")
    except PackageNotFoundError:
        return "none"
