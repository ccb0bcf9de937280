"""All rows of the suite, and running some of them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from subprocess import SubprocessError
from typing import Final

import pylbr
from pylbr.bench.contest import Contest, Measured, Row, RowResult, Setting, measure_row
from pylbr.bench.machine import Machine, look
from pylbr.errors import CommandError, LbrError, UnsupportedFeature
from pylbr.extras import missing

__all__ = ["Result", "chosen", "run", "run_row"]

_MODULES: Final = ("rows_core", "rows_files", "rows_profile", "rows_record", "rows_guest")


@dataclass(frozen=True)
class Result:
    """One run of the suite.

    Attributes
    ----------
    version : str
        Of pylbr.
    began : str
        Date and time, ISO 8601, UTC.
    quick : bool
    machine : Machine
    rows : list of RowResult
    seconds : float
    """

    version: str
    began: str
    quick: bool
    machine: Machine
    rows: list[RowResult]
    seconds: float


def _rows() -> Iterator[Row]:
    for name in _MODULES:
        try:
            yield from import_module(f"pylbr.bench.{name}").ROWS
        except ImportError as error:  # an older pylbr, in a comparison, lacks what they measure
            yield Row(name, name, _lacking(error))


def _lacking(error: ImportError) -> Callable[[Setting], Contest]:
    text = missing(error) if isinstance(error, ModuleNotFoundError) else ""

    def prepare(setting: Setting) -> Contest:
        raise UnsupportedFeature(text or str(error))
    return prepare


def chosen(patterns: Sequence[str] = ()) -> list[Row]:
    """Rows whose name, or area, one of the patterns matches; all without patterns.

    Raises
    ------
    CommandError
        A pattern matches none.
    """
    rows = list(_rows())
    for pattern in patterns:
        if not any(_matches(row, pattern) for row in rows):
            raise CommandError(f"no row is named {pattern}; rows: "
                               + ", ".join(row.name for row in rows))
    return [row for row in rows if not patterns or any(_matches(row, p) for p in patterns)]


def _matches(row: Row, pattern: str) -> bool:
    return fnmatchcase(row.name, pattern) or row.area == pattern


def run_row(row: Row, quick: bool) -> RowResult:
    """Measure a row in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="pylbr-bench-") as place:
        try:
            return measure_row(row, Setting(Path(place), quick))
        except ModuleNotFoundError as error:
            what = missing(error)
            if not what:
                raise
        except (LbrError, OSError, SubprocessError) as error:
            what = str(error)
        return RowResult(row, "", "rate", (Measured("pylbr", why=what),), 0.0)


def run(rows: Sequence[Row], quick: bool,
        update: Callable[[RowResult], object] = lambda row: None) -> Result:
    """Measure rows, one after the other."""
    begin, machine, results = time.perf_counter(), look(), []
    began = datetime.now(UTC).isoformat(timespec="seconds")
    for row in rows:
        results.append(run_row(row, quick))
        update(results[-1])
    return Result(pylbr.__version__, began, quick, machine, results, time.perf_counter() - begin)
