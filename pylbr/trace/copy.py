"""Copying a trace, or a file of stacks, of any format into another file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pylbr.errors import TraceError
from pylbr.files.format import WriteOptions
from pylbr.perf.stacks import Record, Samples, Stacks, with_branches
from pylbr.trace.formats import output_format, output_suffixes
from pylbr.trace.trace import Trace

__all__ = ["copy_stacks", "copy_trace"]


def copy_trace(
    source: Trace, path: str | os.PathLike[str], options: WriteOptions | None = None
) -> int:
    """Write `source` to `path`, in the format of its suffix; returns the branches.

    Raises
    ------
    TraceError
        The source is damaged or empty, or the target cannot be written; then nothing is left
        there.
    """
    options = options or WriteOptions()
    if options.rows_per_file is not None and Path(path).suffix.lower() != ".parquet":
        raise TraceError(path, "only a .parquet trace is divided into files")
    if options.small and Path(path).suffix.lower() != ".lbrt":
        raise TraceError(path, "only a .lbrt trace has a small coding")
    return _copy(source, path, "trace", options)


def copy_stacks(
    source: Stacks, path: str | os.PathLike[str], options: WriteOptions | None = None
) -> int:
    """Write `source` to `path`, in the format of its suffix; returns the samples.

    Raises
    ------
    TraceError
        As `copy_trace`.
    """
    options = options or WriteOptions()
    counted = Stacks(source.metadata, _counted(source, options), source.path)
    counted.reopen = source.reopen
    return _copy(counted, path, "stacks", options)


def _copy(
    source: Trace | Stacks, path: str | os.PathLike[str], kind: str, options: WriteOptions
) -> int:
    chosen = output_format(path, kind)
    if chosen is None or chosen.write is None:
        what = "a trace" if kind == "trace" else "a file of stacks"
        raise TraceError(path, f"{what} is written as one of {', '.join(output_suffixes(kind))}")
    if os.path.exists(path) and os.path.samefile(source.path, path):
        raise TraceError(path, "is the file that is read; name another")
    return chosen.write(source, os.fspath(path), options)


def _counted(source: Stacks, options: WriteOptions) -> Iterator[Record]:
    """The records; a stream without branches is a fault, which ends the writing."""
    for record in with_branches(source, "nothing to convert"):
        yield record
        if isinstance(record, Samples):
            options.update(len(record))
