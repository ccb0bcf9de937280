"""Writing a .lbrt file, while branches arrive."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from lbrcore import BRANCH_DTYPE
from pylbr.files.closing import Discarding
from pylbr.files.output import AtomicFile
from pylbr.trace._edges import Edges, renumber
from pylbr.trace._small import Small
from pylbr.trace._walk import Walk
from pylbr.trace.check import check_branches
from pylbr.trace.lbrt_graph import pack_graph, starts_of
from pylbr.trace.lbrt_layout import (
    GRAPH,
    INDEX,
    KINDS,
    MAGIC,
    MAX_EDGES,
    META,
    PARITY,
    PIECE,
    PIECE_ROWS,
    ROWS,
    SMALL,
    SMALL_ROWS,
    add_words,
    pack_part,
    pack_stream,
    pack_trailer,
)
from pylbr.trace.lbrt_mending import pack_parity
from pylbr.trace.lbrt_piece import Runs, pack_piece, pack_rows, value_differences
from pylbr.trace.lbrt_streams import StreamWriter
from pylbr.trace.metadata import METADATA_KEY, Metadata, encode_metadata
from pylbr.trace.schema import COLUMNS, REQUIRED

__all__ = ["GROUP_ROWS", "STEP_ROOM", "LbrtWriter", "Steps"]

#: Rows that wait for the graph that foretells them.
GROUP_ROWS: Final = 1 << 22
#: New edges at which a group ends early, so that memory stays bounded.
_NEW_EDGES: Final = 1 << 19
#: A group with more than one new edge per so many rows is no program's: its rows are kept plain.
_ROWS_PER_EDGE: Final = 4
#: Rows that `LbrtWriter.write_steps` has room for at least, and asks for at most.
STEP_ROOM: Final = 16
_STEP_ROWS: Final = 1 << 18
#: Fewer rows than this count as so many.
_FEW_ROWS: Final = 1 << 14


#: (array for numbers, last) -> (how many there are, last, which of them have other values than
#: their edge, the rows of these).
Steps = Callable[[np.ndarray, int], tuple[int, int, np.ndarray, np.ndarray]]


class LbrtWriter(Discarding):
    """Writes a trace as .lbrt; parameters and behaviour as `pylbr.trace.Writer`.

    Parameters
    ----------
    path, metadata, columns
    small : bool
        In the small coding: about half the size, a tenth of the speed, and reading begins only at
        every 1,048,576th row.

    Attributes
    ----------
    count : int
        Branches so far.
    columns : tuple of str
    metadata : Metadata
        May be replaced until `close`: tasks and modules become known as a program runs.
    counting : callable
        Called before the uses of edges are read.
    renumbered : callable
        Called when edges have other numbers than before.
    """

    def __init__(
        self, path: str | os.PathLike[str], metadata: Metadata | None = None,
        columns: Sequence[str] | None = None, small: bool = False,
    ) -> None:
        wanted = {*REQUIRED, *(BRANCH_DTYPE.names or () if columns is None else columns)}
        if wanted - set(COLUMNS):
            raise ValueError(f"no such column: {', '.join(sorted(wanted - set(COLUMNS)))}")
        self.columns = tuple(name for name in COLUMNS if name in wanted)
        self.path, self.count = os.fspath(path), 0
        self.metadata = metadata or Metadata()
        self._masks = _masks(self.columns)
        self._edges = Edges(*self._masks)
        self._settled = (0, 1)
        self._graphs: list[bytes] = []
        self._walk: Walk | Small | None = None
        self._kind, self._piece_rows = (SMALL, SMALL_ROWS) if small else (PIECE, PIECE_ROWS)
        self.counting: Callable[[], object] = lambda: None
        self.renumbered: Callable[[], object] = lambda: None
        self._numbers = np.empty(GROUP_ROWS, np.uint32)
        self._fill = 0
        self._last: dict[int, int] = {}
        self._place: dict[int, int] = {}
        self._tasks = _RunBuffer()
        self._cpus = _RunBuffer() if "cpu" in self.columns else None
        self._differences: dict[str, np.ndarray] = {}
        self._index: list[tuple[bytes, int, int]] = []
        self._file = AtomicFile(path)
        try:
            self._file.file.write(MAGIC)
            self._write_metadata()
        except OSError as error:
            self._file.discard()
            raise self._file.failure(error) from error
        except BaseException:
            self._file.discard()
            raise

    def write(
        self, branches: np.ndarray, task: np.ndarray | int | None = None,
        cpu: np.ndarray | int | None = None,
    ) -> None:
        """Append branches; as `pylbr.trace.Writer.write`."""
        if branches.dtype != BRANCH_DTYPE:
            raise ValueError(f"branches of dtype {branches.dtype}, not BRANCH_DTYPE")
        for name, value in (("task", task), ("cpu", cpu)):
            if value is not None and name not in self.columns:
                raise ValueError(f"{name} given, but the file has no such column")
        branches = np.ascontiguousarray(branches)
        done = 0
        while done < len(branches):
            stop = done + min(len(branches) - done, GROUP_ROWS - self._fill, 1 << 18)
            part = slice(done, stop)
            self._take(branches[part], _part_of(task, part), _part_of(cpu, part))
            done = stop
            new = self._edges.edges - self._settled[0]
            if self._fill == GROUP_ROWS or new > _NEW_EDGES:
                self.flush()
        self.count += len(branches)

    def _take(
        self, branches: np.ndarray, task: np.ndarray | int, cpu: np.ndarray | int
    ) -> None:
        """Number some branches, which fit into the group."""
        first, n, differing = self._fill, len(branches), self._edges.differing
        known = self._edges.edges
        out = self._numbers[first:first + n]
        runs = _runs(task, n)
        at = 0
        for number, length in zip(runs.values.tolist(), runs.lengths.tolist(), strict=True):
            self._last[number] = self._edges.number(
                branches[at:at + length], out[at:at + length], self._last.get(number, 0))
            at += length
        if self._edges.edges != known:  # what is like an edge has its class
            check_branches(self.path, self._edges.rows_of(
                np.arange(known, self._edges.edges, dtype=np.uint32)))
        self._tasks.add(runs)
        if self._cpus is not None:
            self._cpus.add(_runs(cpu, n))
        if self._edges.differing != differing:
            where = _places(branches, self._edges.rows_of(out), self._masks)
            self._differ(branches[where], out[where], first + where)
        self._fill += n

    @property
    def edges(self) -> Edges:
        """What numbers the steps of this trace."""
        return self._edges

    def write_steps(self, task: int, steps: Steps) -> int:
        """Append branches of one thread whose edges `steps` numbers itself.

        Parameters
        ----------
        task : int
            The thread's id.
        steps : callable
            Called with an array for the numbers of edges, at least `STEP_ROOM` uint32, and 1 +
            the number of the thread's edge before, or 0; returns as `Steps` has it.

        Returns
        -------
        int
            Rows that were appended.
        """
        first, known = self._fill, self._edges.edges
        out = self._numbers[first:first + _STEP_ROWS]
        count, last, where, branches = steps(out, self._last.get(task, 0))
        self._last[task] = last
        if self._edges.edges != known:
            check_branches(self.path, self._edges.rows_of(
                np.arange(known, self._edges.edges, dtype=np.uint32)))
        if count:
            self._tasks.add(_runs(task, count))
            if self._cpus is not None:
                self._cpus.add(_runs(0, count))
        if len(where):
            self._differ(branches, out[where], first + where)
        self._fill += count
        self.count += count
        if (GROUP_ROWS - self._fill < STEP_ROOM
                or self._edges.edges - self._settled[0] > _NEW_EDGES):
            self.flush()
        return count

    def _differ(self, branches: np.ndarray, numbers: np.ndarray, places: np.ndarray) -> None:
        """Note by how much the values of some rows of the group differ from their edges'."""
        check_branches(self.path, branches)
        expected = self._edges.rows_of(numbers)
        for name, words in value_differences(branches, expected, self.columns).items():
            if words.any():
                if name not in self._differences:
                    self._differences[name] = np.zeros(GROUP_ROWS, np.uint32)
                self._differences[name][places] = words

    def flush(self) -> None:
        """Write all branches so far into the file."""
        if not self._fill:
            return
        self.counting()
        edges, nodes = self._settled
        new = self._edges.edges - edges
        plain = new * _ROWS_PER_EDGE > max(self._fill, _FEW_ROWS) or self._edges.edges > MAX_EDGES
        rows = PIECE_ROWS if plain else self._piece_rows
        tasks = self._tasks.pieces(self._fill, rows)
        cpus = self._cpus.pieces(self._fill, rows) if self._cpus is not None else None
        try:
            if plain:
                self._plain(tasks, cpus)
                self._edges.forget(edges, nodes)
                self._last, self._place = {}, {}
                self.renumbered()
            else:
                if new or self._walk is None:
                    self._grow(edges, nodes)
                self._pieces(tasks, cpus)
        except OSError as error:
            raise self._file.failure(error) from error
        self._fill = 0
        self._differences = {}

    def _grow(self, edges: int, nodes: int) -> None:
        """Write what the graph has more than before."""
        number = self._edges.settle(edges, nodes)
        renumber(self._numbers[:self._fill], number)
        self._last = {task: int(number[last - 1]) + 1 for task, last in self._last.items() if last}
        self.renumbered()
        rows, source, target, seen, addresses = self._edges.table()
        starts = starts_of(source, seen, edges, len(addresses))
        payload = pack_graph(rows, source, target, addresses, starts[1], edges, nodes,
                             self.columns)
        self._part(GRAPH, payload)
        self._graphs.append(payload)
        # The values of the nodes that this part does not change stay as they were.
        self._starts = [*getattr(self, "_starts", []), starts]
        self._limits = [*getattr(self, "_limits", []), len(rows)]
        if self._kind == SMALL:
            self._walk = Small(source, target, len(addresses), self._limits)
        else:
            self._walk = Walk(rows, source, target, len(addresses), self._limits, self._starts)
        self._walk.use(len(self._limits))
        self._target = target
        self._settled = (len(rows), len(addresses))

    def _pieces(self, tasks: list[Runs], cpus: list[Runs] | None) -> None:
        assert self._walk is not None
        for i, runs in enumerate(tasks):
            part = slice(i * self._piece_rows, min((i + 1) * self._piece_rows, self._fill))
            numbers = self._numbers[part]
            seen: dict[int, int] = {}
            order = [seen.setdefault(task, len(seen)) for task in runs.values.tolist()]
            nodes = np.array([self._place.get(task, 0) for task in seen], np.uint32)
            streams = self._walk.encode(numbers, np.array(order, np.uint32), runs.lengths, nodes)
            ends = np.cumsum(runs.lengths) - 1
            for task, node in zip(runs.values.tolist(), self._target[numbers[ends]].tolist(),
                                  strict=True):
                self._place[task] = node
            differences = {name: words[part] for name, words in self._differences.items()}
            payload = pack_piece(
                len(numbers), runs, cpus[i] if cpus else None, nodes,
                streams if isinstance(streams, tuple) else (streams,), differences)
            self._part(self._kind, payload, len(numbers))

    def _plain(self, tasks: list[Runs], cpus: list[Runs] | None) -> None:
        rows = self._edges.rows_of(self._numbers[:self._fill])
        for name, words in self._differences.items():
            add_words(rows, name, words[:self._fill])
        for i, runs in enumerate(tasks):
            part = rows[i * PIECE_ROWS:(i + 1) * PIECE_ROWS]
            self._part(ROWS, pack_rows(part, runs, cpus[i] if cpus else None, self.columns),
                       len(part))

    def _part(self, kind: bytes, payload: bytes, rows: int = 0) -> None:
        self._file.file.write(pack_part(kind, payload))
        self._index.append((kind, len(payload), rows))

    def _write_metadata(self) -> None:
        text = encode_metadata(self.metadata, self.columns)[METADATA_KEY]
        self._part(META, pack_stream(text, 19))

    @property
    def size(self) -> int:
        """Bytes in the file so far; rows that wait for their group are not among them."""
        return self._file.file.tell()

    def close(self) -> None:
        """Complete the file and give it its name."""
        try:
            self.flush()
            self._write_metadata()  # once more, so that damage to one costs nothing
            if self._graphs:
                self._part(PARITY, pack_parity(self._graphs))
            offset = self._file.file.tell()
            self._file.file.write(pack_part(INDEX, _pack_index(self._index)))
            self._file.file.write(pack_trailer(offset))
        except BaseException as error:
            self.discard()
            if isinstance(error, OSError):
                raise self._file.failure(error) from error
            raise
        self._file.commit()

    def discard(self) -> None:
        """Remove what was written."""
        self._file.discard()


def _masks(columns: Sequence[str]) -> tuple[int, int]:
    """Bits of the third and fourth word of a row whose columns are kept."""
    every = np.zeros(1, BRANCH_DTYPE)
    for name in columns:
        if name in (BRANCH_DTYPE.names or ()):
            every[name] = np.iinfo(BRANCH_DTYPE[name].base).max
    return struct.unpack("<2Q", every.tobytes()[16:])


def _places(branches: np.ndarray, edges: np.ndarray, masks: tuple[int, int]) -> np.ndarray:
    """Which of some rows have other values than their edges, in the columns that are kept."""
    words, others = (np.ascontiguousarray(rows).view("<u8").reshape(-1, 4)
                     for rows in (branches, edges))
    differ = np.zeros(len(branches), np.uint64)
    for at, mask in zip((2, 3), masks, strict=True):
        differ |= (words[:, at] ^ others[:, at]) & np.uint64(mask)
    return np.flatnonzero(differ)


def _part_of(value: np.ndarray | int | None, part: slice) -> np.ndarray | int:
    if isinstance(value, np.ndarray):
        return value[part] if value.ndim else int(value)
    return 0 if value is None else value


def _runs(values: np.ndarray | int, count: int) -> Runs:
    if not isinstance(values, np.ndarray):
        return Runs(np.array([values], np.uint32), np.array([count], np.uint32))
    begin = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    return Runs(values[begin].astype(np.uint32),
                np.diff(begin, append=count).astype(np.uint32))


class _RunBuffer:
    """Runs of a group, until they are divided into those of its pieces."""

    def __init__(self) -> None:
        self._runs: list[Runs] = []

    def add(self, runs: Runs) -> None:
        """Runs of the next rows."""
        last = self._runs[-1] if self._runs else None
        if last and len(last.values) == len(runs.values) == 1 and last.values == runs.values:
            self._runs[-1] = Runs(last.values, last.lengths + runs.lengths)
        else:
            self._runs.append(runs)

    def pieces(self, count: int, rows: int) -> list[Runs]:
        """Runs of each piece of so many rows; the buffer is empty after that."""
        values = np.concatenate([runs.values for runs in self._runs])
        ends = np.cumsum(np.concatenate([runs.lengths for runs in self._runs]), dtype=np.int64)
        self._runs = []
        result = []
        if len(values) == 1:
            return [Runs(values, np.array([min(rows, count - first)], np.uint32))
                    for first in range(0, count, rows)]
        for first in range(0, count, rows):
            last = min(first + rows, count)
            low = int(np.searchsorted(ends, first, "right"))
            high = int(np.searchsorted(ends, last, "left")) + 1
            # One run where the value stays: chunks of one task follow each other.
            lengths = np.diff(np.minimum(ends[low:high], last), prepend=first)
            part = values[low:high]
            begin = np.concatenate([[0], np.flatnonzero(part[1:] != part[:-1]) + 1])
            result.append(Runs(part[begin], np.add.reduceat(lengths, begin).astype(np.uint32)))
        return result


def _pack_index(parts: Sequence[tuple[bytes, int, int]]) -> bytes:
    """Kinds, sizes and rows of all parts."""
    write = StreamWriter(19)
    write.number(len(parts))
    write.stream(bytes(KINDS.index(kind) for kind, _, _ in parts))
    write.numbers(np.array([size for _, size, _ in parts], np.uint64))
    write.numbers(np.array([rows for _, _, rows in parts], np.uint64))
    return write.data


