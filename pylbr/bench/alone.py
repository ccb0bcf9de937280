"""Ours of one row, without what is beside it: what a comparison of two revisions repeats."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from pylbr.bench.contest import Contest, Row, Setting, measure_row
from pylbr.bench.suite import chosen
from pylbr.errors import LbrError

__all__ = ["values_of"]


def values_of(name: str, quick: bool) -> dict[str, Any]:
    """``{"values": [...], "unit": ..., "kind": ...}``, or ``{"why": ...}``."""
    rows = [row for row in chosen() if row.name == name]
    if not rows:
        return {"why": "; ".join([f"this pylbr has no row {name}", *_lacking()])}
    (row,) = rows

    def prepare(setting: Setting) -> Contest:
        return replace(row.prepare(setting), beside={})

    with tempfile.TemporaryDirectory(prefix="pylbr-bench-") as place:
        try:
            found = measure_row(Row(row.name, row.title, prepare), Setting(Path(place), quick))
        except Exception as error:  # noqa: BLE001  of another revision anything may be missing
            return {"why": f"{type(error).__name__}: {error}"}
    ours = found.contenders[0]
    if ours.why:
        return {"why": ours.why}
    return {"values": list(ours.values), "unit": found.unit, "kind": found.kind}


def _lacking() -> list[str]:
    """Why modules of rows cannot be imported: rows with the names of those stand for them."""
    found = []
    for row in chosen():
        if "." not in row.name:
            try:
                row.prepare(Setting(Path()))
            except LbrError as error:
                found.append(f"{row.name}: {error}")
    return found
