"""``pylbr linux``: a command in a Linux guest whose processor has LBRs."""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pylbr.arch.models import DEFAULT_MODEL
from pylbr.cli.cpu_option import add_cpu
from pylbr.cli.progress import Screen, drawn_meanwhile, progress
from pylbr.errors import CommandError
from pylbr.extras import needed
from pylbr.files.output import AtomicFile

if TYPE_CHECKING:
    from pylbr.embed.machine import Ending, Machine
    from pylbr.linux.booted import Guest
    from pylbr.linux.console import Console

HELP = "run a command in a Linux guest whose perf uses the LBRs of a modelled processor"

EPILOG = """
Boots Debian's kernel, unmodified, with busybox and perf on a machine with LBRs, runs COMMAND by its
shell and puts the files that it wrote into the output directory.  Files of this directory that
COMMAND names, and those of --file, go in under the same path; of programs also the shared libraries
that they need.  Packages that are not installed are fetched by apt into ~/.cache/pylbr.

Without COMMAND standard input is the terminal of a shell in the guest, on its serial console.

A guest that has booted is kept there, too: the second command starts in seconds.

examples:
  pylbr linux -- perf record -b -e branches:u ./prog
  pylbr linux --cpu haswell -- 'perf record -b ./prog && perf report --stdio'
  pylbr linux --seed 1 -- dmesg
  pylbr linux
"""
_CODES = {"limit": 124, "halt": 134, "shutdown": 134, "stuck": 134, "panic": 134}


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument(
        "words", metavar="COMMAND", nargs="*",
        help="one word is for the guest's shell as it is; none: an interactive shell")
    add_cpu(parser, "processor; architectural: one unknown to every kernel (default: %(default)s)",
            DEFAULT_MODEL)
    parser.add_argument(
        "--memory", type=int, default=512, metavar="MIB", help="memory (default: %(default)s)")
    parser.add_argument(
        "--cpus", type=int, default=1, metavar="N",
        help="processors, 1 to 4; with more than one it boots again each time "
             "(default: %(default)s)")
    parser.add_argument(
        "--kernel", metavar="FILE", help="kernel (default: Debian's linux-image-cloud-amd64)")
    parser.add_argument(
        "--package", metavar="NAME", action="append", default=[],
        help="put this Debian package in, too; may be given again")
    parser.add_argument(
        "--append", default="", metavar="TEXT", help="for the kernel's command line")
    parser.add_argument(
        "-f", "--file", metavar="FILE", action="append", default=[],
        help="put this file in, too; may be given again")
    parser.add_argument(
        "-o", "--output", metavar="DIR", default=".", help="for files (default: this directory)")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show the guest's console on standard error")
    parser.add_argument(
        "--seed", type=int, metavar="N",
        help="vary clocks, and with them the guest's random numbers; boots again each time")
    parser.add_argument("--boot", action="store_true", help="boot again, keep the result")
    parser.add_argument(
        "--limit", type=int, default=100_000_000_000, metavar="N",
        help="stop after N instructions, or as long asleep (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="stop after S seconds, too")


def run(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    if args.limit < 1:
        raise CommandError(f"--limit: must be at least 1, not {args.limit}")
    if args.seconds is not None and not args.seconds > 0:
        raise CommandError(f"--seconds: must be more than 0, not {args.seconds}")
    if not 1 <= args.cpus <= 4:
        raise CommandError(f"--cpus: must be 1 to 4, not {args.cpus}")
    needed("unicorn")
    from pylbr.embed.time_limit import time_limit
    from pylbr.linux.booted import NotBooted, booted
    from pylbr.linux.console import Console
    from pylbr.linux.inputs import inputs
    from pylbr.linux.session import execute
    from pylbr.linux.terminal import connected

    files = inputs(args.words, [Path(name) for name in args.file])
    shell = not args.words
    boot = _Boot()
    console = Console(_show if args.verbose else boot)
    guest = _guest(args)
    screen = Screen(progress(None, "instructions", "the guest"))
    bar = progress(None, "bytes", "the guest starts, printing")
    try:
        with bar, drawn_meanwhile(bar, lambda: boot.printed) if not args.verbose else ExitStack():
            machine, channel = booted(
                guest, console, screen, limit=args.limit, seconds=args.seconds,
                fresh=args.boot)
    except NotBooted as failed:
        return _failed(failed.machine, failed.ending, console, guest)
    command = args.words[0] if len(args.words) == 1 else shlex.join(args.words)
    with time_limit(machine, args.seconds), ExitStack() as stack:
        if shell:
            console.show = _terminal
            stack.enter_context(connected(machine))
        elif not args.verbose:
            stack.enter_context(screen.bar)
            stack.enter_context(drawn_meanwhile(screen.bar, lambda: machine.clock))
        result = execute(machine, channel, command, files, args.limit)
    sys.stdout.flush()
    if result.ending.kind != "exit":
        return _failed(machine, result.ending, console, guest)
    for name, contents in result.files.items():
        place = Path(args.output, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        with AtomicFile(place) as out:
            out.file.write(contents)
    return result.ending.code & 0xFF


def _guest(args: argparse.Namespace) -> Guest:
    from pylbr.linux import debian
    from pylbr.linux.booted import Guest
    from pylbr.linux.system import initramfs

    kernel = Path(args.kernel) if args.kernel else debian.kernel()
    return Guest(kernel, initramfs(args.package), args.model, args.memory, args.append,
                 args.seed, args.cpus)


class _Boot:
    """Counts what a kernel prints while it starts.

    Attributes
    ----------
    printed : int
        Bytes.
    """

    def __init__(self) -> None:
        self.printed = 0

    def __call__(self, data: bytes) -> None:
        """Take bytes of the console."""
        self.printed += len(data)


def _terminal(data: bytes) -> None:
    """Key by key, as a terminal echoes."""
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def _show(data: bytes) -> None:
    sys.stderr.write(data.decode("latin-1"))


def _failed(machine: Machine, ending: Ending, console: Console, guest: Guest) -> int:
    from pylbr.embed.report import report
    from pylbr.linux.kallsyms import named
    from pylbr.linux.kernel import load
    from pylbr.printable import printable

    sys.stdout.flush()
    machine.image = named(load(guest.kernel).image)
    print(report(machine, ending, console.fault), file=sys.stderr)
    print("last lines of the console:", file=sys.stderr)
    for line in console.lines:
        print(printable(line), file=sys.stderr)
    return _CODES[ending.kind]
