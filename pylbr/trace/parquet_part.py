"""One Parquet file as the Parquet library reads it, and the same in a process of its own.

Some damaged files end the library's process instead of raising.  `Part` is for files whose seal
(`pylbr.trace.seal`) was compared; everything else is read by a `GuardedPart`, a child process
that may die of the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from pylbr.extras import Extra
from pylbr.trace.schema import arrow_field, column_dtype, has_our_fields
from pylbr.trace.seal import Seal, SealError, chunk_range

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    pa, pq = Extra("pyarrow"), Extra("pyarrow.parquet")

__all__ = ["MAX_GROUP_ROWS", "GuardedPart", "Part", "PartError"]

#: Row groups are decoded whole; larger ones are refused, so that memory stays bounded.
MAX_GROUP_ROWS: Final = 1 << 24
#: Address space of a guarded child, bytes: some ten times what the largest row group needs.
_GUARDED_SPACE: Final = 8 << 30


def _failures() -> tuple[type[Exception], ...]:
    """What the Parquet library and a seal raise."""
    return pa.ArrowException, SealError, OSError, ValueError, TypeError, KeyError, OverflowError


class PartError(Exception):
    """A file that cannot be read, and the byte offset of the trouble if it is known."""

    def __init__(self, what: str, offset: int | None = None) -> None:
        self.offset = offset
        super().__init__(" ".join(what.split()))


class Part:
    """A Parquet file, read in this process.

    Attributes
    ----------
    names : tuple of str
    keys : dict of bytes to bytes
        The file's metadata.
    rows : list of int
        Of each row group.
    has_our_fields : bool
        The fields bear the numbers of a trace's columns.
    """

    def __init__(self, path: str, check_pages: bool, seal: Seal | None) -> None:
        self._seal, self._fd = seal, -1
        try:
            # pre_buffer off and a buffered stream: a page at a time, never the whole file.
            self._file: pq.ParquetFile | None = None
            self._file = pq.ParquetFile(
                path, pre_buffer=False, page_checksum_verification=check_pages,
                thrift_string_size_limit=64 << 20, thrift_container_size_limit=1 << 22,
            )
            self._fd = os.open(path, os.O_RDONLY)
            schema, metadata = self._file.schema_arrow, self._file.metadata
            self.names, self.keys = tuple(schema.names), dict(metadata.metadata or {})
            self.rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self.has_our_fields = has_our_fields(schema)
        except _failures() as error:
            self.close()
            raise PartError(str(error)) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file is not None:
            self._file.close(force=True)
        if self._fd >= 0:
            os.close(self._fd)
        self._file, self._fd = None, -1

    def column(self, group: int, name: str) -> np.ndarray:
        """A column of a row group, decoded.

        Raises
        ------
        PartError
        """
        assert self._file is not None
        offset = None
        try:
            metadata = self._file.metadata
            chunk = metadata.row_group(group)
            index = [chunk.column(i).path_in_schema.split(".")[0]
                     for i in range(chunk.num_columns)].index(name)
            offset, size = chunk_range(metadata, group, index)
            if self._seal:
                self._seal.check(self._fd, group * metadata.num_columns + index, offset, size)
            table = self._file.read_row_group(group, columns=[name], use_threads=False)
            array = table.column(0).combine_chunks().cast(arrow_field(name).type)
            if array.null_count or len(array) != chunk.num_rows:
                raise ValueError("nulls or missing rows")
            dtype = column_dtype(name)
            flat = array.flatten() if name == "events" else array
            values = flat.to_numpy(zero_copy_only=False).astype(dtype.base, copy=False)
            return values.reshape(chunk.num_rows, *dtype.shape)
        except _failures() as error:
            raise PartError(str(error), offset) from error


class GuardedPart:
    """A Parquet file, read by a child process; attributes and methods as `Part`."""

    def __init__(self, path: str, check_pages: bool) -> None:
        self._words = [path, str(int(check_pages))]
        self._child: subprocess.Popen[bytes] | None = None
        try:
            head = self._start()
        except BaseException:
            self.close()
            raise
        self.names, self.rows = tuple(head["names"]), head["rows"]
        self.keys = {bytes.fromhex(k): bytes.fromhex(v) for k, v in head["keys"].items()}
        self.has_our_fields = head["has_our_fields"]

    def _start(self) -> dict[str, Any]:
        code = ("import json, sys; sys.path[:] = json.loads(sys.argv[1])\n"
                "from pylbr.trace.parquet_part import serve\nserve(*sys.argv[2:])")
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-c", code, json.dumps(sys.path), *self._words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._child is not None and self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._died()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PartError(answer["error"], answer["offset"])
        return answer

    def _died(self) -> PartError:
        assert self._child is not None
        status = self._child.wait()
        how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        return PartError(f"the Parquet library's process ended with {how}")

    def column(self, group: int, name: str) -> np.ndarray:
        """As `Part.column`."""
        if self._child is None:
            self._start()
        assert self._child is not None
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            self._child.stdin.write(json.dumps([group, name]).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        size, dtype = self._answer()["bytes"], column_dtype(name)
        wanted = dtype.itemsize * self.rows[group]
        data = self._child.stdout.read(size) if size == wanted else b""
        if len(data) != wanted:
            raise self._died() if size == wanted else PartError("missing rows")
        return np.frombuffer(data, dtype.base).reshape(-1, *dtype.shape)

    def close(self) -> None:
        """End the child; the next column starts another."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        child.wait()


def serve(path: str, check_pages: str) -> None:
    """Answer a `GuardedPart`: a line of JSON, and after each column's line its bytes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY or most > _GUARDED_SPACE:
        resource.setrlimit(resource.RLIMIT_AS, (_GUARDED_SPACE, most))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and closes the pipe
    out = os.fdopen(os.dup(1), "wb")
    try:
        part = Part(path, check_pages == "1", None)
        head = {
            "names": part.names, "rows": part.rows, "has_our_fields": part.has_our_fields,
            "keys": {key.hex(): value.hex() for key, value in part.keys.items()}}
    except PartError as error:
        _tell(out, {"error": str(error), "offset": error.offset})
        return
    _tell(out, head)
    for line in sys.stdin:
        group, name = json.loads(line)
        try:
            if part.rows[group] > MAX_GROUP_ROWS:
                raise PartError(f"a row group of {part.rows[group]} rows")
            values = np.ascontiguousarray(part.column(group, name))
        except PartError as error:
            _tell(out, {"error": str(error), "offset": error.offset})
            continue
        _tell(out, {"bytes": values.nbytes}, values)


def _tell(out: BinaryIO, answer: dict[str, Any], values: np.ndarray | None = None) -> None:
    out.write(json.dumps(answer).encode() + b"\n")
    if values is not None:
        out.write(values.data)
    out.flush()
