"""Traces as comma-separated text.

A header line names the columns: those of the container, `events` as ``events0`` to
``events3``.  Numbers are decimal, or hexadecimal with 0x, without quotes; a class is a number
or the `BranchClass` name.  ``from`` and ``to`` must be there, everything else may be absent.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Final

import numpy as np

from lbrcore import BRANCH_DTYPE, BranchClass
from pylbr.errors import TraceError
from pylbr.files.format import Format, Head, Options, WriteOptions
from pylbr.files.lines import Lines
from pylbr.files.output import AtomicFile
from pylbr.trace.check import check_branches
from pylbr.trace.metadata import Metadata
from pylbr.trace.schema import COLUMNS, REQUIRED, column_dtype
from pylbr.trace.trace import Part, StreamTrace, Trace

__all__ = ["CSV", "CsvTrace", "write_csv"]

_ROWS: Final = 1 << 14
_EVENTS: Final = ("events0", "events1", "events2", "events3")
_NAMES: Final = (*(name for name in COLUMNS if name != "events"), *_EVENTS)
#: Characters of the largest number, zeros before it allowed for.
_LONGEST_NUMBER: Final = 100
_CLASSES: Final = {kind.name: int(kind) for kind in BranchClass}


class CsvTrace(StreamTrace):
    """A trace in CSV; see the module for the layout.

    Raises
    ------
    TraceError
        With the line: no such header, a missing or superfluous field, a number that is none
        or does not fit its column.
    """

    def __init__(self, path: str | os.PathLike[str], options: Options | None = None) -> None:
        options = options or Options()
        with Lines(path) as lines:
            names = _header(path, lines.next_line())
        columns = {"events" if name in _EVENTS else name for name in names}
        metadata = Metadata(modules=tuple(options.modules), provenance={"source": str(path)})
        super().__init__(path, metadata, tuple(columns), lambda: self._read(names))

    def _read(self, names: list[str]) -> Iterator[Part]:
        with Lines(self.path) as lines:
            lines.next_line()
            while block := lines.block(_ROWS):
                yield _parse(self.path, block, names, lines)


def _header(path: object, line: bytes | None) -> list[str]:
    names = [] if line is None else [name.strip() for name in line.decode("latin-1").split(",")]
    unknown = [name for name in names if name not in _NAMES]
    if unknown or len(set(names)) < len(names) or not {"from", "to"} <= set(names):
        fault = f"column {unknown[0]!r} is unknown" if unknown else "'from' and 'to' are needed"
        raise TraceError(path, f"line 1: {fault}; there are {', '.join(_NAMES)}", 0)
    return names


def _parse(path: str, block: list[bytes], names: list[str], lines: Lines) -> Part:
    first = lines.number - len(block)
    branches = np.zeros(len(block), BRANCH_DTYPE)
    extra = {name: np.zeros(len(block), np.uint32) for name in ("task", "cpu") if name in names}
    rows = [line.decode("latin-1").split(",") for line in block]
    for i, row in enumerate(rows):
        if len(row) != len(names):
            raise TraceError(
                path, f"line {first + i + 1}: {len(row)} fields, the header has {len(names)}"
            )
    for at, name in enumerate(names):
        dtype = column_dtype("events" if name in _EVENTS else name).base
        values = [_number(path, row[at], name, first + i + 1) for i, row in enumerate(rows)]
        limit = int(np.iinfo(dtype).max)
        for i, value in enumerate(values):
            if not 0 <= value <= limit:
                raise TraceError(
                    path, f"line {first + i + 1}: {name} {value} is not in 0..{limit}"
                )
        if name in extra:
            extra[name][:] = values
        elif name in _EVENTS:
            branches["events"][:, int(name[-1])] = values
        else:
            branches[name] = values
    check_branches(path, branches)
    return Part(branches, extra.get("task"), extra.get("cpu"))


def _number(path: str, text: str, name: str, line: int) -> int:
    text = text.strip()
    try:
        if name == "class" and text in _CLASSES:
            return _CLASSES[text]
        if len(text) > _LONGEST_NUMBER:
            raise ValueError
        return int(text, 16) if text[:2] in ("0x", "0X") else int(text)
    except ValueError:
        raise TraceError(path, f"line {line}: {name} {text[:40]!r} is no number") from None


def write_csv(trace: Trace, path: str | os.PathLike[str], update: object = None) -> int:
    """Write a trace as CSV; returns the number of branches.

    `update`, if given, is called with the number of branches of each chunk.
    """
    columns = [name for name in COLUMNS if name in trace.columns or name in REQUIRED]
    names = [part for name in columns for part in (_EVENTS if name == "events" else (name,))]
    form = ",".join("%#x" if name in ("from", "to") else "%s" for name in names) + "\n"
    count = 0
    with AtomicFile(path) as output:
        text = io.TextIOWrapper(output.file, "ascii", write_through=False)
        text.write(",".join(names) + "\n")
        for chunk in trace.chunks():
            lists: list[list[object]] = []
            for name in columns:
                values = chunk.column(name)
                if name == "events":
                    lists.extend(values[:, i].tolist() for i in range(4))
                elif name == "class":
                    lists.append([_CLASS_NAMES[value] for value in values.tolist()])
                else:
                    lists.append(values.tolist())
            text.writelines(form % row for row in zip(*lists, strict=True))
            count += len(chunk)
            if callable(update):
                update(len(chunk))
        text.flush()
        text.detach()
        if not count:
            raise TraceError(trace.path, "holds no branches: nothing to convert")
    return count


_CLASS_NAMES: Final = {int(kind): kind.name for kind in BranchClass}


def _is_csv(head: Head) -> bool:
    line = next(head.lines(), b"").strip()
    names = {name.strip() for name in line.split(b",")}
    # A table of branch stacks has a row per entry, with a column for the sample.
    return {b"from", b"to"} <= names and b"sample" not in names


def _write(source: Trace, path: str, options: WriteOptions) -> int:
    return write_csv(source, path, options.update)


CSV = Format(
    "csv", "comma-separated text with a header", "trace", _is_csv, CsvTrace, _write, (".csv",))
