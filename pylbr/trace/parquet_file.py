"""Reading a Parquet file, or a directory of them, row group by row group."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pylbr.errors import TraceError
from pylbr.extras import needed
from pylbr.files.module import Module
from pylbr.trace.check import check_values
from pylbr.trace.metadata import Metadata, decode_metadata, with_modules
from pylbr.trace.parquet_part import MAX_GROUP_ROWS, GuardedPart, Part, PartError
from pylbr.trace.place import DIGEST_KEY, PLACE_KEY, Place, check_places
from pylbr.trace.schema import COLUMNS, REQUIRED, column_digest
from pylbr.trace.seal import SealError, read_seal
from pylbr.trace.trace import ColumnarTrace

__all__ = ["ParquetTrace"]


class ParquetTrace(ColumnarTrace):
    """A Parquet file with the columns of a trace, or a directory of such, in name order.

    Parameters
    ----------
    path : path-like
    verify : bool
        Compare every column of a row group with its digest, and refuse values out of range.
    modules : sequence of Module
        Mapped files besides those that the trace names.

    Raises
    ------
    TraceError
        Not such a file, or damaged.
    UnsupportedFeature
        pyarrow is not installed.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, verify: bool = True, modules: Sequence[Module] = ()
    ) -> None:
        self.path, self._verify = os.fspath(path), verify
        self._files: list[Part | GuardedPart] = []
        self._groups: list[tuple[int, int]] = []
        self._cache: tuple[int, dict[str, np.ndarray]] = (-1, {})
        paths = sorted(Path(path).glob("*.parquet")) if os.path.isdir(path) else [Path(path)]
        if not paths:
            raise TraceError(path, "is a directory without *.parquet files")
        try:
            self._alone = len(paths) == 1
            self._parts = [self._open(part) for part in paths]
            first = self._parts[0]
            for other, part in zip(paths[1:], self._parts[1:], strict=True):
                if part[:2] != first[:2]:
                    raise TraceError(path, f"holds files of different traces: {other.name} has "
                                     f"{_difference(first, part)} than {paths[0].name}; keep "
                                     "them apart")
            if os.path.isdir(path):
                check_places(path, paths, [file.keys for file in self._files])
            self.metadata, self.columns = with_modules(first[0], modules), first[1]
            self._paths = paths
            rows: list[int] = []
            for i, file in enumerate(self._files):
                rows += file.rows
                self._groups += [(i, group) for group in range(len(file.rows))]
            if any(not 0 <= count <= MAX_GROUP_ROWS for count in rows):
                raise TraceError(
                    path, f"a row group of {max(rows)} rows; write at most {MAX_GROUP_ROWS}"
                )
            self._set_groups(rows)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files = []

    def _open(self, path: Path) -> tuple[Metadata, tuple[str, ...], list[dict[str, int]] | None]:
        """Metadata, columns and digests of one file."""
        try:
            part = self._part(path)
            self._files.append(part)
            self._rest(part)
            found = decode_metadata(part.keys)
            digests = _digests(part.keys, len(part.rows)) if found else None
            if PLACE_KEY in part.keys:
                Place.decode(part.keys[PLACE_KEY])
            if found is None and part.has_our_fields:
                raise ValueError("its metadata are missing")
        except (PartError, SealError, ValueError, TypeError, KeyError) as error:
            at = getattr(error, "offset", None)
            raise self._damaged(path, f"is damaged, or no Parquet file ({error})",
                                _footer(path) if at is None else at) from error
        except OSError as error:
            raise TraceError(path, f"cannot be read: {error.strerror}") from error
        if found and found[1] != part.names:
            raise self._damaged(
                path, f"columns {part.names}, but its metadata list {found[1]}", _footer(path))
        if not set(REQUIRED[:2]) <= set(part.names):
            raise TraceError(path, "is no trace: it needs the columns 'from' and 'to'")
        columns = tuple(name for name in COLUMNS if name in part.names)
        return found[0] if found else Metadata(), columns, digests

    def _rest(self, part: Part | GuardedPart) -> None:
        """A directory of many files must not run as many processes."""
        if isinstance(part, GuardedPart) and not self._alone:
            part.close()

    def _part(self, path: Path) -> Part | GuardedPart:
        """The file, in a process of its own unless a seal shows it as it was written."""
        needed("pyarrow")
        with path.open("rb") as file:
            seal = read_seal(file.fileno())
        return Part(str(path), self._verify, seal) if seal else GuardedPart(
            str(path), self._verify)

    def _damaged(self, path: object, what: str, offset: int | None = None) -> TraceError:
        what = " ".join(what.split())
        return TraceError(path, f"{what}; copy the file again or convert it again", offset)

    def _load(self, group: int, column: str, low: int, high: int) -> np.ndarray:
        if self._cache[0] != group:
            if self._cache[0] >= 0:
                self._rest(self._files[self._groups[self._cache[0]][0]])
            self._cache = (group, {})
        columns = self._cache[1]
        if column not in columns:
            columns[column] = self._column(group, column)
        return columns[column][low:high]

    def _column(self, group: int, column: str) -> np.ndarray:
        """A column of a row group, decoded and checked."""
        if not self._files:
            raise TraceError(self.path, "the trace has been closed")
        number, inner = self._groups[group]
        path = self._paths[number]
        try:
            values = self._files[number].column(inner, column)
        except PartError as error:
            raise self._damaged(path, f"column {column!r}: {error}", error.offset) from error
        if self._verify:
            digests = self._parts[number][2]
            if digests is not None and digests[inner].get(column) != column_digest(values):
                raise self._damaged(path, f"column {column!r}: its digest differs")
            check_values(path, column, values, None)
        return values


def _difference(
    one: tuple[Metadata, tuple[str, ...], Any], other: tuple[Metadata, tuple[str, ...], Any]
) -> str:
    """What differs first between two files that should be of one trace."""
    if one[1] != other[1]:
        return "other columns"
    if one[0].model != other[0].model:
        return f"another processor ({other[0].model or 'none'}, not {one[0].model or 'none'})"
    return "other metadata"


def _footer(path: Path) -> int | None:
    """Where the footer of a file begins, or, of one that does not end in PAR1, should end."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            trailer = max(size - 8, 0)
            file.seek(trailer)
            last = file.read(8)
    except OSError:
        return None
    begin = trailer - int.from_bytes(last[:4], "little")
    return begin if last[4:] == b"PAR1" and begin >= 0 else trailer


def _digests(keys: dict[bytes, bytes], groups: int) -> list[dict[str, int]]:
    """Digests by row group: ``column=hex,...`` separated by ``;``."""
    text = keys.get(DIGEST_KEY)
    if text is None:
        raise ValueError("the digests are missing")
    rows = [row for row in text.decode().split(";") if row]
    if len(rows) != groups:
        raise ValueError(f"{len(rows)} digests for {groups} row groups")
    pairs = ([item.split("=") for item in row.split(",")] for row in rows)
    return [{name: int(value, 16) for name, value in row} for row in pairs]
