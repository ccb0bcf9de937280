"""``pylbr cpuid``: what CPUID answers on a model."""

from __future__ import annotations

import argparse

from pylbr.arch import CPUID_FIELDS, MODELS, CpuModel, cpuid, leaves, model
from pylbr.errors import CommandError
from pylbr.tables import Table, print_table

__all__ = ["configure", "run"]

HELP = "show what CPUID answers on a processor"
REGISTERS = ("eax", "ebx", "ecx", "edx")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("leaf", nargs="?", help="EAX, such as 0x1c; all if left out")
    parser.add_argument("subleaf", nargs="?", default="0", help="ECX")
    parser.add_argument("-m", "--cpu", "--model", dest="model", metavar="NAME",
                        default="sapphire-rapids",
                        help="processor (default: %(default)s)")
    parser.add_argument("--models", action="store_true", help="list the processors")
    parser.add_argument("--raw", action="store_true", help="register values only")


def _number(text: str, name: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 32:
        raise CommandError(f"{name} {text!r} is no 32-bit number; give 0x... or decimal")
    return value


def _print_leaf(chosen: CpuModel, leaf: int, subleaf: int, raw: bool) -> None:
    out = dict(zip(REGISTERS, cpuid(chosen, leaf, subleaf, chosen.xcr0, chosen.xss), strict=True))
    print(f"{leaf:#010x} {subleaf:#x}: " + " ".join(f"{r}={out[r]:08x}" for r in REGISTERS))
    if raw:
        return
    rows = []
    for f in CPUID_FIELDS:
        if f.leaf == leaf and f.subleaf in (None, subleaf) and f.offered(chosen):
            value = out[f.register] >> f.lo & ((1 << (f.hi - f.lo + 1)) - 1)
            rows.append((f"{f.register}[{f.bits}]", f"{value:#x}", f.name))
    print_table(Table(rows, right=frozenset({1}), indent=2))


def run(args: argparse.Namespace) -> int:
    """Print."""
    if args.models:
        print_table(Table([
            (one.name, "architectural" if one.arch else "legacy" if one.legacy else "AMD LbrExtV2",
             f"depth {one.lbr.max_depth:2}", f"PMU v{one.pmu.version}",
             f"LBR_FMT {one.lbr_format:#x}")
            for one in MODELS.values()]))
        return 0
    chosen = model(args.model)
    if args.leaf is not None:
        _print_leaf(chosen, _number(args.leaf, "leaf"), _number(args.subleaf, "subleaf"), args.raw)
        return 0
    for leaf, subleaf in leaves(chosen):
        _print_leaf(chosen, leaf, subleaf or 0, args.raw)
    return 0
