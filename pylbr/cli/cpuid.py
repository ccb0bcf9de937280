"""``pylbr cpuid``: what CPUID answers on a model."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from pylbr.arch import CPUID_FIELDS, FEATURE_SETS, MODELS, CpuModel, cpuid, leaves, model
from pylbr.arch.models import DEFAULT_MODEL
from pylbr.cli.cpu_option import add_cpu
from pylbr.cli.pager import add_terminal_options
from pylbr.errors import CommandError
from pylbr.tables import Table, print_table

__all__ = ["configure", "run"]

HELP = "show what CPUID answers on a processor"
REGISTERS = ("eax", "ebx", "ecx", "edx")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("leaf", nargs="?", help="EAX, such as 0x1c; all if left out")
    parser.add_argument("subleaf", nargs="?", default="0", help="ECX")
    add_cpu(parser, "processor (default: %(default)s); --models lists them", DEFAULT_MODEL)
    parser.add_argument("--models", action="store_true", help="list the processors")
    parser.add_argument("--raw", action="store_true", help="register values only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_terminal_options(parser)


def _number(text: str, name: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 32:
        raise CommandError(f"{name} {text!r} is no 32-bit number; give 0x... or decimal")
    return value


def _leaf(chosen: CpuModel, leaf: int, subleaf: int, raw: bool) -> dict[str, Any]:
    """The answer, and unless `raw` its fields."""
    out = dict(zip(REGISTERS, cpuid(chosen, leaf, subleaf, chosen.xcr0, chosen.xss), strict=True))
    found: dict[str, Any] = {"leaf": leaf, "subleaf": subleaf, **out}
    if not raw:
        found["fields"] = [
            {"register": f.register, "bits": f.bits, "name": f.name,
             "value": out[f.register] >> f.lo & ((1 << (f.hi - f.lo + 1)) - 1)}
            for f in CPUID_FIELDS
            if f.leaf == leaf and f.subleaf in (None, subleaf) and f.offered(chosen)]
    return found


def _print_leaf(found: dict[str, Any]) -> None:
    values = " ".join(f"{r}={found[r]:08x}" for r in REGISTERS)
    print(f"{found['leaf']:#010x} {found['subleaf']:#x}: {values}")
    print_table(Table([(f"{f['register']}[{f['bits']}]", f"{f['value']:#x}", f["name"])
                       for f in found.get("fields", ())], right=frozenset({1}), indent=2))


def _models() -> list[dict[str, Any]]:
    return [{"name": one.name,
             "lbr": "architectural" if one.arch else "legacy" if one.legacy else "AMD LbrExtV2",
             "depth": one.lbr.max_depth, "pmu_version": one.pmu.version,
             "lbr_format": one.lbr_format} for one in (*MODELS.values(), *FEATURE_SETS.values())]


def run(args: argparse.Namespace) -> int:
    """Print."""
    if args.models:
        rows = _models()
        if args.json:
            _print_json(rows)
        else:
            print_table(Table([(row["name"], row["lbr"], f"depth {row['depth']:2}",
                                f"PMU v{row['pmu_version']}", f"LBR_FMT {row['lbr_format']:#x}")
                               for row in rows]))
        return 0
    chosen = model(args.model)
    wanted: list[tuple[int, int]] = (
        [(_number(args.leaf, "leaf"), _number(args.subleaf, "subleaf"))] if args.leaf is not None
        else [(leaf, subleaf or 0) for leaf, subleaf in leaves(chosen)])
    found = [_leaf(chosen, *each, args.raw) for each in wanted]
    if args.json:
        _print_json({"model": chosen.name, "leaves": found})
    else:
        for each in found:
            _print_leaf(each)
    return 0


def _print_json(what: object) -> None:
    json.dump(what, sys.stdout, indent=1)
    print()
