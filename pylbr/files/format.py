"""A file format: how its files are recognised and opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pylbr.files.module import Module

__all__ = ["Format", "Head", "Options"]


@dataclass(frozen=True, slots=True)
class Head:
    """The first bytes of a file.

    Attributes
    ----------
    path : str
    raw : bytes
        As they lie in the file; empty for a directory.
    data : bytes
        Decompressed, if the file is gzip, xz or zstd.
    """

    path: str
    raw: bytes
    data: bytes
    is_directory: bool = False

    def lines(self) -> Iterator[bytes]:
        """Lines of `data`, one at a time; the last may be cut off."""
        at = 0
        while at < len(self.data):
            end = self.data.find(b"\n", at)
            end = len(self.data) if end < 0 else end
            yield self.data[at:end]
            at = end + 1


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a reader.

    Attributes
    ----------
    modules : sequence of Module
        Mapped files, for formats that do not name them.
    verify : bool
        Compare digests and check ranges.
    mmap : bool
        Map containers instead of reading them; a file that shrinks then kills the process.
    """

    modules: Sequence[Module] = field(default=())
    verify: bool = True
    mmap: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Attributes
    ----------
    name : str
        As ``pylbr convert --from`` accepts it.
    description : str
        One line.
    kind : {"trace", "stacks"}
    sniff : callable
        Head -> whether the file is of this format.
    open : callable
        (path, Options) -> `pylbr.trace.Trace` or `pylbr.perf.stacks.Stacks`.  Raises TraceError.
    """

    name: str
    description: str
    kind: Literal["trace", "stacks"]
    sniff: Callable[[Head], bool]
    open: Callable[[str, Options], Any]
