"""Reading a Parquet file, or a directory of them, row group by row group."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pylbr.errors import TraceError
from pylbr.trace.check import check_values
from pylbr.trace.metadata import Metadata, Module, decode_metadata, with_modules
from pylbr.trace.schema import (
    COLUMNS,
    REQUIRED,
    arrow_field,
    column_digest,
    column_dtype,
    has_our_fields,
)
from pylbr.trace.trace import ColumnarTrace

__all__ = ["DIGEST_KEY", "MAX_GROUP_ROWS", "ParquetTrace"]

DIGEST_KEY = b"pylbr.digests"
#: Row groups are decoded whole; larger ones are refused, so that memory stays bounded.
MAX_GROUP_ROWS = 1 << 24


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
    """

    def __init__(
        self, path: str | os.PathLike[str], *, verify: bool = True, modules: Sequence[Module] = ()
    ) -> None:
        self.path, self._verify = os.fspath(path), verify
        self._files: list[pq.ParquetFile] = []
        self._groups: list[tuple[int, int]] = []
        self._cache: tuple[int, dict[str, np.ndarray]] = (-1, {})
        paths = sorted(Path(path).glob("*.parquet")) if os.path.isdir(path) else [Path(path)]
        if not paths:
            raise TraceError(path, "is a directory without *.parquet files")
        try:
            self._parts = [self._open(part) for part in paths]
            first = self._parts[0]
            if any(part[:2] != first[:2] for part in self._parts[1:]):
                raise TraceError(path, "holds files of different traces; keep them apart")
            self.metadata, self.columns = with_modules(first[0], modules), first[1]
            self._paths = paths
            rows = []
            for i, file in enumerate(self._files):
                for group in range(file.metadata.num_row_groups):
                    rows.append(file.metadata.row_group(group).num_rows)
                    self._groups.append((i, group))
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
            file.close(force=True)
        self._files = []

    def _open(self, path: Path) -> tuple[Metadata, tuple[str, ...], list[dict[str, int]] | None]:
        """Metadata, columns and digests of one file."""
        try:
            # pre_buffer off and a buffered stream: a page at a time, never the whole file.
            file = pq.ParquetFile(
                path, pre_buffer=False, page_checksum_verification=self._verify,
                thrift_string_size_limit=64 << 20, thrift_container_size_limit=1 << 22,
            )
            self._files.append(file)
            schema, keys = file.schema_arrow, file.metadata.metadata or {}
            found = decode_metadata(keys)
            digests = _digests(keys, file.metadata.num_row_groups) if found else None
            if found is None and has_our_fields(schema):
                raise ValueError("its metadata are missing")
            names = schema.names
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
            raise self._damaged(
                path, f"is damaged, or no Parquet file ({error})", _footer(path)) from error
        if found and found[1] != tuple(names):
            raise self._damaged(
                path, f"columns {tuple(names)}, but its metadata say {found[1]}", _footer(path))
        if not set(REQUIRED[:2]) <= set(names):
            raise TraceError(path, "is no trace: it needs the columns 'from' and 'to'")
        return found[0] if found else Metadata(), tuple(c for c in COLUMNS if c in names), digests

    def _damaged(self, path: object, what: str, offset: int | None = None) -> TraceError:
        what = " ".join(what.split())
        return TraceError(path, f"{what}; copy the file again or convert it anew", offset)

    def _load(self, group: int, column: str, low: int, high: int) -> np.ndarray:
        if self._cache[0] != group:
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
        file, path = self._files[number], self._paths[number]
        offset = None
        try:
            chunk = file.metadata.row_group(inner)
            rows = chunk.num_rows
            index = [chunk.column(i).path_in_schema.split(".")[0] for i in
                     range(chunk.num_columns)].index(column)
            offset = chunk.column(index).data_page_offset
            table = file.read_row_group(inner, columns=[column], use_threads=False)
            array = table.column(0).combine_chunks().cast(arrow_field(column).type)
            if array.null_count or len(array) != rows:
                raise ValueError("nulls or missing rows")
            dtype = column_dtype(column)
            flat = array.flatten() if column == "events" else array
            values = flat.to_numpy(zero_copy_only=False).astype(dtype.base, copy=False)
            values = values.reshape(rows, *dtype.shape)
        except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
            raise self._damaged(path, f"column {column!r}: {error}", offset) from error
        if self._verify:
            digests = self._parts[number][2]
            if digests is not None and digests[inner].get(column) != column_digest(values):
                raise self._damaged(path, f"column {column!r}: its digest differs", offset)
            check_values(path, column, values, None)
        return values


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
