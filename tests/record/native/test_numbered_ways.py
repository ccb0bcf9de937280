"""Edges numbered from ways out of traces are those of the blocks that these stand for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylbr import trace
from pylbr.record import _blocks, _numbered
from pylbr.record.engine import Request, engine
from pylbr.record.native.full import _numbered_ways, expand_reference
from pylbr.record.streamed import Streamed
from pylbr.record.tasks import Task
from pylbr.record.trace_output import TraceOutput
from pylbr.record.wire import DAMAGED
from pylbr.record.wire_numbers import BLOCK_DTYPE
from pylbr.trace._edges import Edges
from tests.record import jumps
from tests.record.test_blocks import rings, tables

EVERY = (1 << 64) - 1


@st.composite
def traces(draw):
    """Tables of blocks; of ways, some of them empty; and words, some of them often."""
    table = draw(tables())
    count = len(table[0])
    ways = draw(st.lists(st.tuples(st.integers(1, count - 1), st.integers(0, 12)), min_size=1,
                         max_size=6))
    ways = np.array([(0, 0), *((first, min(n, count - first)) for first, n in ways)], np.uint32)
    words = np.tile(draw(rings(len(ways))), 4)
    return table, ways, words


def by_ways(edges, walk, ways, parts, room):
    """(numbers, last, {row: branch with other values})."""
    numbered, last, numbers, odd = _numbered_ways.NumberedWays(edges), 0, [], {}
    for part in parts:
        done = 0
        while done < len(part):
            out = np.empty(room, np.uint32)
            taken, count, last, where, rows = numbered.number(walk, part, ways, done, out, last)
            done += taken
            odd |= {len(numbers) + at: row.tobytes()
                    for at, row in zip(where.tolist(), rows, strict=True)}
            numbers += out[:count].tolist()
    numbered.count_uses()
    return numbers, last, odd


def by_blocks(edges, walk, ways, parts):
    """The same of the twin."""
    numbered, last, numbers, odd = _numbered.Numbered(edges), 0, [], {}
    for part in parts:
        blocks, done = expand_reference.expand(part, ways), 0
        while done < len(blocks):
            out = np.empty(30, np.uint32)
            taken, count, last, where, rows = numbered.number(walk, blocks, done, out, last)
            done += taken
            odd |= {len(numbers) + at: row.tobytes()
                    for at, row in zip(where.tolist(), rows, strict=True)}
            numbers += out[:count].tolist()
    return numbers, last, odd


@given(traces(), st.booleans(), st.integers(0, 60), st.integers(3, 60))
def test_numbers_equal_those_of_the_blocks(found, timed, cut, room):
    table, ways, words = found
    parts = words[:cut], words[cut:]
    walks = [_blocks.BlockWalk(*table, timed) for _ in range(2)]
    fast, slow = Edges(EVERY, EVERY), Edges(EVERY, EVERY)
    mine = by_ways(fast, walks[0], ways, parts, room)
    assert mine == by_blocks(slow, walks[1], ways, parts)
    assert walks[0].gaps == walks[1].gaps and fast.differing == slow.differing
    for one, other in zip(fast.table(), slow.table(), strict=True):
        assert np.array_equal(one, other)


@given(tables(), st.sampled_from([(1, 65), (1 << 20, 1), (0, 1)]), st.integers(2, 2**30 - 1))
def test_a_number_that_no_way_has_is_not_taken(table, way, number):
    ways = np.array([(0, 0), (1, 1), way], np.uint32)
    walk, numbered = _blocks.BlockWalk(*table), _numbered_ways.NumberedWays(Edges(EVERY, EVERY))
    words = np.array([1, number, 1], np.uint32)
    for first in (0, 1):
        taken, count, *_ = numbered.number(walk, words, ways, first, np.empty(99, np.uint32), 0)
        assert (taken, count) == (1 - first, 0)


def test_a_walk_that_another_has_brought_forward_is_not_taken_for_known():
    """The branches in between were made one by one."""
    rows = [(0,) * 8] + [(0x1000 + 16 * i, 0, 0, 6, 4, 2, 5, 1) for i in range(8)]
    table, pool = np.array(rows, BLOCK_DTYPE), np.full(2, 3, np.uint8)
    ways = np.array([(0, 0)] + [(i, 1) for i in range(1, 9)], np.uint32)
    edges, walk = Edges(EVERY, EVERY), _blocks.BlockWalk(table, pool)
    numbered, last = _numbered_ways.NumberedWays(edges), 0
    for words in ([1, 2, 1, 2, 1, 2, 1], [2, 3, 1, 2]):
        out = np.empty(99, np.uint32)
        _, count, last, *_ = numbered.number(walk, np.array(words, np.uint32), ways, 0, out, last)
        walk.feed(np.array([5], np.uint32))
    assert edges.rows_of(out[:1])["from"][0] == table["start"][5] + 4 and count == 4


@pytest.mark.parametrize("group", [64, 1 << 22])
def test_a_file_of_ways_is_that_of_the_blocks(tmp_path, monkeypatch, group):
    """Byte for byte, also where a group ends amid a way."""
    jumps.small_groups(monkeypatch, group)
    rng = np.random.default_rng(5)
    table, pool = jumps.blocks(rng)
    known = [(0, 0)] + [(first, n) for first in range(1, 41) for n in range(1, 42 - first)]
    ways, words, first = np.array(known, np.uint32), [], 1
    for _ in range(2000):
        n = min(int(rng.choice([1, 2, 3, 12])), 41 - first)
        words.append(known.index((first, n)))
        after = int(table["target"][first + n - 1] - 0x1000) // 16 + 1
        first = after if rng.random() < 0.5 else (first + n - 1) % 40 + 1
    chunks = np.array_split(np.array(words, np.uint32), 20)
    names = ("from", "to", "class", "instructions", "cpl_from", "cpl_to", "task")
    paths = tmp_path / "ways.lbrt", tmp_path / "blocks.lbrt"
    with trace.LbrtWriter(paths[0], None, names) as out:
        numbered, walk = _numbered_ways.NumberedWays(out.edges), _blocks.BlockWalk(table, pool)
        out.counting, out.renumbered = numbered.count_uses, numbered.forget
        write(out, chunks, lambda words, *rest: numbered.number(walk, words, ways, *rest))
    with trace.LbrtWriter(paths[1], None, names) as out:
        blocks, other = _numbered.Numbered(out.edges), _blocks.BlockWalk(table, pool)
        out.renumbered = blocks.forget
        write(out, [expand_reference.expand(words, ways) for words in chunks],
              lambda words, *rest: blocks.number(other, words, *rest))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with trace.open(paths[0]) as source:
        assert source.count > 1000


class Ways:
    """Of a program that may have written over them."""

    branches_per_word = _numbered_ways.BRANCHES_PER_WAY
    block_count = 9

    def live_tables(self):
        rows = [(0,) * 8] + [(0x1000 + 16 * i, 0, 0, 6, 4, 2, 5, 1) for i in range(8)]
        return np.array(rows, BLOCK_DTYPE), np.full(2, 3, np.uint8)

    def ways(self):
        return np.array([(0, 0)] + [(i, 1) for i in range(1, 9)], np.uint32)

    def expanded(self, words):
        return expand_reference.expand(words, self.ways())

    def numbered(self, edges):
        return _numbered_ways.NumberedWays(edges)


@pytest.mark.parametrize("mispredicts", ["", "tage"])
def test_a_ring_with_a_number_of_no_way_is_reported_once(tmp_path, mispredicts):
    """What comes after it is recorded; no branch leads across."""
    path, ways = tmp_path / "a.lbrt", Ways()
    request = Request(("x",), full=True, mispredicts=mispredicts)
    with TraceOutput(str(path), request, engine("native")) as out:
        streamed = Streamed(ways, request, out, ways)
        for words in ([1, 2, 3, 2, 3], [4, 99, 4], [5, 77], [1, 2, 1, 2]):
            assert streamed.append(Task(0, 0, 7, 7, 0, 0, 0), np.array(words, np.uint32))
        assert streamed.finish(ways, request, out) == 0
    assert streamed.remarks == [DAMAGED] and streamed.words == out.count
    with trace.open(path) as source:
        assert source.count == (7 if mispredicts else 8)  # edges go as far as the number
        assert source.read(source.count - 3, source.count)["to"].tolist() == [
            0x1010, 0x1000, 0x1010]


def write(out, chunks, number):
    """Hand the chunks to a writer."""
    for words in chunks:
        done = 0
        while done < len(words):
            def steps(numbers, last, words=words, begin=done):
                nonlocal done
                taken, *rest = number(words, begin, numbers, last)
                done += taken
                return rest
            out.write_steps(7, steps)
