"""A file format: how its files are recognised, opened and written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pylbr.files.module import Module

__all__ = ["Format", "Head", "Options", "WriteOptions"]


def _ignore(value: object) -> None:
    pass


def _never(head: object) -> bool:
    return False


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
class WriteOptions:
    """Options of the writers; each format uses those that concern it.

    Attributes
    ----------
    update : callable
        Called with the number of branches or samples of each batch once it is written.
    note : callable
        Called with one line on what the file lacks.
    rows_per_file : int, optional
        Write a directory of files with this many branches each.
    binary : str, optional
        ELF file, for formats that describe one.
    preagg_form : {"traces", "branches"}, optional
        Lines of pre-aggregated text.
    small : bool
        Take more time for a smaller file, where the format has such a coding.
    """

    update: Callable[[int], object] = _ignore
    note: Callable[[str], object] = _ignore
    rows_per_file: int | None = None
    binary: str | None = None
    preagg_form: str | None = None
    small: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """One format: how it is recognised, read and written.

    Attributes
    ----------
    name : str
        As ``pylbr convert --from`` accepts it.
    description : str
        One line.
    kind : {"trace", "stacks"}
    sniff : callable
        Head -> whether the file is of this format.
    open : callable, optional
        (path, Options) -> `pylbr.trace.Trace` or `pylbr.perf.stacks.Stacks`.  Raises TraceError.
        None: cannot be read.
    write : callable, optional
        (source, path, WriteOptions) -> number of branches or samples written.  Raises
        TraceError, and leaves nothing at `path` then.  None: cannot be written.
    suffixes : tuple of str
        Suffixes of output files that choose this format, lower case.
    """

    name: str
    description: str
    kind: Literal["trace", "stacks"]
    sniff: Callable[[Head], bool] = _never
    open: Callable[[str, Options], Any] | None = None
    write: Callable[[Any, str, WriteOptions], int] | None = None
    suffixes: tuple[str, ...] = ()
