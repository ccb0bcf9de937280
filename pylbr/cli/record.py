"""Run a program and record its branches, where there is no LBR."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable

from pylbr.cli import perf_options
from pylbr.errors import CommandError
from pylbr.record.events import EVENT_NAMES
from pylbr.record.recorded import Recording, record_program
from pylbr.record.targets import TARGETS

__all__ = ["HELP", "configure", "run"]

HELP = "run a program and record its branch stacks, as perf record -b does"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options as perf record has them, and ours."""
    parser.usage = "pylbr record [options] [--] PROGRAM [ARGUMENT ...] | -p PID"
    parser.add_argument("-o", "--output", metavar="FILE",
                        help="default perf.data; with --full trace.parquet (0.4 to 0.8 bytes "
                             "per branch), or a name in .lbrt (0.02 to 0.06 bytes, for pylbr "
                             "alone) or .arrow (27 bytes)")
    parser.add_argument("-b", "--branch-any", action="store_true",
                        help="all branches of user mode; the default")
    parser.add_argument("-j", "--branch-filter", metavar="WORDS",
                        help="any, any_call, any_ret, ind_call, ind_jmp, call, cond, u, "
                             "save_type; of a system k, too (default any,u, of a system any)")
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
                             "speed, stacks by time, and --full of one thread; qemu: --full, "
                             "-c, the same each time; unicorn, for bare code and functions; "
                             "or an installed package's")
    parser.add_argument("--system", action="store_true",
                        help="record the system that a qemu-system-x86_64 boots, its kernel and "
                             "programs; the arguments are QEMU's, such as -kernel FILE")
    parser.add_argument("--vmlinux", metavar="FILE", default="",
                        help="with --system: the kernel, if -kernel does not name it")
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
    parser.add_argument("--burst", type=int, default=0, metavar="N", choices=range(1, 9),
                        help="stacks per tick of the native engine, some 128 taken branches "
                             "apart: 1 to 8 (default: 1 up to 2,000 stacks per second, then as "
                             "many as keep ticks rare)")
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
    if args.full and not args.quiet:
        from pylbr.cli.progress import progress  # loaded where it is needed: most runs are short

        with progress(None, "branches", "writing") as bar:
            done = _record(args, command, bar.reach)
    else:
        done = _record(args, command, _uncounted)
    if not args.quiet:
        what = "branches" if args.full else "samples"
        print(f"[ pylbr record: {done.count:,} {what} in {done.path} ]", file=sys.stderr)
    if done.nothing:
        print(f"pylbr record: no {'branches' if args.full else 'stacks'}: {done.nothing}",
              file=sys.stderr)
    for remark in done.remarks:
        print(f"pylbr record: {remark}", file=sys.stderr)
    return done.exit_code or int(bool(done.nothing))


def _record(
    args: argparse.Namespace, command: list[str], reach: Callable[[int, int], object]
) -> Recording:
    return record_program(
        command, args.output, frequency=args.freq, count=args.count, event=args.event,
        full=args.full, branch_filter=args.branch_filter, depth=args.depth, engine=args.engine,
        cycles=args.cycles, mispredicts=args.mispredicts, max_size=args.max_size,
        max_overhead=args.max_overhead, burst=args.burst, pid=args.pid, tid=args.tid,
        seconds=args.duration, live=args.live, system=args.system, vmlinux=args.vmlinux,
        arguments=["pylbr", *sys.argv[1:]],
        chosen=_ignore if args.quiet else _chosen,
        announce=_ignore if args.quiet else _announce,
        progress=reach)


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


def _chosen(why: str) -> None:
    print(f"pylbr record: engine {why}", file=sys.stderr)


def _announce(line: str) -> None:
    print(f"[ pylbr record: {line} ]", file=sys.stderr)


def _ignore(line: str) -> None:
    pass


def _uncounted(done: int, total: int) -> None:
    pass


def _frequency(text: str) -> int | str:
    if text == "max":
        return text
    if not re.fullmatch("[0-9]+", text):
        raise argparse.ArgumentTypeError(f"{text}: hertz, such as 2000, or max")
    return int(text)
