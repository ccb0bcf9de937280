"""Writing the container."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lbrcore import BRANCH_DTYPE
from pylbr.errors import TraceError
from pylbr.extras import Extra
from pylbr.files.closing import Discarding
from pylbr.files.output import AtomicFile
from pylbr.trace.check import check_branches
from pylbr.trace.metadata import Metadata, encode_metadata
from pylbr.trace.place import DIGEST_KEY, PLACE_KEY, Place, fingerprint
from pylbr.trace.schema import (
    COLUMNS,
    REQUIRED,
    arrow_field,
    column_digest,
    column_dtype,
    digest,
)
from pylbr.trace.seal import KEY, SealError, add_seal

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    pa, pq = Extra("pyarrow"), Extra("pyarrow.parquet")

__all__ = ["Writer"]

#: Rows of a record batch of an Arrow file, and of a row group of a Parquet file.
BATCH_ROWS = 1 << 20
GROUP_ROWS = 1 << 18


class Writer(Discarding):
    """Writes a trace; the file appears when the ``with`` ends without an exception.

    Parameters
    ----------
    path : path-like
        Ends in ``.arrow`` or ``.parquet``.
    metadata : Metadata, optional
    columns : sequence of str, optional
        Columns to store: the first three of `schema.COLUMNS` always, the others of
        BRANCH_DTYPE by default, `task` and `cpu` if named here.

    Raises
    ------
    TraceError
        Unknown suffix, or a file that cannot be written.
    UnsupportedFeature
        pyarrow is not installed.

    Examples
    --------
    >>> with Writer("program.arrow", Metadata(model="Skylake")) as writer:  # doctest: +SKIP
    ...     writer.write(branches)
    """

    def __init__(
        self, path: str | os.PathLike[str], metadata: Metadata | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        wanted = {*REQUIRED, *(BRANCH_DTYPE.names or () if columns is None else columns)}
        if wanted - set(COLUMNS):
            raise ValueError(f"no such column: {', '.join(sorted(wanted - set(COLUMNS)))}")
        self.columns = tuple(name for name in COLUMNS if name in wanted)
        self.path, self.count = os.fspath(path), 0
        fields = [arrow_field(name) for name in self.columns]
        schema = pa.schema(fields, encode_metadata(metadata or Metadata(), self.columns))
        suffix = Path(path).suffix.lower()
        if suffix not in _SINKS:
            raise TraceError(path, "has neither of the suffixes .arrow and .parquet")
        self._file = AtomicFile(path)
        try:
            kind, self._rows = _SINKS[suffix]
            self._pending = {
                name: np.empty((self._rows, *column_dtype(name).shape), column_dtype(name).base)
                for name in self.columns
            }
            self._sink: _Sink = kind(self._file, schema)
        except BaseException:
            self._file.discard()
            raise
        self._fill = 0

    def write(
        self, branches: np.ndarray, task: np.ndarray | int | None = None,
        cpu: np.ndarray | int | None = None,
    ) -> None:
        """Append branches, oldest first.

        Parameters
        ----------
        branches : (n,) array of BRANCH_DTYPE
        task, cpu : (n,) array of uint32, or one number for all
            Thread ids and logical processors; 0 where the column exists and none is given.

        Raises
        ------
        TraceError
            A class, flag or privilege level out of range; the disk is full.
        """
        if branches.dtype != BRANCH_DTYPE:
            raise ValueError(f"branches of dtype {branches.dtype}, not BRANCH_DTYPE")
        extra = {"task": task, "cpu": cpu}
        for name, value in extra.items():
            if value is not None and name not in self.columns:
                raise ValueError(f"{name} given, but the file has no such column")
        check_branches(self.path, branches)
        columns = {name: branches[name] for name in self.columns if name not in extra}
        for name in set(self.columns) & set(extra):
            values = np.asarray(0 if extra[name] is None else extra[name], np.uint32)
            columns[name] = np.broadcast_to(values, branches.shape)
        done = 0
        while done < len(branches):
            count = min(len(branches) - done, self._rows - self._fill)
            for name, values in columns.items():
                self._pending[name][self._fill:self._fill + count] = values[done:done + count]
            self._fill += count
            done += count
            if self._fill == self._rows:
                self._flush()
        self.count += len(branches)

    def close_as(self, place: Place) -> str:
        """Complete a Parquet file that is one of several of its trace; its fingerprint."""
        keys: dict[bytes, bytes] = self._sink.keys  # type: ignore[attr-defined]
        keys[PLACE_KEY] = place.encode()
        self.close()
        return fingerprint(keys)

    @property
    def size(self) -> int:
        """Bytes in the file so far; rows that wait for their batch are not among them."""
        return self._file.file.tell()

    def _flush(self) -> None:
        arrays: dict[str, np.ndarray] = {
            name: values[:self._fill] for name, values in self._pending.items()
        }
        try:
            self._sink.batch(arrays)
        except OSError as error:
            raise self._file.failure(error) from error
        self._fill = 0

    def close(self) -> None:
        """Complete the file and give it its name."""
        try:
            if self._fill:
                self._flush()
            self._sink.close()
        except BaseException as error:
            self.discard()
            if isinstance(error, OSError):
                raise self._file.failure(error) from error
            raise
        self._file.commit()

    def discard(self) -> None:
        """Remove what was written."""
        # pyarrow's writers want to be closed while their file is open.
        with contextlib.suppress(OSError, ValueError, pa.ArrowException, SealError):
            self._sink.close()
        self._file.discard()


class _Sink(Protocol):
    def batch(self, arrays: dict[str, np.ndarray]) -> None: ...
    def close(self) -> None: ...


def _record_batch(arrays: dict[str, np.ndarray], schema: pa.Schema) -> pa.RecordBatch:
    columns: list[Any] = []
    for name, values in arrays.items():
        flat = pa.array(values.reshape(-1))
        if name == "events":
            flat = pa.FixedSizeListArray.from_arrays(flat, type=schema.field(name).type)
        columns.append(flat)
    return pa.record_batch(columns, schema=schema)


class _ArrowSink:
    def __init__(self, file: AtomicFile, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pa.ipc.new_file(file.file, schema)

    def batch(self, arrays: dict[str, np.ndarray]) -> None:
        digests = {
            f"digest.{name}": digest(values).astype(">u8").tobytes().hex()
            for name, values in arrays.items()
        }
        self._writer.write_batch(_record_batch(arrays, self._schema), custom_metadata=digests)

    def close(self) -> None:
        self._writer.close()


class _ParquetSink:
    def __init__(self, file: AtomicFile, schema: pa.Schema) -> None:
        self._schema, self._file = schema, file.file
        self.keys: dict[bytes, bytes] = {}
        self._digests: list[str] = []
        self._writer = pq.ParquetWriter(
            file.file, schema, compression="zstd", write_page_checksum=True,
            column_encoding=None, use_dictionary=True,
        )

    def batch(self, arrays: dict[str, np.ndarray]) -> None:
        self._writer.write_batch(_record_batch(arrays, self._schema), row_group_size=GROUP_ROWS)
        self._digests.append(
            ",".join(f"{name}={column_digest(values):x}" for name, values in arrays.items())
        )

    def close(self) -> None:
        if not self._writer.is_open:  # closing it has failed before
            return
        self.keys |= {DIGEST_KEY: ";".join(self._digests).encode(), KEY: b"1"}
        self._writer.add_key_value_metadata(self.keys)
        self._writer.close()
        self._file.flush()
        add_seal(self._file.fileno())


_SINKS: dict[str, tuple[Any, int]] = {
    ".arrow": (_ArrowSink, BATCH_ROWS), ".parquet": (_ParquetSink, GROUP_ROWS),
}
