"""The predictors equal their twins, and do what their names promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE, BranchClass, BranchFlag, predictor, predictor_reference

KINDS = ["gshare", "tage"]


def branches_of(rows):
    """Branches (from, to, class)."""
    result = np.zeros(len(rows), BRANCH_DTYPE)
    for name, column in zip(("from", "to", "class"), zip(*rows, strict=True), strict=True):
        result[name] = column
    return result


streams = st.lists(
    st.tuples(st.sampled_from([0x401000 + 7 * i for i in range(5)] + [2**64 - 1]),
              st.sampled_from([0x401005, 0x402000, 0x403333]),
              st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5, 6, 6, 9])),
    min_size=1, max_size=400)


@pytest.mark.parametrize("kind", KINDS)
@given(rows=streams, cut=st.integers(0, 400))
def test_predictor_equals_its_twin(kind, rows, cut):
    fast, slow = predictor.Predictor(kind), predictor_reference.Predictor(kind)
    ours, theirs = branches_of(rows), branches_of(rows)
    for part in (slice(0, cut), slice(cut, None)):
        assert fast.mark(ours[part]) == slow.mark(theirs[part])
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_long_stream_equals_its_twin(kind):
    """Long enough for every table to fill and to lose entries."""
    random = np.random.default_rng(3)
    rows = [(0x401000 + 3 * int(i), 0x402000, 0 if t else 6)
            for i, t in zip(random.integers(0, 300, 20000), random.integers(0, 3, 20000),
                            strict=True)]
    ours, theirs = branches_of(rows), branches_of(rows)
    wrong = predictor.Predictor(kind).mark(ours)
    assert wrong == predictor_reference.Predictor(kind).mark(theirs) > 1000
    assert ours.tobytes() == theirs.tobytes()
    assert (ours["flags"] == BranchFlag.MISPRED).sum() == wrong


def wrong_at_end(kind, pattern, times=400):
    """Wrong predictions of a branch that repeats a pattern, after it was learnt."""
    rows = [(0x401000, 0x402000, 0 if c == "T" else 6) for c in pattern] * times
    found = predictor.Predictor(kind)
    found.mark(branches_of(rows))
    return found.mark(branches_of(rows[:len(pattern) * 4]))


@pytest.mark.parametrize(("kind", "pattern"), [
    ("gshare", "T"), ("gshare", "TTN"), ("gshare", "TTTTTTN"), ("tage", "TTN"),
    ("tage", "T" * 20 + "N"), ("tage", "TNNTTTNTNTTNNN"),
])
def test_patterns_are_learnt(kind, pattern):
    assert wrong_at_end(kind, pattern) == 0


def test_history_of_tage_is_longer():
    pattern = "T" * 30 + "N"
    assert wrong_at_end("tage", pattern) < wrong_at_end("gshare", pattern)


def test_returns_and_indirect_targets():
    call, ret = (0x401000, 0x405000, BranchClass.NEAR_REL_CALL), (0x405009, 0x401005, 5)
    lost = (0x405009, 0x401055, 5)
    jump = (0x401100, 0x406000, BranchClass.NEAR_IND_JMP)
    found = predictor.Predictor()
    assert found.mark(branches_of([call, ret, call, call, ret, ret])) == 0
    assert found.mark(branches_of([call, lost])) == 1
    found.mark(branches_of([jump] * 40))
    assert found.mark(branches_of([jump] * 10)) == 0


def test_wrong_arguments():
    with pytest.raises(ValueError, match="gshare or tage"):
        predictor.Predictor("oracle")
    fixed = branches_of([(1, 2, 0)])
    fixed.setflags(write=False)
    with pytest.raises((ValueError, BufferError)):
        predictor.Predictor().mark(fixed)
