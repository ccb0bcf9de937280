"""``pylbr replay``: a trace in, the samples of a profiler on real hardware out."""

from __future__ import annotations

import argparse
import os
import re
import sys

from pylbr.arch.models import MODELS
from pylbr.cli import perf_words
from pylbr.cli.convert import add_binary
from pylbr.cli.cpu_option import add_cpu
from pylbr.cli.progress import print_notes, progress
from pylbr.cli.workers import add_workers, workers
from pylbr.errors import CommandError, TraceError
from pylbr.files.format import WriteOptions
from pylbr.files.module import Module
from pylbr.perf.branch_filter import BRANCH_WORDS
from pylbr.profile.replayed import replayed
from pylbr.sample import SampleSetup
from pylbr.sample.job import PART_ROWS, ReplayJob
from pylbr.sample.quirks import QUIRKS
from pylbr.sample.sample_setup import DEFAULT_MODEL
from pylbr.sample.schedule import sample_parts
from pylbr.trace import open_any
from pylbr.trace.formats import output_format, output_suffixes, readable
from pylbr.trace.modules import parse_module
from pylbr.trace.trace import Trace

HELP = "sample a trace as a processor with LBRs would: branch stacks, as perf record -b"

EPILOG = f"""
Words and events are those of perf record.  Besides, the event every-branch counts each branch
of the trace, also those that fell through.  The suffix of OUT selects its format:
{' '.join(output_suffixes("stacks"))}

examples:
  pylbr replay app.arrow -e branches:u -c 10007 -j any,u --cpu sapphire-rapids -o out.perf.data
  pylbr replay app.arrow -e cycles:u -c 200003 --call-graph lbr -o stacks.perf.data
  pylbr replay app.arrow -e branches:u,branch-misses:u --skid 2 --jitter 500 --seed 1
"""

_DEFAULT_PERIOD = 100003
#: Options that decide who replays and not what comes out.
_HOW = ("--jobs", "--dask", "--part", "--resume", "--threads")


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add = parser.add_argument
    parser.epilog = EPILOG
    perf_words.add_input(parser, "TRACE", "trace to read")
    add("-o", "--output", metavar="OUT", default="out.perf.data", help="default out.perf.data")
    add("-e", "--event", metavar="EVENTS", action="append",
        help="what periods count, separated by commas (default branches:u)")
    add("-c", "--count", metavar="N", type=int, default=_DEFAULT_PERIOD,
        help=f"sample every N events (default {_DEFAULT_PERIOD})")
    add("-b", "--branch-any", action="store_true", help="all taken branches; as -j any")
    add("-j", "--branch-filter", metavar="WORDS",
        help=f"which branches are recorded: {', '.join(BRANCH_WORDS)} (default any,u)")
    add("--call-graph", choices=["lbr"], help="record call stacks; as -j stack,u")
    perf_words.refuse(parser, "-g", advice="call stacks come from the branch records: "
                      "--call-graph lbr")
    perf_words.refuse(parser, "-F", "--freq", value=True,
                      advice="a trace has no clock; give a period, -c N")
    perf_words.refuse(parser, "-p", "--pid", "-t", "--tid", value=True,
                      advice="a trace is replayed as a whole; choose tasks when it is recorded")
    perf_words.accept(parser, "-N", "--no-buildid-cache")
    perf_words.accept(parser, "-m", "--mmap-pages", value=True)
    add("-a", "--all-cpus", action="store_true",
        help="counters belong to CPUs, not to tasks")
    add_cpu(parser, f"processor (default {DEFAULT_MODEL}): {', '.join(MODELS)}", DEFAULT_MODEL,
            letter=False)
    add("--depth", type=int, metavar="N", help="IA32_LBR_DEPTH (default: the largest)")
    add("--skid", type=int, metavar="N", default=0,
        help="branches from an overflow to its interrupt (default 0; none with :p)")
    add("--jitter", type=int, metavar="N", default=0,
        help="draw each period from N below to N above (default 0)")
    add("--seed", type=int, metavar="N", default=0, help="of the draws (default 0)")
    add("--freeze", action=argparse.BooleanOptionalAction, default=None,
        help="FREEZE_LBRS_ON_PMI (default: as Linux, on but for call stacks)")
    add("--quirk", metavar="NAME", action="append", default=[],
        help=f"what recorded samples of the processor show besides: {', '.join(QUIRKS)} "
        "(Skylake: a quarter of the samples has the newest record twice); default none")
    add("--engine", choices=["lazy", "architectural"], default="lazy",
        help="how it is done; the samples are the same")
    add("--threads", type=int, metavar="N", default=1,
        help="default 1; the architectural engine always has one")
    add_workers(parser, "replay parts of the trace")
    add("--part", type=int, metavar="N", default=PART_ROWS,
        help=f"branches that a worker replays at a time (default {PART_ROWS:,})")
    add("--resume", metavar="DIRECTORY",
        help="keep what each part gives there, and use what is there: an interrupted replay "
        "continues")
    add("--from", dest="format", metavar="FORMAT",
        help=f"format of TRACE, if its content misleads: {', '.join(f.name for f in readable())}")
    add("--module", metavar="FILE[@ADDRESS]", action="append", default=[],
        help="program or library that ran, loaded ADDRESS above its link addresses")
    add_binary(parser)
    add("--no-verify", action="store_true", help="do not compare the container's digests")


def run(args: argparse.Namespace) -> int:
    """Replay; quiet unless standard error is a terminal."""
    args.input = perf_words.named_input(args)
    setup = _setup(args)
    chosen = output_format(args.output, "stacks")
    if chosen is None or chosen.write is None:
        raise CommandError(
            f"{args.output}: stacks are written as one of "
            f"{', '.join(output_suffixes('stacks'))}")
    modules = [module for text in args.module for module in parse_module(text)]
    options = WriteOptions(
        note=lambda line: print(f"pylbr replay: {line}", file=sys.stderr), binary=args.binary,
        preagg_form=args.preagg_form)
    with open_any(args.input, args.format, modules=modules, verify=not args.no_verify) as source:
        if not isinstance(source, Trace):
            raise CommandError(
                f"{args.input}: holds samples, not a trace; between them branches are missing")
        if os.path.exists(args.output) and os.path.samefile(source.path, args.output):
            raise TraceError(args.output, "is the file that is read; name another")
        job = _job(args, source, setup, modules)
        with progress(source.count, "branches", os.path.basename(args.input)) as bar, \
                workers(args, job.parts if job else 1) as found:
            batches = sample_parts(job, *found, bar.update) if job else None
            stacks = replayed(source, setup, threads=args.threads, update=bar.update,
                              command_line=["pylbr", *_told()], batches=batches)
            try:
                count = chosen.write(stacks, args.output, options)
            except KeyboardInterrupt:
                print(
                    f"pylbr replay: interrupted after {bar.n:,} branches; {args.output} was not "
                    "written", file=sys.stderr)
                return 130
        print_notes("replay", source)
    if sys.stderr.isatty():
        print(f"{bar.n:,} branches, {count:,} samples -> {args.output}", file=sys.stderr)
    return 0


def _told() -> list[str]:
    """The command line for the file's head, without who did it: the bytes are the same."""
    words, left = [], iter(sys.argv[1:])
    for word in left:
        name, equals, _ = word.partition("=")
        if name in _HOW:
            if not equals:
                next(left, None)
        else:
            words.append(word)
    return words


def _job(
    args: argparse.Namespace, source: Trace, setup: SampleSetup, modules: list[Module]
) -> ReplayJob | None:
    """The replay in parts; None if one process does it in one."""
    if args.part < 1:
        raise CommandError(f"--part {args.part}: at least 1 branch")
    if args.jobs == 1 and not args.dask and not args.resume:
        return None
    if setup.engine != "lazy" or args.threads != 1:
        raise CommandError("--jobs, --dask, --resume: go with the lazy engine and one thread each")
    if source.count is None:
        raise CommandError(f"{args.input}: can be read from its beginning alone, and not in parts; "
                           "pylbr convert it to .lbrt first")
    return ReplayJob(
        os.path.abspath(args.input), setup, source.count, args.part, args.format, tuple(modules),
        not args.no_verify, os.path.abspath(args.resume) if args.resume else None)


def _setup(args: argparse.Namespace) -> SampleSetup:
    if args.threads < 1:
        raise CommandError(f"--threads {args.threads}: at least 1")
    if not 0 <= args.seed < 1 << 64:
        raise CommandError(f"--seed {args.seed}: 0 to 2**64 - 1")
    given = [args.branch_filter is not None, args.call_graph is not None, args.branch_any]
    if sum(given) > 1:
        raise CommandError("-b, -j and --call-graph: give one of them")
    # Commas between the slashes of cpu/event=..,umask=../ separate nothing.
    events = [name for text in args.event or ["branches:u"]
              for name in re.findall(r"(?:[^,/]|/[^/]*/)+", text)]
    branches = args.branch_filter or ("stack,u" if args.call_graph else "any")
    if not {"u", "k"} & set(branches.split(",")):
        # As perf: the branches of the levels that the first event is counted in.
        modifiers = events[0].partition(":")[2] if events else ""
        branches += "".join(f",{level}" for level in "uk" if level in modifiers)
    return SampleSetup.of(
        events, args.count, model=args.model, jitter=args.jitter, seed=args.seed, skid=args.skid,
        branches=branches, depth=args.depth, freeze=args.freeze,
        scope="cpu" if args.all_cpus else "task", engine=args.engine,
        quirks=tuple(args.quirk))
