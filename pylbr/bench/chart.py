"""A run of the suite as a picture: ours over each alternative, in SVG."""

from __future__ import annotations

import math
from html import escape
from typing import Final

from pylbr.bench.contest import Measured, RowResult
from pylbr.bench.report import short
from pylbr.bench.suite import Result

__all__ = ["svg"]

_LINE, _LEFT, _WIDTH, _RIGHT, _TOP = 22, 430, 420, 90, 54
_BETTER, _WORSE, _INK, _GRID = "#2f6f9f", "#c7772e", "#222222", "#d8d8d8"
_FONT: Final = 'font-family="sans-serif" font-size="12"'


def svg(result: Result) -> str:
    """Bars from 1 on a logarithmic scale; to the right is better, for sizes too."""
    bars = [(row, other) for row in result.rows for other in row.contenders[1:]
            if other.ratio is not None]
    values = [_better(row, value) for row, other in bars if other.ratio is not None
              for value in (other.ratio.low, other.ratio.high)] or [1.0]
    first = min(-1, math.floor(math.log10(min(values))))
    last = max(1, math.ceil(math.log10(max(values))))

    def x(value: float) -> float:
        share = (math.log10(value) - first) / (last - first)
        return _LEFT + _WIDTH * min(1.0, max(0.0, share))

    bottom = _TOP + _LINE * len(bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + _RIGHT}" '
        f'height="{bottom + 30}" {_FONT} fill="{_INK}">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="20" font-size="14">pylbr {escape(result.version)} beside alternatives, '
        f"{escape(result.machine.processor)}</text>",
        '<text x="10" y="38">how many times better than what is named, quartiles; left of 1: '
        "worse</text>"]
    for exponent in range(first, last + 1):
        at = x(10.0**exponent)
        color, width = (_INK, 1.2) if exponent == 0 else (_GRID, 1)
        parts.append(f'<line x1="{at:.1f}" y1="{_TOP - 6}" x2="{at:.1f}" y2="{bottom}" '
                     f'stroke="{color}" stroke-width="{width}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">'
                     f"{10.0**exponent:g}</text>")
    for number, (row, other) in enumerate(bars):
        parts += _bar(row, other, _TOP + _LINE * number, x)
    return "\n".join([*parts, "</svg>", ""])


def _better(row: RowResult, value: float) -> float:
    """How many times better a ratio is: of sizes less is."""
    return max(1e-9, 1 / value if row.kind == "size" else value)


def _bar(row: RowResult, other: Measured, y: float, x: object) -> list[str]:
    assert callable(x) and other.ratio is not None
    middle, one, two = (_better(row, value) for value in (
        other.ratio.median, other.ratio.low, other.ratio.high))
    start, end = sorted((x(1.0), x(middle)))
    color, center = _BETTER if middle >= 1 else _WORSE, y + _LINE / 2
    return [
        f'<text x="{_LEFT - 10}" y="{center + 4}" text-anchor="end">{escape(row.row.name)}'
        f" / {escape(other.name)}</text>",
        f'<rect x="{start:.1f}" y="{y + 4}" width="{max(1.0, end - start):.1f}" '
        f'height="{_LINE - 8}" fill="{color}"/>',
        f'<line x1="{x(one):.1f}" y1="{center}" x2="{x(two):.1f}" y2="{center}" '
        f'stroke="{_INK}" stroke-width="2"/>',
        f'<text x="{max(end, x(one), x(two)) + 6:.1f}" y="{center + 4}">{short(middle)}</text>']
