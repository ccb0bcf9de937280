"""Counts of inputs, kept so that an interrupted merge continues where it was.

A part is the counts of one input, in a file of its own that appears when it is complete: one line
that names the input and the digest of the rest, and the counts as JSON.  A part counts only for the
very input and binary that it was made of.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Final

from pylbr.errors import TraceError
from pylbr.files.json_text import decode_json
from pylbr.files.output import AtomicFile
from pylbr.profile.merge import Counts, count_input
from pylbr.profile.remote import identity_of_url, is_url

__all__ = ["Parts"]

_VERSION: Final = 1
_TABLES: Final = ("edges", "mispredicted", "traces", "ips")


class Parts:
    """A directory of parts.

    Parameters
    ----------
    directory : str
        Made if it does not exist.

    Raises
    ------
    TraceError
        It cannot be made.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise TraceError(directory, f"cannot be made: {error.strerror}") from error

    def count(self, path: str, binary: str) -> Counts:
        """As `count_input`; read from the part of this input if there is one.

        Raises
        ------
        TraceError
            As `count_input`; the part is damaged.
        """
        name = self.path(path)
        key = [_VERSION, _identity(path), _identity(binary)]
        if name.exists():
            found = _read(name, key)
            if found is not None:
                return found
        counts = count_input(path, binary)
        with AtomicFile(name) as output:
            output.file.write(_packed(counts, key))
        return counts

    def path(self, path: str) -> Path:
        """The part of an input."""
        real = path if is_url(path) else os.path.realpath(path)
        digest = hashlib.sha256(real.encode()).hexdigest()[:16]
        name = os.path.basename(path.partition("?")[0] if is_url(path) else path)
        return Path(self.directory) / f"{name}.{digest}.part.json"


def _identity(path: str) -> list[Any]:
    """What changes when a file is another one."""
    if is_url(path):
        return identity_of_url(path)
    files = sorted(Path(path).iterdir()) if os.path.isdir(path) else [Path(path)]
    try:
        states = [(str(file), file.stat()) for file in files]
    except OSError as error:
        raise TraceError(path, f"cannot be read: {error.strerror}") from error
    return [[os.path.realpath(name), state.st_size, state.st_mtime_ns] for name, state in states]


def _packed(counts: Counts, key: list[Any]) -> bytes:
    tables = {
        name: [[*(k if isinstance(k, tuple) else (k,)), v]
               for k, v in sorted(getattr(counts, name).items())]
        for name in _TABLES
    }
    body = json.dumps({**tables, "branches": counts.branches, "samples": counts.samples},
                      separators=(",", ":")).encode()
    return json.dumps([key, hashlib.sha256(body).hexdigest()]).encode() + b"\n" + body


def _read(name: Path, key: list[Any]) -> Counts | None:
    """Counts of a part; None if it is of another input, binary or version."""
    try:
        head, _, body = name.read_bytes().partition(b"\n")
        found, digest = decode_json(head)
        if hashlib.sha256(body).hexdigest() != digest:
            raise ValueError("its digest differs")
        if found != key:
            return None
        content = decode_json(body)
        counts = Counts(branches=content["branches"], samples=content["samples"])
        for table in _TABLES:
            rows = content[table]
            setattr(counts, table, Counter({
                (row[0] if table == "ips" else tuple(row[:-1])): row[-1] for row in rows}))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise TraceError(name, f"is damaged ({error}); remove it, and its input is counted "
                         "again") from error
    return counts
