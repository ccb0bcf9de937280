"""The container as two of the formats."""

from __future__ import annotations

import os

from pylbr.files.format import Format, Head, Options
from pylbr.trace.arrow_file import ArrowTrace
from pylbr.trace.parquet_file import ParquetTrace

__all__ = ["ARROW", "PARQUET"]


def _is_arrow(head: Head) -> bool:
    return head.raw.startswith(b"ARROW1")


def _is_parquet(head: Head) -> bool:
    if head.is_directory:
        return any(name.endswith(".parquet") for name in os.listdir(head.path))
    return head.raw.startswith(b"PAR1")


def _open_arrow(path: str, options: Options) -> ArrowTrace:
    return ArrowTrace(path, mmap=options.mmap, verify=options.verify, modules=options.modules)


def _open_parquet(path: str, options: Options) -> ParquetTrace:
    return ParquetTrace(path, verify=options.verify, modules=options.modules)


ARROW = Format("arrow", "the container, random access", "trace", _is_arrow, _open_arrow)
PARQUET = Format("parquet", "the container, compact", "trace", _is_parquet, _open_parquet)
