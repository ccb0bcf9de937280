"""The writer of a trace that the suffix of its name chooses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pylbr.errors import TraceError
from pylbr.extras import needed
from pylbr.trace.lbrt_writer import LbrtWriter
from pylbr.trace.metadata import Metadata
from pylbr.trace.writer import Writer

__all__ = ["TRACE_SUFFIXES", "trace_suffix", "trace_writer"]

#: Suffixes of the container, in lower case or not.
TRACE_SUFFIXES: Final = (".lbrt", ".parquet", ".arrow")


def trace_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of a trace that is to be written, in lower case.

    Raises
    ------
    TraceError
        It is none of `TRACE_SUFFIXES`.
    UnsupportedFeature
        The form needs pyarrow, which is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in TRACE_SUFFIXES:
        raise TraceError(path, f"a trace is written as one of {', '.join(TRACE_SUFFIXES)}")
    if suffix != ".lbrt":
        needed("pyarrow")
    return suffix


def trace_writer(
    path: str | os.PathLike[str], metadata: Metadata, columns: Sequence[str] | None = None,
    small: bool = False,
) -> Writer | LbrtWriter:
    """The writer of a trace; parameters as `Writer` and `LbrtWriter`, errors as `trace_suffix`."""
    if trace_suffix(path) == ".lbrt":
        return LbrtWriter(path, metadata, columns, small)
    return Writer(path, metadata, columns)
