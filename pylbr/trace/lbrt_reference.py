"""A reader of .lbrt files in plain Python: slow, obvious, and the twin of the codec.

It follows docs/trace-format.md line by line and uses nothing of the fast reader; an
implementation elsewhere may start from here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

import zstandard

from pylbr.files.json_text import decode_json
from pylbr.trace.lbrt_small_reference import Voter

__all__ = ["read"]

_M: Final = (1 << 64) - 1
_VALUES: Final = ("instructions", "cycles", "flags", "events")
_BYTES: Final = {"from": 8, "to": 8, "class": 1, "cycles": 4, "instructions": 4, "flags": 1,
                 "cpl_from": 1, "cpl_to": 1, "events": 4}

#: Upper eight bits of the odds of each context at first, in a `PIE2`.
_FIRST_ODDS: Final = bytes.fromhex(
    "79406a404e402d401e400e404a404d4b59316d1b760ba5043b403d3739273a183a0a64042b402c2d2226221d210a4b04"
    "1f402023171f1716120a3c041540161c0d210c21080a21040e401116081a0715060a1f040b400c12051d041607092204"
    "948e5b47341416190e0c0b090d08052a684944341f0608050302010100001446242c1f130d02030201010100000c2f46"
    "0911110603010102010100000c1c39230407080602000101010000d29d686b707d75938b929d87797e99")

Row = dict[str, int]


def parts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and payload of each part up to the index, checksums compared."""
    assert data[:8] == b"\x89LBRT\r\n\x1a"
    at = 8
    while True:
        kind, size, check = struct.unpack_from("<4sII", data, at)
        payload = data[at + 12:at + 12 + size]
        assert zlib.crc32(data[at:at + 8] + payload) == check
        if kind == b"INDX":
            return
        yield kind, payload
        at += 12 + size


class Streams:
    """Varints and streams of a payload, in order."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self) -> int:
        """Seven bits per byte, lowest first; bit 7 where more follow."""
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def end(self) -> bool:
        """Whether nothing follows."""
        return self.at == len(self.data)

    def stream(self) -> bytes:
        """Twice its length, plus 1 if it is a zstd frame; then the bytes."""
        size = self.number()
        data = self.data[self.at:self.at + (size >> 1)]
        self.at += size >> 1
        return zstandard.ZstdDecompressor().decompress(data) if size & 1 else data

    def numbers(self) -> list[int]:
        """A stream of varints."""
        inner = Streams(self.stream())
        found = []
        while inner.at < len(inner.data):
            found.append(inner.number())
        return found

    def signed(self) -> list[int]:
        """The same, signed: the lowest bit is the sign."""
        return [value >> 1 ^ -(value & 1) for value in self.numbers()]


class Node:
    """Where execution arrives: its address, the edges that leave it, how guesses begin."""

    def __init__(self, address: int) -> None:
        self.address, self.start = address, 0
        self.ways: list[int] = []


class Edge:
    """A step: its number, the row it makes, where it leads."""

    def __init__(self, number: int, row: Row, target: int) -> None:
        self.number, self.row, self.target = number, row, target


class Graph:
    """All nodes and edges so far."""

    def __init__(self) -> None:
        self.nodes = [Node(0)]
        self.edges: list[Edge] = []

    def add(self, payload: bytes, columns: list[str]) -> None:
        """Take a graph part."""
        read = Streams(payload)
        assert read.number() == len(self.nodes)
        assert read.number() == len(self.edges)
        nodes, edges = read.number(), read.number()
        address = 0
        for delta in read.numbers():
            address += delta
            self.nodes.append(Node(address))
        sources, froms, targets = read.numbers(), read.signed(), read.signed()
        kinds = read.stream()
        values = {name: read.numbers() for name in _VALUES if name in columns}
        assert len(sources) == edges and len(self.nodes) >= nodes
        source, from_, touched = 0, 0, []
        for i in range(edges):
            again = i and not sources[i]
            source += sources[i]
            from_ = ((from_ if again else self.nodes[source].address) + froms[i]) & _M
            target = source + targets[i]
            row = {"from": from_, "to": self.nodes[target].address, "class": kinds[i] & 15,
                   "cpl_from": kinds[i] >> 4 & 3, "cpl_to": kinds[i] >> 6}
            row |= {name: values[name][i] if name in values else 0 for name in _VALUES}
            self.nodes[source].ways.append(len(self.edges))
            self.edges.append(Edge(len(self.edges), row, target))
            if not again:
                touched.append(source)
        starts = iter(read.numbers())
        for source in touched:
            if len(self.nodes[source].ways) > 1:
                self.nodes[source].start = next(starts)


def mixed(x: int) -> int:
    """An edge's number, its bits scattered."""
    x = x * 0x9E3779B97F4A7C15 & _M
    x = (x ^ x >> 32) * 0xD6E8FEB86659FD93 & _M
    return x ^ x >> 29


def learned(state: int, taken: bool, most: int) -> int:
    """One step towards what happened, or half the way back to nothing."""
    if taken:
        return min(state + 1, most) if state >= 0 else -(-state >> 1)
    return max(state - 1, -most) if state <= 0 else state >> 1


class Bits:
    """Numbers in bits, of a `PIE2`: the lowest bit of each byte is the first.

    So many ones as the number has above its lowest bits, a zero, and those bits, lowest first; how
    many they are is the first byte.
    """

    def __init__(self, data: bytes) -> None:
        self.bits = [byte >> i & 1 for byte in data[1:] for i in range(8)]
        self.rest, self.at = data[0], 0

    def number(self) -> int:
        """The next one."""
        value = 0
        while self.bits[self.at]:
            value, self.at = value + 1, self.at + 1
        found = self.bits[self.at + 1:self.at + 1 + self.rest]
        self.at += 1 + self.rest
        return value << self.rest | sum(bit << i for i, bit in enumerate(found))

    def end(self) -> bool:
        """Whether only zeros follow, less than a byte."""
        return len(self.bits) - self.at < 8 and not any(self.bits[self.at:])


class Guesser:
    """What is guessed, and what the streams contain of the guesses, from a piece's start."""

    def __init__(
        self, graph: Graph, runs: bytes, guesses: bytes, ranks: bytes, second: bool
    ) -> None:
        self.graph, self.speed = graph, 6 if second else 5
        self.runs: Bits | Streams = Bits(runs) if second else Streams(runs)
        self.guesses, self.ranks = guesses + bytes(4), Streams(ranks)
        self.run = self.runs.number()
        self.low, self.high, self.at = 0, 0xFFFFFFFF, 4
        self.code = int.from_bytes(self.guesses[:4], "big")
        self.odds = [byte * 256 + 128 for byte in _FIRST_ODDS] if second else [1 << 14] * 186
        begin = (0, -96, 96, -24, 24)
        two = {i: node for i, node in enumerate(graph.nodes) if len(node.ways) == 2}
        self.states = {i: begin[node.start] for i, node in two.items()}
        self.rank = {i: node.start for i, node in enumerate(graph.nodes) if i not in two}
        self.paths: dict[int, tuple[int, int]] = {}
        self.far: dict[int, tuple[int, int, int]] = {}
        self.near: dict[int, tuple[int, int, int]] = {}

    def certain(self) -> bool:
        """Whether a guess that is certain is right."""
        if self.run:
            self.run -= 1
            return True
        self.run = self.runs.number()
        return False

    def missed(self, context: int) -> bool:
        """Whether the next other guess is wrong."""
        odds = self.odds[context]
        middle = self.low + (self.high - self.low >> 16) * odds
        missed = self.code <= middle
        if missed:
            self.high = middle
            self.odds[context] = odds + (65535 - odds >> self.speed)
        else:
            self.low = middle + 1
            self.odds[context] = max(odds - (odds >> self.speed), 64)
        while self.low >> 24 == self.high >> 24:
            byte = self.guesses[self.at] if self.at < len(self.guesses) else 0
            self.at += 1
            self.low = self.low << 8 & 0xFFFFFFFF
            self.high = self.high << 8 & 0xFFFFFFFF | 255
            self.code = self.code << 8 & 0xFFFFFFFF | byte
        return missed

    def two(self, node: int, path: int) -> tuple[bool, bool]:
        """The way out of a node with two, and whether the path remembers it."""
        state = self.states[node]
        if abs(state) == 96:
            taken = (state > 0) == self.certain()
            if taken != (state > 0):
                self.states[node] = learned(state, taken, 96)
            return taken, False
        hashed = (path ^ node * 0xD6E8FEB86659FD93 & _M) * 0x9E3779B97F4A7C15 & _M
        slot, tag = hashed >> 51, hashed >> 32 & 255
        known, entry = self.paths.get(slot, (0, 0))
        entry = entry if known == tag else 0
        if abs(entry) == 8:
            taken = (entry > 0) == self.certain()
            if taken != (entry > 0):
                self.paths[slot] = tag, learned(entry, taken, 8)
        else:
            size = sum(abs(state) >= least for least in (1, 3, 8, 24, 48))
            context = (abs(entry) * 6 + size) * 2 + (entry * state > 0)
            taken = ((entry or state) > 0) != self.missed(context)
            self.paths[slot] = tag, learned(entry, taken, 8)
        self.states[node] = learned(state, taken, 96)
        return taken, True

    def many(self, node: int, near: int, far: int) -> int:
        """The way out of a node with more."""
        key = node * 0xD6E8FEB86659FD93 & _M
        places = []
        for table, path in ((self.far, far), (self.near, near)):
            hashed = (path ^ key) * 0x9E3779B97F4A7C15 & _M
            slot, tag = hashed >> 52, hashed >> 32 & 255
            known, state, rank = table.get(slot, (0, 0, 0))
            places.append((slot, tag, state if known == tag else 0, rank))
        (_, _, far_state, far_rank), (_, _, near_state, near_rank) = places
        last = self.rank[node]
        guess = far_rank if far_state else near_rank if near_state else last
        other = near_rank if far_state and near_state and near_rank != guess else last
        if far_state == 5:
            if self.certain():
                return guess
            wrong = True
        else:
            wrong = self.missed(96 + far_state * 15 + near_state)
        rank = guess
        if wrong:
            rank = other
            if other == guess or self.missed(171 + near_state):
                rank = self.ranks.number()
        for table, most, (slot, tag, state, known_rank) in zip(
                (self.far, self.near), (5, 14), places, strict=True):
            if state == 0:
                table[slot] = tag, 1, rank
            elif known_rank == rank:
                table[slot] = tag, min(state + 1, most), rank
            elif state > 2:
                table[slot] = tag, state >> 1, known_rank
            else:
                table[slot] = tag, 1, rank
        self.rank[node] = rank
        return rank


def piece(payload: bytes, graph: Graph, columns: list[str], second: bool) -> Iterator[Row]:
    """Rows of a piece; `second`: of a `PIE2`."""
    read = Streams(payload)
    count, mask = read.number(), read.number()
    tasks, nodes = read.numbers(), read.numbers()
    cpus = read.numbers() if "cpu" in columns else []
    guesser = Guesser(graph, read.stream(), read.stream(), read.stream(), second)
    first = list(dict.fromkeys(tasks[::2]))
    places = {task: (node, 0, 0) for task, node in zip(first, nodes, strict=True)}
    edges = []
    for task, length in pairs(tasks):
        node, near, far = places[task]
        for _ in range(length):
            ways, rank, remember = graph.nodes[node].ways, 0, False
            if len(ways) == 2:
                rank, remember = guesser.two(node, far)
            elif len(ways) > 2:
                rank, remember = guesser.many(node, near, far), True
            edge = graph.edges[ways[rank]]
            if remember:
                mix = mixed(edge.number + 1)
                near, far = (near << 32 & _M) ^ mix, (far << 10 & _M) ^ mix
            edges.append(edge)
            node = edge.target
        places[task] = node, near, far
    assert len(edges) == count and not guesser.run and guesser.runs.end()
    yield from with_differences(edges, tasks, cpus, read, mask)


def small(payload: bytes, graph: Graph, columns: list[str]) -> Iterator[Row]:
    """Rows of a piece in the small coding."""
    read = Streams(payload)
    count, mask = read.number(), read.number()
    tasks, nodes = read.numbers(), read.numbers()
    cpus = read.numbers() if "cpu" in columns else []
    voter = Voter(read.stream())
    places = dict(zip(dict.fromkeys(tasks[::2]), nodes, strict=True))
    edges = []
    for task, length in pairs(tasks):
        for _ in range(length):
            ways = graph.nodes[places[task]].ways
            rank = voter.choose(task, places[task], len(ways)) if len(ways) > 1 else 0
            edge = graph.edges[ways[rank]]
            if len(ways) > 1:
                voter.passed(task, mixed(edge.number + 1))
            edges.append(edge)
            places[task] = edge.target
    assert len(edges) == count
    yield from with_differences(edges, tasks, cpus, read, mask)


def with_differences(
    edges: list[Edge], tasks: list[int], cpus: list[int], read: Streams, mask: int
) -> Iterator[Row]:
    """The rows of edges, and what is to be added to them."""
    words = {name: differences(read.stream(), len(edges))
             for i, name in enumerate(_VALUES) if mask >> i & 1}
    columns = [[value for value, length in pairs(runs) for _ in range(length)]
               for runs in (tasks, cpus)]
    for at, edge in enumerate(edges):
        row = dict(edge.row, task=columns[0][at], cpu=columns[1][at] if cpus else 0)
        for name in words:
            row[name] = (row[name] + words[name][at]) % (1 << 8 * _BYTES[name])
        yield row


def pairs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Values and lengths of runs."""
    return zip(numbers[::2], numbers[1::2], strict=True)


def differences(data: bytes, count: int) -> list[int]:
    """What is to be added to each row's value."""
    if data[0] == 1:
        planes = [data[1 + i * count:1 + (i + 1) * count] for i in range(4)]
        return [sum(plane[row] << 8 * i for i, plane in enumerate(planes)) for row in range(count)]
    read = Streams(data[1:])
    words, at = [0] * count, -1
    some = read.number()
    distances = [read.number() for _ in range(some)]
    for distance in distances:
        at += distance + 1
        words[at] = read.number()
    return words


def plain(payload: bytes, columns: list[str]) -> Iterator[Row]:
    """Rows without a graph."""
    read = Streams(payload)
    count = read.number()
    tasks = read.numbers()
    cpus = read.numbers() if "cpu" in columns else [0, count]
    rows: list[Row] = [dict.fromkeys(_BYTES, 0) for _ in range(count)]
    for name in columns:
        if name in _BYTES:
            data = read.stream()
            for i, row in enumerate(rows):
                row[name] = sum(data[i + count * k] << 8 * k for k in range(_BYTES[name]))
    for name, runs in (("task", tasks), ("cpu", cpus)):
        at = 0
        for value, length in pairs(runs):
            for row in rows[at:at + length]:
                row[name] = value
            at += length
    yield from rows


def read(data: bytes) -> tuple[dict[str, Any], list[Row]]:
    """Head and rows of a whole file.

    Parameters
    ----------
    data : bytes

    Returns
    -------
    dict
        The JSON of the last META part.
    list of dict of str to int
        Oldest first: the columns of BRANCH_DTYPE, `events` as one little-endian number, `task`
        and `cpu`; 0 where the file has no such column.
    """
    head: dict[str, Any] = {}
    graph = Graph()
    rows: list[dict[str, int]] = []
    for kind, payload in parts(data):
        if kind == b"META":
            head = decode_json(zstandard.ZstdDecompressor().decompress(payload))
        elif kind == b"GRPH":
            graph.add(payload, head["columns"])
        elif kind in (b"PIEC", b"PIE2"):
            rows += piece(payload, graph, head["columns"], kind == b"PIE2")
        elif kind == b"SMAL":
            rows += small(payload, graph, head["columns"])
        elif kind == b"ROWS":
            rows += plain(payload, head["columns"])
    return head, rows
