"""The facility as a user sees it: buffers, threads, types, what the manual says in examples."""

import sys
import threading
from array import array

import numpy as np
import pytest

from lbrcore import (
    BRANCH_DTYPE,
    INFO_ALL,
    BranchClass,
    BranchFlag,
    LbrConfig,
    LbrState,
    xsave,
)
from tests.manual import RECORD_ALL

ALL = RECORD_ALL
CALL_STACK = 0x38000D
MANY = (1 << 64) - 1


def facility(ctl=ALL, **config):
    state = LbrState(LbrConfig(**config))
    state.ctl = ctl
    return state


def froms(state):
    return [int(x) for x in state.records()["from"] if x]


def test_the_newest_comes_first_and_the_oldest_is_lost():
    state = facility()
    for i in range(1, 36):
        state.record_one(i, 100 + i, BranchClass.COND)
    assert froms(state) == list(range(35, 3, -1))
    assert state.read_entry(31)[:2] == (4, 104)


def test_info_fields():
    state = facility(event_counters=15, info_mask=INFO_ALL)
    state.record_one(1, 2, BranchClass.NEAR_RET, cycles=9)
    state.record_one(3, 4, BranchClass.SYSCALL, cycles=70000, events=(1, 2, 3, 200),
                     flags=BranchFlag.MISPRED | BranchFlag.IN_TSX)
    assert state.read_entry(1)[2] == 5 << 56  # nothing to count cycles from yet
    assert state.read_entry(0)[2] == 6 << 61 | 1 << 60 | 8 << 56 | 0b11_11_10_01 << 32 | 0xFFFF


def test_columns_of_unsigned_long_long_and_scalars_of_numpy():
    """`array` and `memoryview.cast` spell 64 bits Q, NumPy L."""
    state = facility()
    state.record_columns(array("Q", [1, 2]), array("Q", [3, 4]), array("B", [0, 5]),
                         cpl_from=np.uint8(3), cpl_to=np.uint8(3))
    assert froms(state) == [2, 1]


def test_a_filtered_branch_does_not_restart_the_cycle_count():
    state = facility(0x200007)  # NEAR_RET alone
    state.record_one(1, 2, BranchClass.NEAR_RET, cycles=5)
    state.record_one(3, 4, BranchClass.COND, cycles=11)
    assert state.cycles == 11
    state.record_one(5, 6, BranchClass.NEAR_RET, cycles=7)
    assert state.read_entry(0)[2] & 0xFFFF == 18


@pytest.mark.parametrize(("ctl", "kept"), [
    (0x7F0005, ["sysret"]), (0x7F0003, ["syscall"]), (RECORD_ALL, ["sysret", "syscall"]),
    (0x7F0001, []),
])
def test_the_cpl_filter_looks_at_the_end_and_hides_the_source(ctl, kept):
    state = facility(ctl)
    state.record_one(0x1000, 0xFFFF800000000000, BranchClass.SYSCALL, cpl_from=3, cpl_to=0)
    state.record_one(0xFFFF800000000010, 0x1002, BranchClass.SYSRET, cpl_from=0, cpl_to=3)
    source = {"sysret": 0xFFFF800000000010, "syscall": 0x1000}
    hidden = len(kept) == 1
    assert froms(state) == [MANY if hidden else source[name] for name in kept]


def test_the_legacy_cpl_filter_shows_the_source():
    state = LbrState(LbrConfig.legacy(16))
    state.enable, state.ctl = True, 1  # CPL_EQ_0 suppressed
    state.record_one(0xFFFF800000000010, 0x1002, BranchClass.SYSRET, cpl_from=0, cpl_to=3)
    assert froms(state) == [0xFFFF800000000010]


def test_call_stack_mode():
    state = facility(CALL_STACK)
    calls = [(i, BranchClass.NEAR_REL_CALL) for i in range(1, 36)]
    for i, cls in calls:
        state.record_one(i, 100, cls)
    for _ in range(3):
        state.record_one(7, 8, BranchClass.NEAR_RET)
    assert froms(state) == list(range(32, 3, -1))  # 1 to 3 were lost, and leave zeros
    for _ in range(40):
        state.record_one(7, 8, BranchClass.NEAR_RET)
    assert froms(state) == []
    state.record_one(9, 9, BranchClass.ZERO_CALL)
    assert froms(state) == []


def test_depth():
    state = facility()
    state.ler = (5, 6, 7)
    state.record_one(1, 2, BranchClass.COND)
    state.depth = 32
    assert (froms(state), state.ctl, state.ler) == ([], ALL, (5, 6, 7))
    state.depth = 8
    for i in range(1, 12):
        state.record_one(i, 2, BranchClass.COND)
    assert froms(state) == list(range(11, 3, -1))


def test_freeze():
    state = facility()
    state.record_one(1, 2, BranchClass.COND)
    state.frozen = True
    state.record_one(3, 4, BranchClass.COND)
    state.frozen = False
    assert froms(state) == [1] and state.ctl == ALL


def test_ler_keeps_the_last_branch_before_an_event():
    state = facility(0x010007)  # COND alone: the interrupt itself is filtered
    state.record_one(1, 2, BranchClass.COND, flags=BranchFlag.MISPRED)
    state.record_one(3, 4, BranchClass.INTERRUPT, cpl_to=0)
    state.record_one(5, 6, BranchClass.COND)
    assert state.ler == (1, 2, 4 << 61)


def test_legacy_tos():
    state = LbrState(LbrConfig.legacy(4))
    state.enable = True
    for i in range(1, 7):
        state.record_one(i, 100, BranchClass.COND)
    assert state.tos == 6 % 4 and froms(state) == [6, 5, 4, 3]
    state.tos = 0  # physical registers 0..3 hold 4, 5, 6, 3
    assert froms(state) == [4, 3, 6, 5]


@pytest.mark.parametrize("depth", [4, 16])
def test_every_move_of_tos_leaves_the_physical_registers(depth):
    for old in range(depth):
        for new in range(depth):
            state = LbrState(LbrConfig.legacy(depth))
            state.enable = True
            for i in range(depth + old):
                state.record_one(i + 1, 100, BranchClass.COND)
            before, start = froms(state), state.tos
            state.tos = new
            assert state.tos == new
            physical = {(start - i) % depth: address for i, address in enumerate(before)}
            assert froms(state) == [physical[(new - i) % depth] for i in range(depth)]


def test_a_counter_that_stops_logging_forgets_what_it_counted():
    state = facility(event_counters=3, info_mask=INFO_ALL)
    state.record_one(1, 2, BranchClass.NOT_TAKEN, events=(2, 1, 0, 0))
    state.event_mask = 2
    state.event_mask = 3
    state.record_one(3, 4, BranchClass.COND)
    assert state.read_entry(0)[2] >> 32 & 0xFF == 0b01_00


def test_addresses_are_read_canonical():
    state = facility()
    state.write_entry(0, 1 << 47, 0x1234_0000_0000_0001, MANY)
    assert state.read_entry(0) == (0xFFFF_8000_0000_0000, 1, MANY)


def test_xrstors_of_another_depth_zeroes_the_records_and_keeps_depth():
    source, target = facility(), facility()
    source.depth = 8
    source.record_one(1, 2, BranchClass.COND)
    source.ler = (7, 8, 9)
    target.record_one(3, 4, BranchClass.COND)
    area = bytearray(1384)
    xsave.xsaves(source, area, 0x8003)
    target.ctl = 0
    xsave.xrstors(target, area, 0x8003)
    assert (froms(target), target.depth, target.ctl, target.ler) == ([], 32, ALL, (7, 8, 9))


def test_the_initial_state_is_not_written():
    state, area = LbrState(LbrConfig()), bytearray(b"\x55" * 1384)
    xsave.xsaves(state, area, 0x8003, xinuse=3)
    assert area[512:520] == b"\x03" + bytes(7)
    assert area[576:] == b"\x55" * (1384 - 576)


# Buffers

def some_branches(n=5000):
    rng = np.random.default_rng(5)
    branches = np.zeros(n, BRANCH_DTYPE)
    branches["from"] = rng.integers(1, 1 << 40, n)
    branches["to"] = rng.integers(1, 1 << 40, n)
    branches["class"] = rng.integers(0, 16, n)
    return branches


def test_read_only_mapped_and_record_arrays(tmp_path):
    branches = some_branches()
    expected = facility()
    expected.record(branches)
    path = tmp_path / "branches"
    branches.tofile(path)
    frozen = branches.copy()
    frozen.flags.writeable = False
    for form in (frozen, np.memmap(path, BRANCH_DTYPE, "r"), branches.view(np.recarray),
                 memoryview(branches), branches.astype(np.dtype(BRANCH_DTYPE.descr, align=True))):
        state = facility()
        state.record(form)
        assert (state.records() == expected.records()).all()
    state.record(branches[:0])
    assert (state.records() == expected.records()).all()


def test_records_are_a_copy():
    state = facility()
    records = state.records()
    state.record_one(1, 2, BranchClass.COND)
    records["from"] = 99
    assert froms(state) == [1]


def test_two_states_advance_at_once():
    """A batch in another thread is under way when one of our own begins and ends.

    With the interval between forced switches out of reach, this thread runs during the other
    one's batch only if the batch has released the GIL.
    """
    long, short = np.tile(some_branches(1 << 14), 128), some_branches(64)
    other, own = facility(CALL_STACK), facility()

    def attempt():
        under_way = threading.Event()

        def run():
            under_way.set()
            other.record(long)
            under_way.clear()

        thread = threading.Thread(target=run)
        thread.start()
        under_way.wait()
        own.record(short)
        met = under_way.is_set()
        thread.join()
        return met

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        assert any(attempt() for _ in range(50))
    finally:
        sys.setswitchinterval(interval)
