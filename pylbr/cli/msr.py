"""``pylbr msr``: the registers of a model, their fields, values taken apart."""

from __future__ import annotations

import argparse

from pylbr.arch import MODELS, find, model, registers
from pylbr.arch.describe import decode, fields_of, reference
from pylbr.cpu import Processor
from pylbr.errors import CommandError, GeneralProtection
from pylbr.files.output import AtomicFile
from pylbr.tables import Table, print_table

__all__ = ["configure", "run"]

HELP = "show the registers of a processor, their fields, and what a value means"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("register", nargs="?", help="name or number; all if left out")
    parser.add_argument("value", nargs="?", help="a value to take apart")
    parser.add_argument("-m", "--cpu", "--model", dest="model", metavar="NAME",
                        default="sapphire-rapids",
                        help=f"processor: {', '.join(MODELS)} (default: %(default)s)")
    parser.add_argument("--reference", action="store_true",
                        help="the reference of all registers, as Markdown")
    parser.add_argument("-o", "--output", metavar="FILE", help="with --reference: write it there")


def run(args: argparse.Namespace) -> int:
    """Print; 1 if the value given would fault."""
    if args.reference:
        if args.output:
            with AtomicFile(args.output) as output:
                output.file.write(reference().encode())
        else:
            print(reference(), end="")
        return 0
    chosen = model(args.model)
    if args.register is None:
        print_table(Table([
            (f"{r.index:X}H", r.row.access.value, f"{r.reset:x}", r.name)
            for r in registers(chosen).values()], right=frozenset({0, 2})))
        return 0
    register = find(chosen, args.register)
    print(f"{register.name} ({register.index:X}H) on {chosen.name}: {register.row.access.value}, "
          f"RESET {register.reset:#x}; {register.row.source}")
    if register.row.rule:
        print(f"  {register.row.rule}")
    if args.value is None:
        print_table(Table([(field.bits, field.name, field.meaning)
                           for field in fields_of(register, chosen)], right=frozenset({0}),
                          indent=2))
        print(f"  reserved: {register.reserved_bits:#018x}")
        return 0
    try:
        value = int(args.value, 0)
    except ValueError:
        raise CommandError(f"value {args.value!r} is no number; give 0x... or decimal") from None
    if not 0 <= value < 1 << 64:
        raise CommandError(f"value {args.value} does not fit in 64 bits")
    print_table(Table([(field.bits, field.name, f"{part:#x}")
                       for field, part in decode(register, chosen, value)], right=frozenset({0}),
                      indent=2))
    try:
        Processor(chosen).wrmsr(register.index, value)
    except GeneralProtection as fault:
        bits = f"bits {fault.bits:#x}: " if fault.bits else ""
        print(f"  a WRMSR faults: {bits}{fault.rule}")
        return 1
    return 0
