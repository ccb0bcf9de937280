"""A run of the suite as Markdown and JSON."""

from __future__ import annotations

from dataclasses import asdict
from textwrap import shorten
from typing import Any, Final

from pylbr.bench.contest import Measured, RowResult
from pylbr.bench.machine import Machine
from pylbr.bench.statistics import Spread
from pylbr.bench.suite import Result
from pylbr.tables import Table

__all__ = ["as_json", "floor_lines", "markdown", "quantity", "short", "table"]

_PREFIXES: Final = (("G", 1e9), ("M", 1e6), ("k", 1e3))
FORMAT: Final = 1
_LONGEST: Final = 120  # characters of a reason in a table; the JSON has all


def short(value: float) -> str:
    """Three digits, or more of a whole number: ``0.382``, ``2,680``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def quantity(value: float, unit: str, kind: str) -> str:
    """A rate or a size with its unit: ``1.23 G branches/s``."""
    per = "/s" if kind == "rate" else ""
    for prefix, size in _PREFIXES:
        if value >= size:
            return f"{value / size:.3g} {prefix} {unit}{per}"
    return f"{value:.3g} {unit}{per}"


def _with_spread(one: Measured, unit: str, kind: str) -> str:
    found = one.spread
    if found is None:
        return f"not measured: {shorten(one.why, _LONGEST, placeholder=' ...')}"
    text = quantity(found.median, unit, kind)
    return text if found.number == 1 else f"{text} {_around(found)}"


def _around(found: Spread) -> str:
    """Quartiles as distances from the median, in percent."""
    return (f"({100 * (found.low / found.median - 1):+.0f} "
            f"{100 * (found.high / found.median - 1):+.0f} %)")


def _ratio(one: Measured) -> str:
    if one.ratio is None:
        return ""
    low, high = short(one.ratio.low), short(one.ratio.high)
    between = f" ({low} to {high})" if low != high else ""
    return f"{short(one.ratio.median)}{between}"


def table(rows: list[RowResult]) -> Table:
    """One line per alternative."""
    lines = []
    for result in rows:
        ours, *others = result.contenders
        first = [result.row.name, result.row.title, _with_spread(ours, result.unit, result.kind)]
        beside = [[other.name, _with_spread(other, result.unit, result.kind), _ratio(other)]
                  for other in others]
        for cells in beside or [["", "", ""]]:
            lines.append([*first, *cells])
            first = ["", "", ""]
    return Table(lines, ("row", "what", "pylbr", "beside it", "measured", "pylbr over it"),
                 markdown=True)


def floor_lines(machine: Machine) -> list[str]:
    """The machine in words."""
    clock = f"{machine.clock:.2f} GHz" if machine.clock else "clock not measured"
    return [
        f"{machine.processor}, {machine.processors} processors, {machine.memory:.0f} GB; "
        f"{machine.system}; {machine.python}; load {machine.load:.1f} at the start",
        f"floor: {clock}; memcpy {machine.copy:.1f} GB/s of 128 MB, {machine.copy_cached:.1f} GB/s "
        "of 32 KB",
    ]


def markdown(result: Result) -> str:
    """The whole report."""
    first, second = floor_lines(result.machine)
    return "\n".join([
        f"# pylbr {result.version}, {result.began}", "",
        f"{first}.", "", f"{second[0].upper()}{second[1:]}.", "",
        "Medians, with quartiles as distances from them; ratios are of the same rounds. Rates: "
        "more is better; sizes: less. A slow alternative is measured once.", "",
        str(table(result.rows)), "",
        f"{'Quick' if result.quick else 'Full'} form, {result.seconds:.0f} seconds: "
        f"`pylbr bench{'' if result.quick else ' --full'}`.", ""])


def as_json(result: Result) -> dict[str, Any]:
    """All of it, every round's value included."""
    def one(measured: Measured) -> dict[str, Any]:
        found: dict[str, Any] = {"name": measured.name, "values": list(measured.values)}
        if measured.why:
            found["not_measured"] = measured.why
        for name in ("spread", "ratio"):
            value = getattr(measured, name)
            if value is not None:
                found[name] = asdict(value)
        return found

    return {
        "format": FORMAT, "pylbr": result.version, "began": result.began, "quick": result.quick,
        "seconds": result.seconds, "machine": asdict(result.machine),
        "rows": [{"name": row.row.name, "title": row.row.title, "unit": row.unit,
                  "kind": row.kind, "seconds": row.seconds,
                  "contenders": [one(measured) for measured in row.contenders]}
                 for row in result.rows],
    }
