"""Edges numbered from blocks are those of the branches in between."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE
from pylbr import trace
from pylbr.record import _blocks, _numbered
from pylbr.record.wire_numbers import BLOCK_DTYPE
from pylbr.trace._edges import Edges, renumber
from tests.record import jumps
from tests.record.test_blocks import rings, tables

EVERY = (1 << 64) - 1


@given(st.data(), tables(), st.booleans(), st.integers(0, 60), st.integers(3, 20))
def test_numbers_equal_those_of_the_branches(data, table, timed, cut, room):
    words = np.tile(data.draw(rings(len(table[0]))), 4)  # what is known must be used, too
    walks = [_blocks.BlockWalk(*table, timed) for _ in range(2)]
    fast, slow = Edges(EVERY, EVERY), Edges(EVERY, EVERY)
    numbered = _numbered.Numbered(fast)
    last = other = 0
    numbers, expected, odd, row = [], [np.empty(0, BRANCH_DTYPE)], {}, 0
    for part in (words[:cut], words[cut:]):
        done = 0
        while done < len(part):
            out = np.empty(room, np.uint32)
            taken, count, last, where, rows = numbered.number(walks[0], part, done, out, last)
            done += taken
            numbers += out[:count].tolist()
            odd |= {row + at: found for at, found in zip(where.tolist(), rows, strict=True)}
            row += count
        branches = walks[1].feed(part)
        found = np.empty(len(branches), np.uint32)
        other = slow.number(branches, found, other)
        expected.append(branches)
        assert last == other
        assert numbers[len(numbers) - len(found):] == found.tolist()
    assert walks[0].gaps == walks[1].gaps
    assert fast.differing == slow.differing == len(odd)
    rows = fast.rows_of(np.array(numbers, np.uint32)) if numbers else expected[0]
    for at, found in odd.items():
        rows[at] = found
    assert rows.tobytes() == np.concatenate(expected).tobytes()
    for mine, theirs in zip(fast.table(), slow.table(), strict=True):
        assert np.array_equal(mine, theirs)


@given(tables(), st.integers(0, 2**30 - 1))
def test_a_number_that_no_block_has_is_not_taken(table, number):
    number = number if number >= len(table[0]) else 0
    walk, numbered = _blocks.BlockWalk(*table), _numbered.Numbered(Edges(EVERY, EVERY))
    words = np.array([1, number, 1], np.uint32)
    for first in (0, 1):
        taken, count, *_ = numbered.number(walk, words, first, np.empty(9, np.uint32), 0)
        assert (taken, count) == (1 - first, 0)


def test_blocks_beyond_the_limit_do_not_exist():
    table = np.zeros(4, BLOCK_DTYPE), np.zeros(4, np.uint8)
    walk = _blocks.BlockWalk(*table)
    walk.limit(2)
    walk.feed(np.array([1], np.uint32))
    with pytest.raises(ValueError, match="number 2"):
        walk.feed(np.array([2], np.uint32))
    with pytest.raises(ValueError, match="5 of 4"):
        walk.limit(5)


@pytest.mark.parametrize("group", [64, 1 << 22])
def test_a_file_of_steps_is_that_of_the_branches(tmp_path, monkeypatch, group):
    """Numbers that the writer changes at the end of a group stay those of the steps."""
    jumps.small_groups(monkeypatch, group)
    rng = np.random.default_rng(5)
    table, pool = jumps.blocks(rng)
    ran = [[], []]
    for words in ran:  # two threads
        at = 1
        for _ in range(1000):
            words.append(at)
            taken = rng.random() < 0.5
            at = int(table["target"][at] - 0x1000) // 16 + 1 if taken else at % 40 + 1
    walks = [_blocks.BlockWalk(table, pool) for _ in range(4)]
    names = ("from", "to", "class", "instructions", "cpl_from", "cpl_to", "task")
    paths = tmp_path / "steps.lbrt", tmp_path / "rows.lbrt"
    with trace.LbrtWriter(paths[0], None, names) as out:
        numbered = _numbered.Numbered(out.edges)
        out.renumbered = numbered.forget
        for first in range(0, 1000, 100):
            for task, words in enumerate(ran):
                part, done = np.array(words[first:first + 100], np.uint32), 0
                while done < len(part):
                    def steps(numbers, last, task=task, part=part, begin=done):
                        nonlocal done
                        taken, *rest = numbered.number(walks[task], part, begin, numbers, last)
                        done += taken
                        return rest
                    out.write_steps(task, steps)
    with trace.LbrtWriter(paths[1], None, names) as out:
        for first in range(0, 1000, 100):
            for task, words in enumerate(ran):
                part = np.array(words[first:first + 100], np.uint32)
                out.write(walks[2 + task].feed(part), task=task)
    with trace.open(paths[0]) as one, trace.open(paths[1]) as other:
        assert one.count == other.count > 1000
        assert np.array_equal(one.read(0, 3000), other.read(0, 3000))
        tasks = [np.concatenate([chunk.task for chunk in source.chunks()])
                 for source in (one, other)]
        assert np.array_equal(*tasks)


def test_renumbering_stays_within_the_table():
    numbers = np.array([2, 0, 1], np.uint32)
    renumber(numbers, np.array([5, 6, 7], np.uint32))
    assert numbers.tolist() == [7, 5, 6]
    with pytest.raises(ValueError, match="not in the table"):
        renumber(numbers, np.array([5, 6, 7], np.uint32))
