"""The formats that pylbr reads and writes: inputs found by content, outputs by suffix.

A format is a `Format` object.  Those of pylbr are listed in `BUILTIN`; a package adds its
own through the entry point group ``pylbr.formats``, whose entries name such objects.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from pylbr.errors import TraceError
from pylbr.files.format import Format, Head, Options
from pylbr.files.source import ByteSource, seekable
from pylbr.perf.stacks import Stacks
from pylbr.trace.trace import Trace

__all__ = [
    "BUILTIN", "ENTRY_POINT_GROUP", "detect", "formats", "open_any", "open_stacks", "open_trace",
    "output_format", "output_suffixes", "readable",
]

ENTRY_POINT_GROUP: Final = "pylbr.formats"
HEAD_SIZE: Final = 1 << 20

#: Module and object of each format of ours; the first that recognises a file reads it, so that
#: those without a magic number come last.
BUILTIN: Final = (
    "pylbr.trace.container:ARROW",
    "pylbr.trace.container:PARQUET",
    "pylbr.trace.container:LBRT",
    "pylbr.perf.formats:PERF_DATA",
    "pylbr.trace.drmemtrace:DRMEMTRACE",
    "pylbr.trace.csv_file:CSV",
    "pylbr.trace.itrace:ITRACE",
    "pylbr.perf.formats:PERF_SCRIPT",
    "pylbr.trace.cbp:CBP",
    "pylbr.trace.champsim:CHAMPSIM",
    "pylbr.profile.formats:PREAGG",
    "pylbr.profile.formats:AUTOFDO",
    "pylbr.profile.formats:PROFGEN",
    "pylbr.profile.formats:LLVM_PROFILE",
    "pylbr.profile.formats:PPROF",
    "pylbr.profile.formats:GO_PROFILE",
    "pylbr.profile.formats:FOLDED",
    "pylbr.profile.formats:SPEEDSCOPE",
    "pylbr.profile.formats:SPEEDSCOPE_TRACE",
    "pylbr.profile.formats:ENTRIES_CSV",
)


@cache
def formats() -> tuple[Format, ...]:
    """Our formats and those of installed packages, in the order in which they are tried."""
    found: dict[str, Format] = {}
    for name in BUILTIN:
        module, attribute = name.split(":")
        entry = getattr(importlib.import_module(module), attribute)
        found[entry.name] = entry
    for point in entry_points(group=ENTRY_POINT_GROUP):
        entry = point.load()
        if not isinstance(entry, Format):
            raise TypeError(f"entry point {point.name!r} of {ENTRY_POINT_GROUP} is no Format")
        found.setdefault(entry.name, entry)
    return tuple(found.values())


def readable() -> tuple[Format, ...]:
    """The formats that can be read."""
    return tuple(entry for entry in formats() if entry.open is not None)


def read_head(path: str | os.PathLike[str]) -> Head:
    """The first bytes of a file, raw and decompressed.

    Raises
    ------
    TraceError
        It does not exist, cannot be read or is empty.
    """
    name = os.fspath(path)
    if os.path.isdir(path):
        return Head(name, b"", b"", True)
    with ByteSource(path) as source:
        data = source.read(HEAD_SIZE)
        if not source.compression:
            raw = data
        else:
            with open(path, "rb") as file:
                raw = file.read(HEAD_SIZE)
    if not raw:
        raise TraceError(path, "is empty", 0)
    return Head(name, raw, data)


def detect(path: str | os.PathLike[str], name: str | None = None) -> Format:
    """Format of a file, by its content, or the one called `name`.

    Raises
    ------
    TraceError
        It cannot be read, or no format recognises it.
    """
    known = readable()
    if name is not None:
        for entry in known:
            if entry.name == name:
                return entry
        raise TraceError(path, f"no format {name!r}; there are {', '.join(f.name for f in known)}")
    head = read_head(seekable(os.fspath(path)))
    if head.data[257:262] == b"ustar":
        raise TraceError(path, "is a tar archive; take the file that you want out of it first "
                         "(tar -xf)", 0)
    for entry in known:
        if entry.sniff(head):
            return entry
    inside = Head(head.path, head.data, head.data)
    for entry in known:
        if head.raw[:4] != head.data[:4] and entry.sniff(inside):
            raise TraceError(path, f"is a compressed {entry.name} file; decompress it first", 0)
    names = ", ".join(entry.name for entry in known)
    raise TraceError(path, f"is of no known format ({names}); name it with --from if it is one", 0)


def open_any(
    path: str | os.PathLike[str], format: str | None = None, **options: Any
) -> Trace | Stacks:
    """Open a trace or a file of stacks; `options` as `Options`.

    A pipe, and ``-`` for standard input, are written to a file without a name first.
    """
    path = seekable(os.fspath(path))
    reader = detect(path, format).open
    assert reader is not None  # `detect` finds readable formats alone
    found = reader(path, Options(**options))
    if isinstance(found, Stacks):
        found.reopen = lambda: open_stacks(path, format, **options)
    return found


def open_trace(path: str | os.PathLike[str], format: str | None = None, **options: Any) -> Trace:
    """Open a trace of any known format.

    Parameters
    ----------
    path : path-like
    format : str, optional
        Name of the format, where the content would mislead.
    **options
        As `Options`: modules, verify, mmap.

    Raises
    ------
    TraceError
        Not a trace, or not readable.
    """
    found = open_any(path, format, **options)
    if not isinstance(found, Trace):
        found.close()
        raise TraceError(
            path, "holds branch stacks, not a trace: between two samples branches are missing. "
            "Use pylbr report or pylbr convert on it as it is"
        )
    return found


def open_stacks(
    path: str | os.PathLike[str], format: str | None = None, **options: Any
) -> Stacks:
    """Open a file of branch stacks of any known format; parameters as `open_trace`.

    Raises
    ------
    TraceError
        Not a file of stacks, or not readable.
    """
    found = open_any(path, format, **options)
    if not isinstance(found, Stacks):
        found.close()
        raise TraceError(path, "holds a trace, not branch stacks; pylbr replay makes them of it")
    return found


def output_suffixes(kind: str) -> tuple[str, ...]:
    """Suffixes of the files that a trace, or a file of stacks, can be written as."""
    return tuple(suffix for entry in formats() if entry.kind == kind and entry.write is not None
                 for suffix in entry.suffixes)


def output_format(path: str | os.PathLike[str], kind: str) -> Format | None:
    """Format of this kind that the suffix of an output file chooses; None if it is of none."""
    name = Path(path).name.lower()
    return next((entry for entry in formats() if entry.kind == kind and entry.write is not None
                 and name.endswith(entry.suffixes)), None)
