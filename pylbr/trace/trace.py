"""A trace: branches oldest first, in chunks or by index."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from lbrcore import BRANCH_DTYPE, CTL_ALL, LbrConfig, LbrState
from lbrcore.summary import Summary
from pylbr.arch.bits import CTL_CALL_STACK
from pylbr.errors import TraceError
from pylbr.files.closing import Closing
from pylbr.printable import printable
from pylbr.trace.classes import ClassFiller
from pylbr.trace.metadata import Metadata
from pylbr.trace.schema import BLOCK_ROWS, COLUMNS, column_dtype

__all__ = [
    "CHUNK_ROWS", "Chunk", "ColumnarTrace", "Part", "StreamTrace", "Trace", "checked_columns",
]

#: Branches in a chunk, except where the source gives smaller ones.
CHUNK_ROWS = 1 << 18
_FIRST_WINDOW = 64
_UPPER_HALF = np.uint64(1 << 63)


class Chunk:
    """Branches in a row; a column is read when it is asked for.

    Attributes
    ----------
    start : int
        Index in the trace of the chunk's first branch.
    columns : tuple of str
        Columns that the source has.
    """

    def __init__(
        self, start: int, count: int, columns: Sequence[str],
        load: Callable[[str], np.ndarray], filler: ClassFiller,
        rows: Callable[[], np.ndarray] | None = None,
    ) -> None:
        self.start, self.columns = start, tuple(columns)
        self._count, self._load, self._filler, self._rows = count, load, filler, rows
        self._columns: dict[str, np.ndarray] = {}
        self._branches: np.ndarray | None = None
        self.wanted: tuple[str, ...] = COLUMNS

    def __len__(self) -> int:
        return self._count

    def column(self, name: str) -> np.ndarray:
        """One column, oldest branch first; reads nothing else where the format allows.

        A column that the source lacks is 0, except `class`, which is found by decoding the
        instruction at FROM, and `cpl_from` and `cpl_to`: 3 for addresses in the lower half,
        0 in the upper.

        Raises
        ------
        TraceError
            The source is damaged, or no module covers a FROM whose class is wanted.
        """
        if name not in self._columns:
            if name in self.columns:
                self._columns[name] = self._load(name)
            elif name == "class":
                self._columns[name] = self._filler.classes(
                    self.column("from"), self.column("to"), self.start, self.task
                )
            elif name in ("cpl_from", "cpl_to"):
                address = self.column(name[4:])
                self._columns[name] = np.where(address < _UPPER_HALF, 3, 0).astype(np.uint8)
            else:
                dtype = column_dtype(name)
                self._columns[name] = np.zeros(self._count, dtype)
        return self._columns[name]

    @property
    def branches(self) -> np.ndarray:
        """All of it as BRANCH_DTYPE; columns that were not asked for stay 0."""
        if self._branches is None and self._rows is not None and self._all():
            self._branches = self._rows()
        if self._branches is None:
            branches = np.zeros(self._count, BRANCH_DTYPE)
            for name in BRANCH_DTYPE.names or ():
                if name in self.wanted and (name in self.columns or name in _DERIVED):
                    branches[name] = self.column(name)
            self._branches = branches
        return self._branches

    def _all(self) -> bool:
        """Whether the source has rows as they are wanted."""
        names = set(BRANCH_DTYPE.names or ())
        return names <= set(self.wanted) and set(_DERIVED) <= set(self.columns)

    @property
    def task(self) -> np.ndarray | None:
        """(n,) uint32 thread ids, or None if the source has none."""
        return self.column("task") if "task" in self.columns else None

    @property
    def cpu(self) -> np.ndarray | None:
        """(n,) uint32 logical processors, or None if the source has none."""
        return self.column("cpu") if "cpu" in self.columns else None


_DERIVED = ("class", "cpl_from", "cpl_to")


class Trace(Closing):
    """An open trace.

    Attributes
    ----------
    path : str
    metadata : Metadata
    columns : tuple of str
        Columns that the source has, in the order of `schema.COLUMNS`.
    count : int or None
        Branches; None if it takes reading to the end.
    notes : tuple of str
        Remarks for the user, once the trace has been read.
    """

    path: str
    metadata: Metadata
    columns: tuple[str, ...]
    count: int | None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        count = "an unknown number of" if self.count is None else f"{self.count:,}"
        modules = len(self.metadata.modules)
        return printable(
            f"Trace {str(self.path)!r}: {count} branches with {', '.join(self.columns)}; "
            f"{modules or 'no'} module{'s' * (modules != 1)}")

    @abstractmethod
    def chunks(self, columns: Sequence[str] | None = None, start: int = 0) -> Iterator[Chunk]:
        """Chunks from branch `start` to the end.

        Parameters
        ----------
        columns : sequence of str, optional
            What `Chunk.branches` shall hold; all by default.
        """

    def read(self, start: int, stop: int) -> np.ndarray:
        """Branches `start` to `stop`, exclusive, as BRANCH_DTYPE.

        Both are cut to the length of the trace.  A container reads just these; other
        formats are read from their beginning.
        """
        start, left = max(start, 0), stop - max(start, 0)
        parts = []
        if left > 0:
            for chunk in self.chunks(start=start):
                parts.append(chunk.branches[:left])
                left -= len(parts[-1])
                if left <= 0:
                    break
        return np.concatenate(parts) if parts else np.empty(0, BRANCH_DTYPE)

    def lbr_at(self, index: int, lbr: LbrState | None = None) -> LbrState:
        """The facility right after branch `index`, had it recorded from the trace's begin.

        Looks back over as many branches as it takes: the last few, unless the filter lets few
        pass or keeps a call stack, whose oldest call may lie far back;
        `pylbr.sample.LbrIndex` serves those.

        Parameters
        ----------
        index : int
            0 for the first branch.
        lbr : LbrState, optional
            Fresh, with the control that it had from the begin on; default: 32 deep, all
            branches of both rings.  It is left as it was.

        Returns
        -------
        LbrState
            Its records and cycle counts are exact; LER and TOS are not looked for.

        Raises
        ------
        IndexError
            The trace has no such branch.
        """
        if index < 0:
            raise IndexError(f"index: must not be negative: {index}")
        if lbr is None:
            lbr = LbrState(LbrConfig())
            lbr.ctl = CTL_ALL & ~CTL_CALL_STACK
        else:
            lbr = lbr.copy()
        window, stop = _FIRST_WINDOW, index + 1
        while True:
            start = max(stop - window, 0)
            branches = self.read(start, stop)
            if len(branches) < stop - start:
                raise IndexError(f"index: {self.path} has fewer than {stop} branches")
            summary = Summary(lbr, branches)
            if start == 0 or summary.complete:
                summary.apply(lbr)
                return lbr
            window *= 4


def checked_columns(columns: Sequence[str] | None) -> tuple[str, ...]:
    """The columns that `Trace.chunks` is asked for."""
    unknown = set(columns or ()) - set(COLUMNS)
    if unknown:
        raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
    return COLUMNS if columns is None else tuple(columns)


class ColumnarTrace(Trace):
    """A trace in groups of rows, each column readable by itself."""

    _ends: list[int]

    def _set_groups(self, rows: Sequence[int]) -> None:
        self._ends = list(accumulate(rows))
        self.count = self._ends[-1] if rows else 0
        self._filler = ClassFiller(self.metadata.modules, self.path, self.metadata.tasks)

    @abstractmethod
    def _load(self, group: int, column: str, low: int, high: int) -> np.ndarray:
        """Rows `low` to `high` of a column of a group."""

    def _chunk(self, group: int, low: int, high: int, wanted: tuple[str, ...]) -> Chunk:
        base = self._ends[group - 1] if group else 0
        chunk = Chunk(
            base + low, high - low, self.columns,
            lambda name: self._load(group, name, low, high), self._filler,
        )
        chunk.wanted = wanted
        return chunk

    def chunks(self, columns: Sequence[str] | None = None, start: int = 0) -> Iterator[Chunk]:
        wanted = checked_columns(columns)
        start = max(start, 0)
        for group in range(bisect_right(self._ends, start), len(self._ends)):
            base = self._ends[group - 1] if group else 0
            rows, low = self._ends[group] - base, max(start - base, 0)
            while low < rows:
                # Whole blocks, so that each is read and checked once.
                high = min(rows, (low // BLOCK_ROWS) * BLOCK_ROWS + CHUNK_ROWS)
                yield self._chunk(group, low, high, wanted)
                low = high

    def read(self, start: int, stop: int) -> np.ndarray:
        start, stop = max(start, 0), min(stop, self.count or 0)
        parts = []
        while start < stop:
            group = bisect_right(self._ends, start)
            base = self._ends[group - 1] if group else 0
            high = min(stop, self._ends[group])
            parts.append(self._chunk(group, start - base, high - base, COLUMNS).branches)
            start = high
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, BRANCH_DTYPE)


class Part(NamedTuple):
    """Branches as a reader finds them."""

    branches: np.ndarray
    task: np.ndarray | None = None
    cpu: np.ndarray | None = None


class StreamTrace(Trace):
    """A trace that can only be read from its beginning.

    Parameters
    ----------
    path, metadata, columns
        As the attributes.
    parts : callable
        Begins to read and gives `Part` after `Part`; called once for each `chunks`.
    """

    def __init__(
        self, path: object, metadata: Metadata, columns: Sequence[str],
        parts: Callable[[], Iterator[Part]],
    ) -> None:
        self.path, self.metadata, self.count = str(path), metadata, None
        self.columns = tuple(name for name in COLUMNS if name in columns)
        self._parts = parts
        self._filler = ClassFiller(metadata.modules, self.path, metadata.tasks)
        self._closed = False

    def chunks(self, columns: Sequence[str] | None = None, start: int = 0) -> Iterator[Chunk]:
        wanted = checked_columns(columns)
        if self._closed:
            raise TraceError(self.path, "the trace has been closed")
        at = 0
        for part in self._parts():
            end = at + len(part.branches)
            if end > start:
                skip = max(start - at, 0)
                chunk = Chunk(
                    at + skip, end - at - skip, self.columns, _loader(part, skip), self._filler
                )
                chunk.wanted = wanted
                yield chunk
            at = end

    def close(self) -> None:
        self._closed = True


def _loader(part: Part, skip: int) -> Callable[[str], np.ndarray]:
    def load(name: str) -> np.ndarray:
        source = {"task": part.task, "cpu": part.cpu}.get(name)
        return part.branches[name][skip:] if source is None else source[skip:]

    return load
