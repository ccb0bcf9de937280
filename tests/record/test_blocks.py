"""The walk over blocks equals its twin, on anything that a ring may hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrcore import BranchClass
from pylbr.record import _blocks, blocks_reference
from pylbr.record.wire_numbers import BLOCK_DTYPE, EVENT, NO_BRANCH, PAYLOAD, WordEvent

BASE = 0x401000
CLASSES = [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 14, NO_BRANCH]


KERNEL = 0xFFFFFFFF81001000


@st.composite
def tables(draw, bases=(BASE,)):
    """Blocks close together, so that they overlap and follow each other often."""
    rows, pool = [(0,) * 8], []
    for _ in range(draw(st.integers(1, 8))):
        lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
        start = draw(st.sampled_from(bases)) + draw(st.integers(0, 16))
        last = sum(lengths[:-1])
        cls = draw(st.sampled_from(CLASSES))
        target = draw(st.sampled_from(bases)) + draw(st.integers(0, 24)) if cls in (0, 2, 4) else 0
        rows.append((start, target, len(pool), sum(lengths), last, len(lengths),
                     draw(st.integers(0, 99)), cls))
        pool += lengths
    return np.array(rows, BLOCK_DTYPE), np.array(pool, np.uint8)


@st.composite
def rings(draw, count):
    """Words: blocks, and signals with the address that they interrupt."""
    words = []
    for _ in range(draw(st.integers(0, 30))):
        kind = draw(st.sampled_from([None, None, None, *WordEvent]))
        if kind in (WordEvent.ASYNCHRONOUS, WordEvent.SYNCHRONOUS):
            address = draw(st.one_of(st.integers(BASE, BASE + 40), st.integers(0, 2**64 - 1)))
            words += [PAYLOAD | address >> 30 * i & (PAYLOAD - 1) for i in range(3)]
        if kind is not None:
            words.append(EVENT | kind)
        words.append(draw(st.integers(1, count - 1)))
    return np.array(words, np.uint32)


@given(st.data(), tables(), st.booleans(), st.integers(0, 30))
def test_walk_equals_its_twin(data, table, timed, cut):
    words = data.draw(rings(len(table[0])))
    fast = _blocks.BlockWalk(*table, timed)
    slow = blocks_reference.BlockWalk(*table, timed)
    for part in (words[:cut], words[cut:]):
        assert fast.feed(part).tobytes() == slow.feed(part).tobytes()
    assert fast.gaps == slow.gaps


@given(st.data(), tables((BASE, KERNEL)), st.sets(st.integers(KERNEL, KERNEL + 16)))
def test_walk_of_a_system_equals_its_twin(data, table, gates):
    words = data.draw(rings(len(table[0])))
    places = np.array(sorted(gates), np.uint64)
    fast = _blocks.BlockWalk(*table, gates=places)
    slow = blocks_reference.BlockWalk(*table, gates=places)
    assert fast.feed(words).tobytes() == slow.feed(words).tobytes()
    assert fast.gaps == slow.gaps


@pytest.mark.parametrize("kind", [_blocks, blocks_reference], ids=["fast", "plain"])
@pytest.mark.parametrize("event", [WordEvent.ASYNCHRONOUS, WordEvent.SYNCHRONOUS])
def test_a_software_interrupt_that_has_not_run_is_no_branch(kind, event):
    """A signal before it, in its block: the way into the kernel and out of it."""
    table = np.array([(0,) * 8, (BASE, 0, 0, 5, 3, 2, 0, BranchClass.SOFT_INT),
                      (BASE + 64, 0, 0, 5, 3, 2, 0, NO_BRANCH)], BLOCK_DTYPE)
    at = [PAYLOAD | BASE >> 30 * i & (PAYLOAD - 1) for i in range(3)]
    words = np.array([1, *at, EVENT | event, 2], np.uint32)
    rows = kind.BlockWalk(table, np.array([3, 2], np.uint8)).feed(words)
    expected = BranchClass.EXCEPTION if event == WordEvent.SYNCHRONOUS else BranchClass.INTERRUPT
    assert rows["class"].tolist() == [expected, BranchClass.IRET]
    assert rows["from"][0] == BASE and rows["to"][1] == BASE + 64


@given(tables(), st.integers(0, 2**30 - 1))
def test_unknown_number_is_refused(table, number):
    number = number if number >= len(table[0]) else 0
    for walk in (_blocks.BlockWalk(*table), blocks_reference.BlockWalk(*table)):
        with pytest.raises(ValueError, match=f"word 1: no block has the number {number}"):
            walk.feed(np.array([1, number], np.uint32))


def table_of(*rows):
    """Blocks (start, instruction lengths, class, target)."""
    pool, table = [], [(0,) * 8]
    for start, lengths, cls, target in rows:
        table.append((start, target, len(pool), sum(lengths), sum(lengths[:-1]), len(lengths),
                      len(lengths), cls))
        pool += lengths
    return np.array(table, BLOCK_DTYPE), np.array(pool, np.uint8)


def steps(walk, words):
    return [(int(b["from"]), int(b["to"]), int(b["class"]), int(b["instructions"]))
            for b in walk.feed(np.array(words, np.uint32))]


@pytest.mark.parametrize("twin", [_blocks, blocks_reference])
class TestSteps:
    def test_conditional_taken_and_not(self, twin):
        walk = twin.BlockWalk(*table_of(
            (0x10, [2, 2], BranchClass.COND, 0x40), (0x14, [2], NO_BRANCH, 0),
            (0x40, [1], BranchClass.NEAR_RET, 0)))
        assert steps(walk, [1, 2]) == [(0x12, 0x14, BranchClass.NOT_TAKEN, 2)]
        assert steps(walk, [1, 3])[-1] == (0x12, 0x40, BranchClass.COND, 2)

    def test_repeated_string_instruction_is_one_instruction(self, twin):
        walk = twin.BlockWalk(*table_of(
            (0x10, [3, 2], NO_BRANCH, 0), (0x13, [2], NO_BRANCH, 0),
            (0x15, [1], BranchClass.NEAR_RET, 0), (0x50, [1], NO_BRANCH, 0)))
        assert steps(walk, [1, 2, 2, 2, 3, 4]) == [(0x15, 0x50, BranchClass.NEAR_RET, 3)]

    def test_call_to_the_next_instruction(self, twin):
        walk = twin.BlockWalk(*table_of(
            (0x10, [5], BranchClass.NEAR_REL_CALL, 0x15), (0x15, [1], NO_BRANCH, 0)))
        assert steps(walk, [1, 2]) == [(0x10, 0x15, BranchClass.ZERO_CALL, 1)]

    def test_a_system_call_of_a_system_leads_into_its_kernel(self, twin):
        walk = twin.BlockWalk(*table_of(
            (0x10, [2], BranchClass.SYSCALL, 0), (KERNEL, [1, 2], BranchClass.SYSRET, 0),
            (0x12, [1], NO_BRANCH, 0)), gates=np.empty(0, np.uint64))
        rows = walk.feed(np.array([1, 2, 3], np.uint32))
        assert [tuple(row)[:2] for row in rows] == [(0x10, KERNEL), (KERNEL + 1, 0x12)]
        assert rows["cpl_from"].tolist() == [3, 0] and rows["cpl_to"].tolist() == [0, 3]

    def test_an_interrupt_after_a_return_is_a_gap(self, twin):
        walk = twin.BlockWalk(*table_of(
            (KERNEL, [1], BranchClass.NEAR_RET, 0), (KERNEL + 64, [1], NO_BRANCH, 0)),
            gates=np.array([KERNEL + 64], np.uint64))
        assert steps(walk, [1, 2]) == [] and walk.gaps == 1

    def test_unexplained_step_is_a_gap(self, twin):
        walk = twin.BlockWalk(*table_of(
            (0x10, [2], BranchClass.NEAR_REL_JMP, 0x20), (0x90, [1], NO_BRANCH, 0)))
        assert steps(walk, [1, 2]) == []
        assert walk.gaps == 1
