"""The containers of traces among the formats."""

from __future__ import annotations

import os

from pylbr.errors import TraceError
from pylbr.files.format import Format, Head, Options, WriteOptions
from pylbr.trace.arrow_file import ArrowTrace
from pylbr.trace.lbrt_file import LbrtTrace
from pylbr.trace.lbrt_layout import MAGIC
from pylbr.trace.lbrt_writer import LbrtWriter
from pylbr.trace.output import trace_writer
from pylbr.trace.parquet_file import ParquetTrace
from pylbr.trace.partition import PartitionedWriter
from pylbr.trace.trace import Trace
from pylbr.trace.writer import Writer

__all__ = ["ARROW", "LBRT", "PARQUET"]


def _is_arrow(head: Head) -> bool:
    return head.raw.startswith(b"ARROW1")


def _is_parquet(head: Head) -> bool:
    if head.is_directory:
        return any(name.endswith(".parquet") for name in os.listdir(head.path))
    return head.raw.startswith(b"PAR1")


def _is_lbrt(head: Head) -> bool:
    return head.raw.startswith(MAGIC)


def _open_lbrt(path: str, options: Options) -> LbrtTrace:
    return LbrtTrace(path, verify=options.verify, modules=options.modules)


def _open_arrow(path: str, options: Options) -> ArrowTrace:
    return ArrowTrace(path, mmap=options.mmap, verify=options.verify, modules=options.modules)


def _open_parquet(path: str, options: Options) -> ParquetTrace:
    return ParquetTrace(path, verify=options.verify, modules=options.modules)


def _write(source: Trace, path: str, options: WriteOptions) -> int:
    writer: Writer | PartitionedWriter | LbrtWriter
    if options.rows_per_file is None or path.lower().endswith(".lbrt"):
        writer = trace_writer(path, source.metadata, source.columns, options.small)
    else:
        writer = PartitionedWriter(
            path, source.metadata, source.columns, rows=options.rows_per_file)
    with writer:
        for chunk in source.chunks():
            writer.write(chunk.branches, chunk.task, chunk.cpu)
            options.update(len(chunk))
        if not writer.count:
            raise TraceError(source.path, "holds no branches: nothing to convert")
    return writer.count


ARROW = Format(
    "arrow", "the container, random access", "trace", _is_arrow, _open_arrow, _write, (".arrow",))
PARQUET = Format(
    "parquet", "the container, compact", "trace", _is_parquet, _open_parquet, _write,
    (".parquet",),
)
LBRT = Format(
    "lbrt", "the container, half a bit per branch", "trace", _is_lbrt, _open_lbrt, _write,
    (".lbrt",))
