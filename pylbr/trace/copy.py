"""Copying a trace of any format into another file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pylbr.errors import TraceError
from pylbr.trace.csv_file import write_csv
from pylbr.trace.trace import Trace
from pylbr.trace.writer import Writer

__all__ = ["SUFFIXES", "copy_trace"]

#: What a trace can be written as.
SUFFIXES = (".arrow", ".parquet", ".csv")


def copy_trace(
    source: Trace, path: str | os.PathLike[str], update: Callable[[int], object] | None = None
) -> int:
    """Write `source` to `path`, in the format of its suffix; returns the branches.

    Parameters
    ----------
    update : callable, optional
        Called with the number of branches of each chunk once they are written.

    Raises
    ------
    TraceError
        The source is damaged, or the target cannot be written; then nothing is left there.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise TraceError(path, f"a trace is written as one of {', '.join(SUFFIXES)}")
    if os.path.exists(path) and os.path.samefile(source.path, path):
        raise TraceError(path, "is the file that is read; name another")
    if suffix == ".csv":
        return write_csv(source, path, update)
    with Writer(path, source.metadata, source.columns) as writer:
        for chunk in source.chunks():
            writer.write(chunk.branches, chunk.task, chunk.cpu)
            if update is not None:
                update(len(chunk))
    return writer.count
