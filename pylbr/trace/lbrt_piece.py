"""Payload of a piece: rows that can be read without those before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lbrcore import BRANCH_DTYPE
from pylbr.trace._edges import to_varints, varints
from pylbr.trace.lbrt_layout import (
    MAX_EDGES,
    MAX_ROWS,
    SMALL_ROWS,
    VALUES,
    LayoutError,
    add_words,
    value_words,
)
from pylbr.trace.lbrt_streams import StreamReader, StreamWriter
from pylbr.trace.schema import column_dtype

__all__ = ["Piece", "Runs", "pack_piece", "pack_rows", "parse_piece", "parse_rows"]


class Runs(NamedTuple):
    """Values of a column that seldom change: (runs,) uint32 each, values and lengths."""

    values: np.ndarray
    lengths: np.ndarray

    def column(self) -> np.ndarray:
        """(rows,) uint32."""
        return np.repeat(self.values, self.lengths)


class Piece(NamedTuple):
    """A piece, its streams unpacked.

    Attributes
    ----------
    rows : int
    tasks, cpus : Runs
        Empty `cpus` if the file has no such column.
    order, nodes : (runs,) and (tasks,) arrays of uint32
        Tasks of the runs by order of appearance, and where each stands at first.
    streams : tuple of bytes
        Runs, guesses and ranks; one of the small coding.
    differences : dict of str to (rows,) array of uint32
        What is to be added to a column's values.
    """

    rows: int
    tasks: Runs
    cpus: Runs
    order: np.ndarray
    nodes: np.ndarray
    streams: tuple[bytes, ...]
    differences: dict[str, np.ndarray]


def _pack_runs(write: StreamWriter, runs: Runs) -> None:
    write.numbers(np.column_stack(runs).reshape(-1))


def _parse_runs(read: StreamReader, count: int) -> Runs:
    numbers = read.numbers(None, 2 * count)
    values, lengths = numbers[::2], numbers[1::2]
    if len(numbers) % 2 or not len(numbers) or values.max() >= 1 << 32:
        raise LayoutError("runs that are no pairs of numbers")
    if lengths.max() > count or not lengths.min() or int(lengths.sum()) != count:
        raise LayoutError("runs of other rows than the piece has")
    return Runs(values.astype(np.uint32), lengths.astype(np.uint32))


def pack_piece(
    count: int, tasks: Runs, cpus: Runs | None, nodes: np.ndarray,
    streams: tuple[bytes, ...], differences: Mapping[str, np.ndarray],
) -> bytes:
    """Payload of a piece; parameters as `Piece` has them."""
    write = StreamWriter()
    write.number(count)
    present = {name: words for name, words in differences.items() if words.any()}
    write.number(sum(1 << VALUES.index(name) for name in present))
    _pack_runs(write, tasks)
    write.numbers(nodes)
    if cpus is not None:
        _pack_runs(write, cpus)
    for stream in streams:
        write.stream(stream)
    for name in VALUES:
        if name in present:
            write.stream(_pack_words(present[name]))
    return write.data


def _pack_words(words: np.ndarray) -> bytes:
    """Differences: those that are not 0 with their distances, or the four bytes of all apart."""
    where = np.flatnonzero(words)
    if len(where) * 4 > len(words):
        return b"\1" + words.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes()
    distances = np.diff(where, prepend=-1) - 1
    pairs = np.concatenate([[len(where)], distances, words[where]]).astype(np.uint64)
    return b"\0" + to_varints(pairs)


def _parse_words(data: bytes, count: int) -> np.ndarray:
    if data[:1] == b"\1":
        if len(data) != 1 + 4 * count:
            raise LayoutError("differences of other rows than the piece has")
        planes = np.frombuffer(data, np.uint8, offset=1).reshape(4, count)
        return np.ascontiguousarray(planes.T).view("<u4").reshape(-1).astype(np.uint32)
    try:
        numbers = varints(data[1:])
    except ValueError as error:
        raise LayoutError(str(error)) from error
    some = int(numbers[0]) if len(numbers) else -1
    if data[:1] != b"\0" or len(numbers) != 1 + 2 * some:
        raise LayoutError("differences of an unknown form")
    words = np.zeros(count, np.uint32)
    distances, values = numbers[1:1 + some], numbers[1 + some:]
    if some:
        where = np.cumsum(distances + np.uint64(1), dtype=np.uint64) - np.uint64(1)
        if distances.max() >= count or where.max() >= count or values.max() >= 1 << 32:
            raise LayoutError("differences out of range")
        words[where] = values
    return words


def parse_piece(payload: bytes, columns: Sequence[str], small: bool = False) -> Piece:
    """The reverse of `pack_piece`; `small`: in the small coding.

    Raises
    ------
    LayoutError
    """
    read = StreamReader(payload)
    count = read.number(SMALL_ROWS if small else MAX_ROWS)
    mask = read.number((1 << len(VALUES)) - 1)
    tasks = _parse_runs(read, count)
    seen: dict[int, int] = {}
    order = np.array(
        [seen.setdefault(task, len(seen)) for task in tasks.values.tolist()], np.uint32)
    nodes = read.numbers(len(seen), len(seen))
    if nodes.max() > MAX_EDGES:
        raise LayoutError("a place that does not exist")
    cpus = _parse_runs(read, count) if "cpu" in columns else Runs(order[:0], order[:0])
    # Bytes per row of each stream, at most.
    streams = tuple(read.stream(most * count + 16) for most in ((48,) if small else (2, 8, 5)))
    differences = {name: _parse_words(read.stream(10 + 20 * count), count)
                   for i, name in enumerate(VALUES) if mask >> i & 1}
    read.end()
    return Piece(count, tasks, cpus, order, nodes.astype(np.uint32), streams, differences)


def apply_differences(piece: Piece, rows: np.ndarray, first: int) -> None:
    """Add a piece's differences to its rows from `first` on."""
    for name, words in piece.differences.items():
        add_words(rows, name, words[first:first + len(rows)])


def pack_rows(rows: np.ndarray, tasks: Runs, cpus: Runs | None, columns: Sequence[str]) -> bytes:
    """Payload of rows that have no graph: column by column."""
    write = StreamWriter()
    write.number(len(rows))
    _pack_runs(write, tasks)
    if cpus is not None:
        _pack_runs(write, cpus)
    for name in columns:
        if name in (BRANCH_DTYPE.names or ()):
            column = np.ascontiguousarray(rows[name])
            write.stream(column.view(np.uint8).reshape(len(rows), -1).T.tobytes())
    return write.data


def parse_rows(payload: bytes, columns: Sequence[str]) -> tuple[np.ndarray, Runs, Runs]:
    """The reverse of `pack_rows`.

    Raises
    ------
    LayoutError
    """
    read = StreamReader(payload)
    count = read.number(MAX_ROWS)
    tasks = _parse_runs(read, count)
    cpus = _parse_runs(read, count) if "cpu" in columns else Runs(*2 * [tasks.values[:0]])
    rows = np.zeros(count, BRANCH_DTYPE)
    for name in columns:
        if name in (BRANCH_DTYPE.names or ()):
            dtype = column_dtype(name)
            data = np.frombuffer(read.stream(count * dtype.itemsize), np.uint8)
            if len(data) != count * dtype.itemsize:
                raise LayoutError("a column that is cut off")
            plain = np.ascontiguousarray(data.reshape(-1, count).T)
            rows[name] = plain.view(dtype.base).reshape(rows[name].shape)
    read.end()
    return rows, tasks, cpus


def value_differences(
    rows: np.ndarray, expected: np.ndarray, columns: Sequence[str]
) -> dict[str, np.ndarray]:
    """By how much the values of some rows are more than those of their edges."""
    return {name: value_words(rows, name) - value_words(expected, name)
            for name in VALUES if name in columns}
