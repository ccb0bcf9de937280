"""The graph of a .lbrt file: edges by number, in parts that each add to those before."""

from __future__ import annotations

from typing import Final

import numpy as np

from lbrcore import BRANCH_DTYPE
from pylbr.trace._small import Small
from pylbr.trace._walk import Walk
from pylbr.trace.lbrt_layout import MAX_EDGES, VALUES, LayoutError, add_words, value_words
from pylbr.trace.lbrt_streams import StreamReader, StreamWriter

__all__ = ["Graph", "pack_graph", "starts_of"]

#: A way that is taken less often than this share of a node's visits: the other one is certain,
#: or likely.
_CERTAIN: Final = 32
_LIKELY: Final = 4
_BIG: Final = 1 << 17


class Graph:
    """Nodes and edges as the parts read so far contain them.

    Attributes
    ----------
    addresses : (nodes,) array of uint64
    rows : (edges,) array of BRANCH_DTYPE
    source, target : (edges,) arrays of uint32
    limits : list of int
        Edges after each part.
    starts : list of (nodes, values)
        Of each part, as `Walk` takes them.
    """

    def __init__(self) -> None:
        self.addresses = np.zeros(1, np.uint64)
        self.rows = np.empty(0, BRANCH_DTYPE)
        self.source = self.target = np.empty(0, np.uint32)
        self.limits: list[int] = []
        self.starts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, payload: bytes, columns: tuple[str, ...]) -> None:
        """Take the next graph part.

        Raises
        ------
        LayoutError
        """
        read = StreamReader(payload)
        if (read.number(), read.number()) != (len(self.addresses), len(self.rows)):
            raise LayoutError("a graph part is missing before it")
        nodes = read.number(MAX_EDGES)
        edges = read.number(MAX_EDGES - len(self.rows))
        deltas = read.numbers(nodes, nodes)
        addresses = np.concatenate([self.addresses, np.cumsum(deltas, dtype=np.uint64)])
        source = np.cumsum(read.numbers(edges, edges), dtype=np.uint64)
        rows = np.zeros(edges, BRANCH_DTYPE)
        from_ = read.signed(edges).view(np.uint64)
        target = source + read.signed(edges).view(np.uint64)
        if edges and (source.max() >= len(addresses) or target.max() >= len(addresses)):
            raise LayoutError("an edge of a node that does not exist")
        again = np.zeros(edges, bool)
        again[1:] = source[1:] == source[:-1]
        rows["from"] = _restored(from_, addresses[source], again)
        rows["to"] = addresses[target]
        kinds = np.frombuffer(read.stream(edges), np.uint8)
        if len(kinds) != edges:
            raise LayoutError("classes are missing")
        rows["class"], rows["cpl_from"] = kinds & 15, kinds >> 4 & 3
        rows["cpl_to"] = kinds >> 6
        for column in VALUES:
            if column in columns:
                values = read.numbers(edges, edges)
                if edges and values.max() >= (8 if column == "flags" else 1 << 32):
                    raise LayoutError(f"{column} out of range")
                add_words(rows, column, values.astype(np.uint32))
        self.rows = np.concatenate([self.rows, rows])
        self.source = np.concatenate([self.source, source.astype(np.uint32)])
        self.target = np.concatenate([self.target, target.astype(np.uint32)])
        self.addresses = addresses
        self.limits.append(len(self.rows))
        many = _branching(self.source, len(self.rows) - edges, len(addresses))
        values = read.numbers(len(many), edges)
        if len(many) and values.max() >= MAX_EDGES:
            raise LayoutError("a starting value out of range")
        self.starts.append((many, values.astype(np.uint32)))
        read.end()

    def walk(self) -> Walk:
        """The codec for this graph."""
        return Walk(self.rows, self.source, self.target, len(self.addresses), self.limits,
                    self.starts)

    def small(self) -> Small:
        """The small coding for this graph."""
        return Small(self.source, self.target, len(self.addresses), self.limits)


def _restored(deltas: np.ndarray, places: np.ndarray, again: np.ndarray) -> np.ndarray:
    """Addresses from differences to the edge before, if of the same node, or to the node."""
    if not len(deltas):
        return deltas
    steps = np.where(again, deltas, deltas + places)
    total = np.cumsum(steps, dtype=np.uint64)
    begin = np.maximum.accumulate(np.where(again, 0, np.arange(len(deltas))))
    before = np.zeros(len(deltas), np.uint64)
    before[1:] = total[:-1]
    return total - before[begin]


def _branching(source: np.ndarray, first: int, nodes: int) -> np.ndarray:
    """Nodes that edges from `first` on leave, and that have more than one way; ascending."""
    touched = np.unique(source[first:])
    return touched[np.bincount(source, minlength=nodes)[touched] > 1].astype(np.uint32)


def starts_of(
    source: np.ndarray, seen: np.ndarray, first: int, nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes with more than one way that a part changes, and how the guesses there begin.

    Parameters
    ----------
    source, seen : (n,) arrays of uint32
        Of each edge: where from, and how often it was used.
    first, nodes : int
        First edge of the part; nodes that there are.
    """
    many = _branching(source, first, nodes)
    order = np.argsort(source, kind="stable")
    ways = np.bincount(source, minlength=nodes)
    begin = np.concatenate([[0], np.cumsum(ways)])
    uses = seen[order].astype(np.int64)
    values = np.zeros(len(many), np.uint32)
    two = ways[many] == 2
    one, other = uses[begin[many[two]]], uses[begin[many[two]] + 1]
    least, total, taken = np.minimum(one, other), one + other, other > one
    kind = np.where(least * _CERTAIN < total, 1, np.where(least * _LIKELY < total, 3, 0))
    values[two] = np.where(kind > 0, kind + taken, 0)
    for i in np.flatnonzero(~two):
        values[i] = uses[begin[many[i]]:begin[many[i] + 1]].argmax()
    return many, values


def pack_graph(
    rows: np.ndarray, source: np.ndarray, target: np.ndarray, addresses: np.ndarray,
    values: np.ndarray, first_edge: int, first_node: int, columns: tuple[str, ...],
) -> bytes:
    """Payload of a graph part: the edges and nodes from these numbers on."""
    new = slice(first_edge, None)
    write = StreamWriter(19 if len(rows) - first_edge < _BIG else 3)
    for number in (first_node, first_edge, len(addresses) - first_node, len(rows) - first_edge):
        write.number(number)
    write.numbers(np.diff(addresses[first_node:], prepend=np.uint64(0)))
    source_new, target_new = source[new].astype(np.int64), target[new].astype(np.int64)
    write.numbers(np.diff(source_new, prepend=0))
    from_ = rows["from"][new]
    base = addresses[source[new]]
    again = np.zeros(len(from_), bool)
    again[1:] = source_new[1:] == source_new[:-1]
    base[again] = from_[:-1][again[1:]]
    write.signed((from_ - base).view(np.int64))
    write.signed(target_new - source_new)
    kinds = rows["class"][new] | rows["cpl_from"][new] << 4 | rows["cpl_to"][new] << 6
    write.stream(kinds.astype(np.uint8).tobytes())
    for column in VALUES:
        if column in columns:
            write.numbers(value_words(rows[new], column))
    write.numbers(values)
    return write.data
