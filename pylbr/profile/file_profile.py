"""The profile of a file, and the tables that are shown of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from html import escape
from typing import TYPE_CHECKING, Any, Final

from pylbr.errors import CommandError
from pylbr.extras import Extra, needed
from pylbr.perf.stacks import Record, Samples, Stacks, StacksMetadata, with_branches
from pylbr.profile import report, report_text
from pylbr.profile.aggregate import Profile, collect
from pylbr.profile.history import Paths
from pylbr.profile.whole import collect_trace
from pylbr.trace import Trace

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
else:
    pa = Extra("pyarrow")

__all__ = ["FileProfile", "count_file"]

_SHOWN: Final = 10
_ALL: Final = 1 << 62
_REALS: Final = {"share", "mispredict_rate", "mean_cycles"}
_NUMBERS: Final = {"count", "cycles", "branches", "mispredicted", "entered", "samples", "targets",
                   "pid", "instructions"}
_STEP: Final = ("from", "from_symbol", "to", "to_symbol")


@dataclass(eq=False, repr=False)
class FileProfile(Profile):
    """The profile of one file, with the tables that ``pylbr report`` shows.

    Attributes
    ----------
    path : str
    paths : Paths or None
        The branch history, where it was asked for.
    """

    path: str = ""
    paths: Paths | None = None

    def rows(self, view: str = "edges", limit: int | None = None) -> list[dict[str, Any]]:
        """The rows of ``pylbr report --by VIEW --json``.

        Parameters
        ----------
        view : str
            One of `pylbr.profile.report.VIEWS`: callers, edges, functions, history, lines,
            mispredicts, runs.
        limit : int, optional
            How many of them; all by default.

        Raises
        ------
        CommandError
            There is no such view, or what it shows was not recorded or not counted.
        """
        if view not in report.VIEWS:
            raise CommandError(f"no view {view!r}; there are {', '.join(report.VIEWS)}")
        if limit is not None and limit < 1:
            raise CommandError(f"limit: a number from 1 up, not {limit}")
        if view == "history" and self.paths is None:
            raise CommandError(f"{self.path}: paths were not counted; ask for paths of N branches "
                               "when the file is read: history=N")
        if view == "mispredicts" and not self.mispredicts_measured:
            raise CommandError(f"{self.path}: mispredicts were not recorded")
        return report_text.rows_of(view, self, self.paths or Paths(),
                                   _ALL if limit is None else limit)

    def to_arrow(self, view: str = "edges", limit: int | None = None) -> pa.Table:
        """`rows` as an Arrow table; what was not measured is null; needs pyarrow.

        Bytes of names that are no UTF-8 are written as ``\\xNN``.
        """
        schema = pa.schema([(name, _type(name)) for name in report.COLUMNS[view]]
                           if view in report.COLUMNS else [])
        return pa.Table.from_pylist([_utf8(row) for row in self.rows(view, limit)], schema)

    def to_pandas(self, view: str = "edges", limit: int | None = None) -> pd.DataFrame:
        """`rows` as a pandas data frame; needs pandas and pyarrow.

        Integers have pandas' nullable type: what was not measured stays NA and is no number.
        """
        pandas = needed("pandas")
        kinds = {pa.int64(): pandas.Int64Dtype(), pa.float64(): pandas.Float64Dtype()}
        frame: pd.DataFrame = self.to_arrow(view, limit).to_pandas(types_mapper=kinds.get)
        return frame

    def to_polars(self, view: str = "edges", limit: int | None = None) -> pl.DataFrame:
        """`rows` as a Polars data frame; needs polars and pyarrow."""
        frame: pl.DataFrame = needed("polars").from_arrow(self.to_arrow(view, limit))
        return frame

    def __repr__(self) -> str:
        table = report_text.table_of(self.rows(limit=_SHOWN))
        return f"{report_text.summary(self.path, self)}\n{self._title()}\n\n{table}"

    def _repr_html_(self) -> str:
        table = report_text.table_of(self.rows(limit=_SHOWN))._repr_html_()
        head = escape(report_text.summary(self.path, self))
        return f"<div><p>{head}<br>{escape(self._title())}</p>\n{table}</div>"

    def _title(self) -> str:
        more = len(self.edges) - _SHOWN
        return report.heading(self, "edges") + (f" (the first {_SHOWN})" if more > 0 else "") + ":"


def count_file(
    source: Trace | Stacks, history: int | Paths = 0, update: Callable[[int], object] | None = None,
    name: str = "",
) -> FileProfile:
    """Count an open file: stacks entry by entry, a trace branch by branch.

    Parameters
    ----------
    source : Trace or Stacks
    history : int or Paths
        Branches in a path of the branch history, or what counts it; 0: it is not counted.
    update : callable, optional
        Called with the number of samples, or branches of a trace, that were read.
    name : str
        What messages call the file; its path by default.

    Raises
    ------
    CommandError
        A trace has no samples whose history could be counted, or no branch.
    TraceError
        The file is damaged, or has no sample with a branch.
    """
    paths = history if isinstance(history, Paths) else Paths(history) if history else None
    path = name or str(source.path)
    if isinstance(source, Trace):
        if paths is not None:
            raise CommandError(
                f"{path}: a trace has no samples to come to; pylbr replay takes some"
            )
        profile = collect_trace(source, update)
        if not profile.entries:
            raise CommandError(f"{path}: holds no taken branches: nothing to report")
    else:
        counted = Stacks(StacksMetadata(), _counted(source, update), source.path)
        counted.reopen, counted.build_ids = source.reopen, source.build_ids
        profile = collect(counted, paths)
    found = {field.name: getattr(profile, field.name) for field in fields(profile)}
    return FileProfile(**found, path=path, paths=paths)


def _counted(source: Stacks, update: Callable[[int], object] | None) -> Iterator[Record]:
    for record in with_branches(source, "nothing to report"):
        yield record
        if update is not None and isinstance(record, Samples):
            update(len(record))


def _type(name: str) -> pa.DataType:
    if name == "path":
        return pa.list_(pa.struct([(step, pa.string()) for step in _STEP]))
    if name in _REALS:
        return pa.float64()
    return pa.int64() if name in _NUMBERS else pa.string()


def _utf8(value: Any) -> Any:
    """A row with texts that Arrow takes."""
    if isinstance(value, dict):
        return {name: _utf8(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_utf8(part) for part in value]
    if isinstance(value, str) and not value.isascii():
        return value.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return value
