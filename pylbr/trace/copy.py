"""Copying a trace of any format into another file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pylbr.errors import TraceError
from pylbr.trace.csv_file import write_csv
from pylbr.trace.partition import PartitionedWriter
from pylbr.trace.trace import Trace
from pylbr.trace.writer import Writer

__all__ = ["SUFFIXES", "copy_trace"]

#: What a trace can be written as.
SUFFIXES = (".arrow", ".parquet", ".csv")


def copy_trace(
    source: Trace, path: str | os.PathLike[str], update: Callable[[int], object] | None = None,
    rows_per_file: int | None = None,
) -> int:
    """Write `source` to `path`, in the format of its suffix; returns the branches.

    Parameters
    ----------
    update : callable, optional
        Called with the number of branches of each chunk once they are written.
    rows_per_file : int, optional
        Makes `path` a directory of Parquet files with this many branches each.

    Raises
    ------
    TraceError
        The source is damaged or empty, or the target cannot be written; then nothing is left
        there.
    """
    suffix = Path(path).suffix.lower()
    if rows_per_file is not None and suffix != ".parquet":
        raise TraceError(path, "only a .parquet trace is divided into files")
    if suffix not in SUFFIXES:
        raise TraceError(path, f"a trace is written as one of {', '.join(SUFFIXES)}")
    if os.path.exists(path) and os.path.samefile(source.path, path):
        raise TraceError(path, "is the file that is read; name another")
    if suffix == ".csv":
        return write_csv(source, path, update)
    writer: Writer | PartitionedWriter
    if rows_per_file is None:
        writer = Writer(path, source.metadata, source.columns)
    else:
        writer = PartitionedWriter(path, source.metadata, source.columns, rows=rows_per_file)
    with writer:
        for chunk in source.chunks():
            writer.write(chunk.branches, chunk.task, chunk.cpu)
            if update is not None:
                update(len(chunk))
        if not writer.count:
            raise TraceError(source.path, "holds no branches: nothing to convert")
    return writer.count
