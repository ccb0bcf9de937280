"""``pylbr run``: a kernel image on a machine with LBRs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pylbr.arch.models import DEFAULT_MODEL
from pylbr.cli.cpu_option import add_cpu
from pylbr.cli.progress import Screen, drawn_meanwhile, progress
from pylbr.errors import CommandError
from pylbr.extras import needed
from pylbr.trace import Metadata
from pylbr.trace.output import trace_writer

if TYPE_CHECKING:
    from pylbr.embed.machine import Ending, Machine
    from pylbr.linux.console import Console

HELP = "run a bare-metal kernel image on a machine with LBRs"

EPILOG = """
The image is an ELF executable, with a multiboot header (started in 32-bit protected mode) or
without one (started in long mode, 4 GiB mapped one to one).  Its serial port (3F8h) is standard
output; what it writes to port F4h is the exit code, 0 for passed.  A machine that --save wrote
continues where it was.

--kernel boots a Linux kernel of x86-64, a bzImage or a vmlinux, by the 64-bit boot protocol: with
--initrd, and --append as its command line (console=ttyS0 is the serial port).  pylbr linux runs a
command in such a guest.

With --contention the guest shares the LBRs with a host, under the script's policy: it runs as a
vCPU, and at the script's points perf opens and closes events, samples, tasks come and go.  One
line on standard error reports at the end what each side saw.  A script, one line a point:
  policy lease +no-wipe             one of pylbr arbitrate's, with flaws of pylbr verify
  holds P4 P20                      exit status 1 if one of these is broken on the host's side
  at 5000 open pinned               when 5000 instructions have been executed
  every 400 sample                  at every 400th
  port 1 close                      when the guest writes 1 to port F5h
  port 1 open before vm-entry       when that micro-step comes next
What happens: exit [pmi], open [pinned] [exclude-guest] [user] [task] [call-stack] [pebs], close,
enable, rotate, sample [N], overflow, pebs, switch [N | host | other], branches N, migrate, vcpu
EVENT, other INSTRUCTION.

examples:
  pylbr run kernel.elf
  pylbr run --cpu alder-lake-p --limit 1000000 kernel.elf
  pylbr run --trace kernel.arrow kernel.elf          every branch, for pylbr inspect and replay
  pylbr run --contention script.txt kernel.elf
  pylbr run --kernel /boot/vmlinuz --initrd root.cpio --append console=ttyS0 --memory 512
  pylbr run --pause 500000 --save middle.vm kernel.elf && pylbr run middle.vm
"""
_CODES = {"limit": 124, "shutdown": 134, "stuck": 134, "panic": 134}


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("guest", metavar="GUEST.elf", nargs="?", help="kernel image")
    parser.add_argument("--kernel", metavar="FILE", help="Linux kernel to boot instead")
    parser.add_argument("--initrd", metavar="FILE", help="its initial file system")
    parser.add_argument(
        "--own-decompressor", action="store_true",
        help="let a bzImage unpack itself in the guest, as boot loaders do")
    add_cpu(parser, f"processor (default: {DEFAULT_MODEL}, of a saved machine its own)")
    parser.add_argument(
        "--memory", type=int, metavar="MIB", help="memory (default: 64, of --kernel 512)")
    parser.add_argument(
        "--cpus", type=int, default=1, metavar="N",
        help="processors, 1 to 4, of --kernel (default: %(default)s)")
    parser.add_argument(
        "--limit", type=int, default=1_000_000_000, metavar="N",
        help="stop after N instructions, or as long asleep (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="stop after S seconds, too")
    parser.add_argument(
        "--seed", type=int, metavar="N",
        help="vary what the guest's clocks show when it starts, and with it its random numbers")
    parser.add_argument(
        "--append", default="", metavar="TEXT",
        help="command line, for multiboot images and --kernel")
    parser.add_argument(
        "--module", metavar="FILE", action="append", default=[],
        help="boot module, for multiboot images; may be given again")
    parser.add_argument(
        "--trace", metavar="FILE", help="write all branches, .lbrt, .arrow or .parquet")
    parser.add_argument(
        "--contention", metavar="FILE", help="share the LBRs with a host, as in this script")
    parser.add_argument(
        "--policy", metavar="FILE", action="append", default=[],
        help="NAME.py or NAME.pyx with a policy of one's own, which the script names")
    parser.add_argument(
        "--pause", type=int, metavar="N", help="stop after N instructions, for --save")
    parser.add_argument("--save", metavar="FILE", help="write the paused machine")
    parser.add_argument(
        "--report", action="store_true", help="print registers and LBRs however the run ends")


def run(args: argparse.Namespace) -> int:
    """Run the image; return the guest's exit code."""
    for name in ("limit", "pause"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise CommandError(f"--{name}: must be at least 1, not {value}")
    if args.seconds is not None and not args.seconds > 0:
        raise CommandError(f"--seconds: must be more than 0, not {args.seconds}")
    if (args.guest is None) == (args.kernel is None):
        raise CommandError("one image: GUEST.elf, or --kernel FILE")
    if args.kernel is None and (args.initrd or args.own_decompressor):
        raise CommandError("--initrd, --own-decompressor: they belong to --kernel")
    if (args.pause is None) != (args.save is None):
        raise CommandError("--pause and --save belong together")
    if not 1 <= args.cpus <= 4:
        raise CommandError(f"--cpus: must be 1 to 4, not {args.cpus}")
    if args.cpus != 1:
        if args.kernel is None:
            raise CommandError("--cpus: it belongs to --kernel")
        alone = [f"--{name}" for name in ("trace", "save") if getattr(args, name)]
        if alone:
            raise CommandError(f"{alone[0]}: of a machine with one processor only, not --cpus "
                               f"{args.cpus}")
    needed("unicorn")
    from pylbr.embed.savefile import is_saved
    from pylbr.embed.time_limit import time_limit
    from pylbr.x86.held_signals import signals_held

    screen = Screen(progress(args.pause, "instructions", args.guest or args.kernel))
    console = None
    if args.kernel:
        from pylbr.linux.console import Console

        console = Console(screen)
    with ExitStack() as stack:
        trace = None
        if args.trace:
            saved = args.guest and is_saved(args.guest)
            model = args.model or ("" if saved else DEFAULT_MODEL)
            metadata = Metadata(
                model=model, provenance={"guest": args.guest or args.kernel})
            writer = trace_writer(args.trace, metadata)
            stack.enter_context(writer)
            trace = writer.write
        with signals_held():  # the engine's set-up and its finalizers ignore exceptions
            machine = _machine(args, trace, console, screen)
        machine.pause_at = args.pause
        with screen.bar, drawn_meanwhile(screen.bar, lambda: machine.clock), \
                time_limit(machine, args.seconds):
            ending = machine.run(args.limit)
    sys.stdout.flush()
    return _conclude(args, machine, ending, console)


def _machine(
    args: argparse.Namespace, trace: Callable[..., Any] | None, console: Console | None,
    screen: Screen,
) -> Machine:
    from pylbr.embed.image import load
    from pylbr.embed.machine import MIB, Machine
    from pylbr.embed.savefile import is_saved, restore

    contention = None
    if args.contention:
        from pylbr.arbitration import is_file, register_file
        from pylbr.embed.contention import Contention, read_script
        from pylbr.verify.mutants import mutant

        for path in args.policy:
            if not is_file(path):
                raise CommandError(f"--policy {path}: name a file, NAME.py or NAME.pyx; the script "
                                   "names its policy")
            register_file(path)
        contention = Contention(read_script(args.contention, mutant))
    elif args.policy:
        raise CommandError("--policy: there is no --contention, whose script would name it")
    if console is not None:
        return _linux(args, trace, contention, console)
    if is_saved(args.guest):
        if args.append or args.module:
            raise CommandError("--append, --module: a saved machine has begun long ago")
        if args.seed is not None:
            raise CommandError("--seed: a saved machine keeps its clocks")
        return restore(args.guest, console=screen, trace=trace, contention=contention,
                       model=args.model)
    image = load(args.guest)
    model = args.model or DEFAULT_MODEL
    machine = Machine(model, memory=(args.memory or 64) * MIB, console=screen,
                      trace=trace, contention=contention, seed=args.seed)
    machine.load(image, args.append, [Path(path).read_bytes() for path in args.module])
    return machine


def _linux(
    args: argparse.Namespace, trace: Callable[..., Any] | None, contention: Any, console: Console
) -> Machine:
    from pylbr.embed.machine import MIB, Machine
    from pylbr.embed.multiprocessor import Multiprocessor
    from pylbr.linux.boot import boot
    from pylbr.linux.kernel import load

    if args.module:
        raise CommandError("--module: a Linux kernel has --initrd")
    kernel = load(args.kernel, own_decompressor=args.own_decompressor)
    initrd = Path(args.initrd).read_bytes() if args.initrd else b""
    model, memory = args.model or DEFAULT_MODEL, (args.memory or 512) * MIB
    machine: Machine
    if args.cpus == 1:
        machine = Machine(model, memory=memory, console=console, trace=trace,
                          contention=contention, seed=args.seed)
    else:
        machine = Multiprocessor(model, processors=args.cpus, memory=memory, console=console,
                                 contention=contention, seed=args.seed)
    boot(machine, kernel, initrd, args.append)
    console.watch(machine)
    if "console=" not in args.append and "earlyprintk" not in args.append:
        print("pylbr run: the kernel will print nothing: no console=ttyS0 in --append",
              file=sys.stderr)
    return machine


def _conclude(
    args: argparse.Namespace, machine: Machine, ending: Ending, console: Console | None
) -> int:
    from pylbr.embed.report import report
    from pylbr.embed.savefile import save

    if ending.kind == "pause":
        save(machine, args.save)
    elif args.save:
        raise CommandError(f"nothing was saved: {ending.reason}", 1)
    if args.report or ending.kind in _CODES:
        if console and machine.image and not args.own_decompressor:  # which may have moved it
            from pylbr.linux.kallsyms import named

            machine.image = named(machine.image)
        print(report(machine, ending, console.fault if console else None), file=sys.stderr)
    elif ending.kind != "exit":
        print(f"pylbr run: {ending.reason}", file=sys.stderr)
    for number, cpu in enumerate(machine.cpus):
        if cpu.contention:
            name = f"processor {number}: " if len(machine.cpus) > 1 else ""
            print(name + cpu.contention.summary(), file=sys.stderr)
    asked = {name for cpu in machine.cpus if cpu.contention for name in cpu.contention.script.holds}
    if asked:
        from pylbr.verify.run import legend

        print(*legend(asked), sep="\n", file=sys.stderr)
    unmet = any(cpu.contention and cpu.contention.unmet for cpu in machine.cpus)
    return _CODES.get(ending.kind, min(ending.code, 255) or int(unmet))
