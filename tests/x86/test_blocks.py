"""The compiled block recorder against its plain-Python twin, and by hand."""

from __future__ import annotations

import ctypes
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BranchClass, LbrConfig, LbrState
from pylbr.x86.blocks import BlockRecorder
from pylbr.x86.blocks_reference import ReferenceBlocks, condition_holds
from pylbr.x86.facts import BLOCK_FLUSH, BLOCK_REP, BLOCK_STORE
from tests.manual import RECORD_ALL

READ = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
CS, FLAGS, COUNT = 1, 2, 3


class Registers:
    """CS, RFLAGS and RCX that both twins read."""

    def __init__(self) -> None:
        self.values = {CS: 0x33, FLAGS: 0, COUNT: 0}
        self.read = READ(self._read)

    def _read(self, engine, which, value):
        ctypes.c_uint64.from_address(value).value = self.values[which]
        return 0

    @property
    def address(self) -> int:
        return ctypes.cast(self.read, ctypes.c_void_p).value


class Pair:
    """Both twins, fed alike."""

    def __init__(self, facts, readable=True) -> None:
        self.facts, self.registers = facts, Registers()
        self.state = LbrState(LbrConfig())
        self.state.ctl = RECORD_ALL
        self.fast = BlockRecorder(
            self.state, self._classify, read=self.registers.address if readable else 0,
            registers=(CS, FLAGS, COUNT), log=8, drain=self._drained,
        )
        self.slow = ReferenceBlocks(
            lambda *branch: self.told.append(branch), self._classify,
            lambda: (tuple(self.registers.values.values()) if readable
                     else (self.slow.cpl, None, 0)),
        )
        self.told, self.logged = [], []
        self.fast.cpl = self.slow.cpl = 3

    def _classify(self, address, size):
        return self.facts[address, size]

    def _drained(self, branches):
        self.logged += [
            tuple(int(b[name]) for name in
                  ("from", "to", "class", "cpl_from", "cpl_to", "instructions"))
            for b in branches
        ]

    def both(self, name, *arguments):
        for twin in (self.fast, self.slow):
            getattr(twin, name)(*arguments)

    def compare(self):
        self.fast.drain()
        assert self.logged == self.told
        for name in ("cpl", "instructions", "taken", "not_taken", "unexplained"):
            assert getattr(self.fast, name) == getattr(self.slow, name), name
        twin = LbrState(LbrConfig())
        twin.ctl = RECORD_ALL
        for source, to, cls, cpl_from, cpl_to, count in self.told:
            twin.record_one(
                source, to, cls, cycles=count, instructions=count, cpl_from=cpl_from,
                cpl_to=cpl_to)
        np.testing.assert_array_equal(self.state.records(), twin.records())


PLACES = [0x1000 + 0x10 * i for i in range(8)] + [0, 0xFFFFFFFFFFFFFF00]
CLASSES = [None, *(c for c in BranchClass if c not in (
    BranchClass.NOT_TAKEN, BranchClass.INTERRUPT, BranchClass.EXCEPTION, BranchClass.TSX_ABORT))]


class Facts(dict):
    """What every block and every part of one is; parts are made up when asked for."""

    def __missing__(self, key):
        return (key[1] + 3) // 4, key[0], None, None, 0, 0


@st.composite
def programs(draw):
    facts = Facts()
    for start in PLACES:
        for size in (8, 16):
            cls = draw(st.sampled_from(CLASSES))
            direct = cls in (BranchClass.COND, BranchClass.NEAR_REL_JMP,
                             BranchClass.NEAR_REL_CALL)
            target = draw(st.sampled_from([start + size, *PLACES])) if direct else None
            if cls == BranchClass.ZERO_CALL:
                target = start + size
            flags = draw(st.sampled_from([0, 0, 0, BLOCK_REP, BLOCK_STORE, BLOCK_FLUSH]))
            facts[start, size] = (
                draw(st.integers(1, 4)), start + size - draw(st.sampled_from([2, 4, size])), cls,
                target, draw(st.sampled_from([*range(20), 50])), 0 if cls is not None else flags,
            )
    return facts


STEPS = st.lists(st.one_of(
    st.tuples(st.just("enter"), st.sampled_from(PLACES), st.sampled_from([8, 16])),
    st.tuples(st.just("follow"), st.booleans(), st.sampled_from([8, 16])),
    st.tuples(st.just("interrupted"), st.sampled_from(PLACES), st.integers(0, 16),
              st.sampled_from([None, 12, 13, 14]), st.booleans()),
    st.tuples(st.just("translated"), st.sampled_from(PLACES)),
    st.tuples(st.just("registers"), st.sampled_from([0x33, 0x08]), st.integers(0, 0xFFF),
              st.sampled_from([0, 1, 1 << 32])),
), max_size=60)


@given(programs(), STEPS, st.booleans())
@settings(max_examples=150, deadline=None)
def test_twins(facts, steps, readable):
    pair, at = Pair(facts, readable), None
    for name, *arguments in steps:
        if name == "registers":
            pair.registers.values = dict(zip((CS, FLAGS, COUNT), arguments, strict=True))
        elif name == "interrupted":
            pair.both("interrupted", arguments[0] + arguments[1], *arguments[2:])
            at = None
        elif name == "follow" and at is not None:
            taken, size = arguments
            target = facts[at][3]
            place = target if taken and target is not None else sum(at)
            at = place & (1 << 64) - 1, size
            pair.both("enter", *at)
        elif name == "enter":
            at = tuple(arguments)
            pair.both("enter", *at)
        elif name == "translated":
            pair.both("translated", *arguments)
    pair.compare()


FLAG_BITS = (0x1, 0x4, 0x40, 0x80, 0x800)


@given(st.integers(0, 15), st.sets(st.sampled_from(FLAG_BITS)))
@settings(max_examples=100, deadline=None)
def test_condition_against_the_manual(code, bits):
    """SDM vol. 1, appendix B, table B-1: the sixteen conditions as formulas."""
    flags = sum(bits)
    cf, pf, zf, sf, of = (bool(flags & bit) for bit in FLAG_BITS)
    formulas = [of, cf, zf, cf or zf, sf, pf, sf ^ of, (sf ^ of) or zf]
    assert condition_holds(code, flags, 0) == (formulas[code // 2] != bool(code % 2))


def recorder(facts, **options):
    state = LbrState(LbrConfig())
    state.ctl = RECORD_ALL
    result = BlockRecorder(state, lambda address, size: facts[address, size], log=64, **options)
    result.cpl = 3
    return result


def test_many_blocks_are_all_kept():
    """More blocks than the table begins with, found again without asking."""
    asked = []

    def classify(address, size):
        asked.append(address)
        return 1, address, BranchClass.NEAR_IND_JMP, None, 0, 0

    blocks = BlockRecorder(LbrState(LbrConfig()), classify)
    for _ in range(2):
        for i in range(20_000):
            blocks.enter(i << 12, 4)
    assert len(asked) == blocks.known == 20_000
    assert blocks.taken == 39_999
    blocks.flush()
    assert blocks.known == 0


def test_a_failing_callback_is_raised_and_leaves_the_recorder_usable():
    calls = []

    def classify(address, size):
        calls.append(address)
        if len(calls) == 1:
            raise RuntimeError("no code there")
        return 1, address, BranchClass.NEAR_IND_JMP, None, 0, 0

    blocks = BlockRecorder(LbrState(LbrConfig()), classify)
    with pytest.raises(RuntimeError, match="no code there"):
        blocks.enter(0x1000, 4)
    blocks.enter(0x1000, 4)
    blocks.enter(0x2000, 4)
    assert blocks.taken == 1


@pytest.mark.parametrize("facts", [
    None, (), (1, 2), ("one", 0, None, None, 0, 0), (1, -1, None, None, 0, 0),
    (1, 1 << 64, None, None, 0, 0), (1, 0, 999, None, 0, 0),
    (1, 0, 16, None, 0, 0), (1, 0, 0, None, -1, 0),
])
def test_facts_out_of_range_are_an_error_not_a_crash(facts):
    blocks = BlockRecorder(LbrState(LbrConfig()), lambda address, size: facts)
    if facts is None:
        blocks.enter(0x1000, 4)
        assert blocks.block is None
        return
    with pytest.raises((OverflowError, TypeError, ValueError)):
        blocks.enter(0x1000, 4)
    assert blocks.block is None


def test_branches_can_go_to_the_log_alone():
    """So that counters see a batch before the facility does."""
    blocks = recorder({(place, 4): (2, place, BranchClass.NEAR_IND_JMP, None, 0, 0)
                       for place in (0x1000, 0x2000, 0x3000)})
    blocks.direct = False
    for place in (0x1000, 0x2000, 0x3000):
        blocks.enter(place, 4)
    assert not blocks.state.records()["from"].any()
    branches = blocks.drain()
    assert branches["to"].tolist() == [0x2000, 0x3000]
    blocks.direct = True
    blocks.enter(0x1000, 4)
    assert blocks.state.records()["from"][:2].tolist() == [0x3000, 0]
    with pytest.raises(ValueError, match="log"):
        BlockRecorder(blocks.state, lambda address, size: None).direct = False


def test_instructions_are_told_once():
    blocks = recorder({(place, 4): (3, place, cls, None, 0, 0)
                       for place, cls in ((0x1000, None), (0x1004, 1), (0x2000, 1))})
    blocks.enter(0x1000, 4)
    blocks.enter(0x1004, 4)
    assert (blocks.take_instructions(), blocks.take_instructions()) == (3, 0)
    blocks.enter(0x2000, 4)
    branch, = blocks.drain()
    assert branch["instructions"] == branch["cycles"] == 3


def test_limits_call_once_and_can_hold_a_block_back():
    seen = []

    def attention(address):
        seen.append((address, blocks.instructions, blocks.taken))
        return address == 0x3000

    blocks = recorder(
        {(place, 4): (2, place, BranchClass.NEAR_IND_JMP, None, 0, 0)
         for place in (0x1000, 0x2000, 0x3000)}, attention=attention)
    blocks.limit(instructions=3)
    for place in (0x1000, 0x2000, 0x1000, 0x2000):
        blocks.enter(place, 4)
    assert seen == [(0x1000, 4, 2)]
    blocks.limit(branches=1)
    blocks.enter(0x3000, 4)
    assert seen[1:] == [(0x3000, 8, 4)]
    assert blocks.block is None
    blocks.enter(0x3000, 4)
    assert blocks.taken == 4  # held back, then entered: no branch between the two


def test_hooks_are_addresses():
    blocks = recorder({})
    enter, translated, last = blocks.hooks
    assert len({enter, translated, last}) == 3
    hook = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
                            ctypes.c_void_p)(translated)
    block = ctypes.create_string_buffer(struct.pack("<QHH", 1, 2, 3))
    hook(None, ctypes.addressof(block), None, last)
    assert blocks.known == 0
