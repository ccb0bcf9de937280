"""``pylbr msr``: the registers of a model, their fields, values taken apart."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from pylbr.arch import FEATURE_SETS, MODELS, CpuModel, find, model, registers
from pylbr.arch.describe import decode, fields_of, reference
from pylbr.arch.models import DEFAULT_MODEL
from pylbr.cli.cpu_option import add_cpu
from pylbr.cli.pager import add_terminal_options
from pylbr.cpu import Processor
from pylbr.errors import CommandError, GeneralProtection
from pylbr.files.output import AtomicFile
from pylbr.tables import Table, print_table

__all__ = ["configure", "run"]

HELP = "show the registers of a processor, their fields, and what a value means"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("register", nargs="?",
                        help="name or number (0x1d9 or 1D9H); all if left out")
    parser.add_argument("value", nargs="?", help="a value to take apart")
    add_cpu(parser, f"processor: {', '.join((*MODELS, *FEATURE_SETS))} (default: %(default)s)",
            DEFAULT_MODEL)
    parser.add_argument("--reference", action="store_true",
                        help="the reference of all registers, as Markdown")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("-o", "--output", metavar="FILE", help="with --reference: write it there")
    add_terminal_options(parser)


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
        found: Any = [{"msr": r.index, "access": r.row.access.value, "reset": r.reset,
                       "name": r.name} for r in registers(chosen).values()]
        return _print_json(found) if args.json else _print_all(found)
    register = find(chosen, args.register)
    found = {"model": chosen.name, "name": register.name, "msr": register.index,
             "access": register.row.access.value, "reset": register.reset,
             "source": register.row.source, "rule": register.row.rule,
             "reserved": register.reserved_bits}
    if args.value is None:
        found["fields"] = [{"bits": field.bits, "name": field.name, "meaning": field.meaning}
                           for field in fields_of(register, chosen)]
    else:
        value = _number(args.value)
        found["value"] = value
        found["fields"] = [{"bits": field.bits, "name": field.name, "value": part}
                           for field, part in decode(register, chosen, value)]
        found["fault"] = _fault(chosen, register.index, value)
    if args.json:
        _print_json(found)
    else:
        _print_one(found)
    return int(bool(found.get("fault")))


def _number(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        raise CommandError(f"value {text!r} is no number; give 0x... or decimal") from None
    if not 0 <= value < 1 << 64:
        raise CommandError(f"value {text} does not fit in 64 bits")
    return value


def _fault(chosen: CpuModel, index: int, value: int) -> str:
    """Why a WRMSR of the value faults; empty if it does not."""
    try:
        Processor(chosen).wrmsr(index, value)
    except GeneralProtection as fault:
        bits = f"bits {fault.bits:#x}: " if fault.bits else ""
        return f"{bits}{fault.rule}"
    return ""


def _print_json(what: object) -> int:
    json.dump(what, sys.stdout, indent=1)
    print()
    return 0


def _print_all(found: list[dict[str, Any]]) -> int:
    print_table(Table([(f"{r['msr']:X}H", r["access"], f"{r['reset']:x}", r["name"])
                       for r in found], right=frozenset({0, 2})))
    return 0


def _print_one(found: dict[str, Any]) -> None:
    print(f"{found['name']} ({found['msr']:X}H) on {found['model']}: {found['access']}, "
          f"RESET {found['reset']:#x}; {found['source']}")
    if found["rule"]:
        print(f"  {found['rule']}")
    print_table(Table(
        [(field["bits"], field["name"],
          f"{field['value']:#x}" if "value" in field else field["meaning"])
         for field in found["fields"]], right=frozenset({0}), indent=2))
    if "value" not in found:
        print(f"  reserved: {found['reserved']:#018x}")
    elif found["fault"]:
        print(f"  a WRMSR faults: {found['fault']}")
