"""The recorders of three architectures take the same branches and show the same records."""

import numpy as np
import pytest

from lbrcore import BRANCH_DTYPE, ENTRY_DTYPE, INFO_ALL, INFO_CLASS, BranchClass, Fault, LbrConfig
from lbrcore import LbrState as Lbr
from pylbr.sister.brbe import BrbeState
from pylbr.sister.choices import CHOICES
from pylbr.sister.ctr import CtrState

CLASSES = [BranchClass.COND, BranchClass.NEAR_REL_CALL, BranchClass.NEAR_RET,
           BranchClass.NEAR_IND_JMP, BranchClass.NEAR_IND_CALL, BranchClass.NEAR_REL_JMP,
           BranchClass.NOT_TAKEN]


def lbr():
    state = Lbr(LbrConfig(info_mask=INFO_ALL & ~(0xFF << 32) | INFO_CLASS))
    state.ctl = 0x7F0005
    return state


def brbe():
    state = BrbeState()
    state.write("BRBCR_EL1", 0x19)
    state.write("BRBCR_EL2", 0x18, el=2)
    state.write("BRBFCR_EL1", 0x7E0000)
    return state


def ctr():
    state = CtrState()
    state.write("mctrctl", 0x1)
    return state


STATES = pytest.mark.parametrize("make", [lbr, brbe, ctr])


@pytest.fixture(scope="module")
def branches():
    """User code on every architecture: even addresses, cycles that no mantissa cuts."""
    rng = np.random.default_rng(3)
    rows = np.zeros(500, BRANCH_DTYPE)
    rows["from"], rows["to"] = rng.integers(1, 1 << 46, (2, 500), dtype="u8") * 2
    rows["class"] = rng.choice(CLASSES, 500)
    rows["cycles"] = rng.integers(0, 60, 500)
    rows["flags"] = rng.choice([0, 4], 500)
    rows["cpl_from"] = rows["cpl_to"] = 3
    return rows


@STATES
def test_the_same_records(make, branches):
    state, first = make(), lbr()
    state.record(branches)
    first.record(branches)
    assert state.depth >= 32 and state.active and state.records().dtype == ENTRY_DTYPE
    assert np.array_equal(state.records()[:32], first.records())
    assert state.read_entry(5) == tuple(int(x) for x in first.records()[5])


@STATES
def test_the_same_life(make, branches):
    state = make()
    state.record(branches[:50])
    before, twin = state.records(), state.copy()
    state.frozen = True
    state.record(branches)
    assert np.array_equal(state.records(), before) and not state.active
    state.frozen = False
    state.record_one(2, 4, BranchClass.COND)
    assert state.read_entry(0)[:2] == (2, 4)
    assert np.array_equal(twin.records(), before), "a copy is independent"
    state.clear()
    assert not state.records()["from"].any()
    twin.reset()
    assert not twin.active and not twin.records()["to"].any()


@STATES
def test_the_same_refusals(make, branches):
    state = make()
    wrong = branches.copy()
    wrong["class"][7] = 16
    with pytest.raises(ValueError, match=r"branches\[7\]: class 16"):
        state.record(wrong)
    with pytest.raises(TypeError, match="BRANCH_DTYPE"):
        state.record(np.zeros(3))
    with pytest.raises(Fault, match="entry 256"):
        state.read_entry(256)
    with pytest.raises(OverflowError, match="cls"):
        state.record_one(1, 2, 99)
    with pytest.raises(TypeError, match="not pickled"):
        state.__reduce__()
    assert not state.records()["from"].any()


def test_choices_say_what_is_open():
    assert all(value and len(reason) > 20 for value, reason in CHOICES.values())
    assert {name.split("_")[0] for name in CHOICES} == {"BRBE", "CTR"}
