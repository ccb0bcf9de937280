"""``pylbr run``: a kernel image on a machine with LBRs."""

from __future__ import annotations

import argparse
import sys

from pylbr.embed.image import load
from pylbr.embed.machine import MIB, Machine
from pylbr.embed.report import report
from pylbr.errors import CommandError

HELP = "run a bare-metal kernel image on a machine with LBRs"

EPILOG = """
The image is an ELF executable, with a multiboot header (started in 32-bit protected mode) or
without one (started in long mode, 4 GiB mapped one to one).  Its serial port (3F8h) is standard
output; what it writes to port F4h is the exit code, 0 for passed.

exit codes: the guest's; 0 also after HLT with interrupts off; 124 the limit was reached; 134 a
triple fault or something this machine cannot go on from, with a report on standard error.

examples:
  pylbr run kernel.elf
  pylbr run --model alder-lake-p --limit 1000000 kernel.elf
"""
_CODES = {"limit": 124, "shutdown": 134, "stuck": 134}


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("guest", metavar="GUEST.elf", help="kernel image")
    parser.add_argument(
        "-m", "--model", default="sapphire-rapids", help="processor (default: %(default)s)")
    parser.add_argument(
        "--memory", type=int, default=64, metavar="MIB", help="memory (default: %(default)s)")
    parser.add_argument(
        "--limit", type=int, default=1_000_000_000, metavar="N",
        help="stop after N instructions (default: %(default)s)")
    parser.add_argument(
        "--report", action="store_true", help="print registers and LBRs however the run ends")


def run(args: argparse.Namespace) -> int:
    """Run the image; return the guest's exit code."""
    if args.limit < 1:
        raise CommandError(f"--limit: must be at least 1, not {args.limit}")
    image = load(args.guest)

    def console(data: bytes) -> None:
        sys.stdout.write(data.decode("latin-1"))
        if data == b"\n":
            sys.stdout.flush()

    machine = Machine(args.model, memory=args.memory * MIB, console=console)
    machine.load(image)
    ending = machine.run(args.limit)
    sys.stdout.flush()
    if args.report or ending.kind in _CODES:
        print(report(machine, ending), file=sys.stderr)
    elif ending.kind != "exit":
        print(f"pylbr run: {ending.reason}", file=sys.stderr)
    return _CODES.get(ending.kind, ending.code & 0xFF)
