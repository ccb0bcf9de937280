"""Run a program and record its branches, where there is no LBR."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING

from pylbr.cli import perf_options
from pylbr.errors import CommandError
from pylbr.perf.abi import BranchSample
from pylbr.perf.branch_filter import BRANCH_KINDS, lbr_ctl
from pylbr.record.choice import choose, process_of
from pylbr.record.engine import Request
from pylbr.record.events import EVENT_NAMES, counted_event
from pylbr.record.filters import recordable_filter
from pylbr.record.output import PerfDataOutput
from pylbr.record.program import target_of
from pylbr.record.targets import TARGETS, X86_64
from pylbr.record.wire_numbers import Counted

if TYPE_CHECKING:
    from pylbr.record.live import LiveOutput
    from pylbr.record.predicted import PredictedOutput
    from pylbr.record.trace_output import TraceOutput

__all__ = ["HELP", "configure", "run"]

HELP = "run a program and record its branch stacks, as perf record -b does"

#: Hertz, by engine.
_MAX_FREQUENCY = {"native": 50_000, "qemu": 100_000}
_DEFAULT_FREQUENCY = 1000
_DEFAULT_EVENT = "branches:u"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options as perf record has them, and ours."""
    parser.usage = "pylbr record [options] [--] PROGRAM [ARGUMENT ...] | -p PID"
    parser.add_argument("-o", "--output", metavar="FILE",
                        help="default perf.data; with --full trace.parquet (0.4 to 0.8 bytes "
                             "per branch), or a name in .lbrt (0.02 to 0.06 bytes, for pylbr "
                             "alone) or .arrow (27 bytes)")
    parser.add_argument("-b", "--branch-any", action="store_true",
                        help="all branches of user mode; the default")
    parser.add_argument("-j", "--branch-filter", metavar="WORDS", default="any,u",
                        help="any, any_call, any_ret, ind_call, ind_jmp, call, cond, u, save_type")
    parser.add_argument("-e", "--event", metavar="EVENT",
                        help=f"what a period counts: {', '.join(EVENT_NAMES)}")
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("-c", "--count", type=int, metavar="N",
                      help="sample every N events (default 100003 of the engine qemu)")
    rate.add_argument("-F", "--freq", type=_frequency, metavar="HZ",
                      help="sample HZ times per second of each running thread's time; or max "
                           "(default 1000 of the engine native)")
    parser.add_argument("--full", action="store_true", help="every branch, not samples")
    parser.add_argument("--max-size", metavar="SIZE", type=_size, default=0,
                        help="with --full: the largest file to write, such as 500M or 4G")
    parser.add_argument("--cycles", action="store_true",
                        help="fill in cycles from a model (a price per instruction class)")
    parser.add_argument("--mispredicts", choices=["gshare", "tage"], default="",
                        help="fill in mispredicts from a model of a predictor; of samples it "
                             "sees the stretches in them, with --full every branch")
    parser.add_argument("--depth", type=int, metavar="N",
                        choices=sorted({n for target in TARGETS.values() for n in target.depths}),
                        help="branches in a stack: 8, 16, 24 or 32 (default); of AArch64 programs "
                             "up to 64, of RISC-V ones up to 256")
    parser.add_argument("--live", action="store_true",
                        help="show the hottest branches while the program runs")
    parser.add_argument("--engine", metavar="NAME",
                        help="what runs the program: native (default where it can be), at full "
                             "speed, stacks by time; qemu: --full, -c, the same each time; "
                             "unicorn, for bare code and functions; or an installed package's")
    parser.add_argument("-q", "--quiet", action="store_true", help="no summary on standard error")
    running = parser.add_mutually_exclusive_group()
    running.add_argument("-p", "--pid", type=int, metavar="PID",
                         help="record a process that runs already, until it ends or Ctrl-C")
    running.add_argument("-t", "--tid", type=int, metavar="TID", help="the same of one thread")
    parser.add_argument("--duration", type=float, default=0.0, metavar="SECONDS",
                        help="with -p or -t: how long")
    parser.add_argument("--max-overhead", type=_percent, default=5.0, metavar="PERCENT",
                        help="share of its time that recording may cost a thread (default 5%%); "
                             "the native engine takes fewer stacks rather")
    perf_options.answer(parser, perf_options.RECORD)
    parser.add_argument("command_line", nargs=argparse.REMAINDER, metavar="PROGRAM ...")


def run(args: argparse.Namespace) -> int:
    """Record; the exit code is the program's."""
    command = args.command_line[1:] if args.command_line[:1] == ["--"] else args.command_line
    running = args.pid or args.tid
    if bool(command) == bool(running):
        raise CommandError("give either a program or -p PID: "
                           "pylbr record [options] -- PROGRAM [ARGUMENT ...]")
    if args.duration and not running:
        raise CommandError("--duration: a program is recorded to its end; -p PID takes a time")
    filter_ = recordable_filter(args.branch_filter)
    if args.mispredicts and not args.full and filter_ & BRANCH_KINDS != BranchSample.ANY:
        raise CommandError(f"-j {args.branch_filter}: --mispredicts needs branches of every kind: "
                           "-j any,u")
    if args.depth and args.full:
        raise CommandError("--depth: a full trace has no stacks; take it of pylbr replay --depth")
    if args.max_size and not args.full:
        raise CommandError("--max-size limits --full; of samples, take fewer with a larger -c")
    if args.live and args.full:
        raise CommandError("--live shows samples; leave --full out")
    target = target_of(command) if command else X86_64
    if args.depth and args.depth not in target.depths:
        raise CommandError(f"--depth {args.depth}: {target.title} has "
                           f"{', '.join(map(str, target.depths))}")
    chosen, why = choose(args.engine, _needs(args), bool(running), target)
    counted, period = _period(args, chosen.name)
    request = Request(
        command, args.full, counted, period, control=lbr_ctl(filter_), cycles=args.cycles,
        mispredicts=args.mispredicts, most_bytes=args.max_size, seconds=args.duration,
        pid=process_of(args.tid) if args.tid else args.pid or 0, tid=args.tid or 0,
        overhead=args.max_overhead, depth=args.depth or 32,
        target=target,
    )
    path = args.output or ("trace.parquet" if args.full else "perf.data")
    if path == "-":
        raise CommandError("-o -: standard output is the program's; name a file")
    if why and not args.quiet:
        print(f"pylbr record: engine {why}", file=sys.stderr)
    output: TraceOutput | PerfDataOutput | LiveOutput | PredictedOutput
    # What few recordings need is loaded where it is: most end within a second.
    if args.full:
        from pylbr.record.trace_output import TraceOutput

        output = TraceOutput(path, request, chosen, _ignore if args.quiet else _announce)
    else:
        output = samples = PerfDataOutput(path, request, chosen, filter_, ["pylbr", *sys.argv[1:]])
        if args.live:
            from pylbr.record.live import LiveOutput

            output = LiveOutput(samples, int(filter_))
        if args.mispredicts:
            from pylbr.record.predicted import PredictedOutput

            output = PredictedOutput(output, args.mispredicts)
    with output:
        outcome = chosen.run(request, output, getattr(output, "refresh", lambda: None))
    if not args.quiet:
        what = "branches" if args.full else "samples"
        print(f"[ pylbr record: {output.count:,} {what} in {path} ]", file=sys.stderr)
    nothing = outcome.nothing
    if not output.count and not nothing:
        nothing = "nothing of it could be followed" if args.full else _too_rare(counted, period)
    if nothing:
        print(f"pylbr record: no {'branches' if args.full else 'stacks'}: {nothing}",
              file=sys.stderr)
    for remark in outcome.remarks + output.remarks:
        print(f"pylbr record: {remark}", file=sys.stderr)
    if outcome.gaps:
        print(f"pylbr record: {outcome.gaps} steps without an explanation", file=sys.stderr)
    return outcome.exit_code or int(bool(nothing))


def _needs(args: argparse.Namespace) -> str:
    """The option that only an engine with exact counts can do; empty: none."""
    for given, word in (
        (args.full, "--full"), (args.count is not None, "-c"), (args.cycles, "--cycles"),
        (args.event is not None, "-e"),
    ):  # fmt: skip
        if given:
            return word
    return ""


def _percent(text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"{text}: a share such as 5% is needed, at most 100%")
    return value


def _size(text: str) -> int:
    """Bytes of a size as perf writes it: 4096B, 100K, 20M, 4G."""
    found = re.fullmatch(r"(\d+)([BKMG])", text.upper())
    if found is None or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text}: a number with B, K, M or G, such as 500M")
    return int(found[1]) << 10 * "BKMG".index(found[2])


def _too_rare(counted: Counted, period: int) -> str:
    if counted is Counted.TIME:
        return (f"the program ended within the {period / 1e6:,g} ms to the first; "
                "-F HZ with a larger HZ takes some sooner")
    return (f"fewer than the {period:,} events of a period occurred; "
            "-c N with a smaller N gives some")


def _announce(line: str) -> None:
    print(f"[ pylbr record: {line} ]", file=sys.stderr)


def _ignore(line: str) -> None:
    pass


def _period(args: argparse.Namespace, engine: str = "qemu") -> tuple[Counted, int]:
    """What is counted, and the period."""
    if engine == "native" and args.freq is None and args.count is None and args.event is None:
        args.freq = _DEFAULT_FREQUENCY
    if args.freq is not None:
        most = _MAX_FREQUENCY.get(engine, _MAX_FREQUENCY["qemu"])
        frequency = most if args.freq == "max" else args.freq
        if not 1 <= frequency <= most:
            raise CommandError(f"-F {frequency}: 1 to {most} hertz with the {engine} engine")
        return Counted.TIME, 1_000_000_000 // frequency
    counted = counted_event(args.event or _DEFAULT_EVENT)
    count = 100003 if args.count is None else args.count
    if count < 1:
        raise CommandError(f"-c {count}: at least 1")
    return counted, count


def _frequency(text: str) -> int | str:
    return text if text == "max" else int(text)
