"""Chunk summaries: what they say, and the laws they keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE, LbrConfig, LbrState
from lbrcore.summary import Summary
from tests.manual import RECORD_ALL
from tests.replay.strategies import columns, facilities, shown, traces

LAYOUTS = st.sampled_from([lambda batch: batch, columns])


@st.composite
def stretches(draw, lbr):
    """A summary and what it stands for."""
    kind = draw(st.sampled_from(["rows", "rows", "rows", "restart", "clear"]))
    if kind == "rows":
        batch = draw(traces(200))
        return Summary(lbr, batch), lambda target: target.record(batch)
    if kind == "clear":
        return Summary.clear(lbr), lambda target: target.clear()

    def restart(target):
        target.frozen = True
        target.frozen = False

    return Summary.restart(lbr), restart


@given(facilities(), traces(), traces(), LAYOUTS)
@settings(max_examples=120, deadline=None)
def test_applying_a_summary_is_recording_its_branches(lbr, before, batch, layout):
    lbr.record(before)
    expected = lbr.copy()
    expected.record(batch)
    Summary(lbr, layout(batch)).apply(lbr)
    assert shown(lbr) == shown(expected)


@given(facilities(), traces(900), st.lists(st.integers(0, 900), max_size=4))
@settings(max_examples=120, deadline=None)
def test_any_split_is_no_split(lbr, batch, cuts):
    whole = Summary(lbr, batch)
    joined = Summary(lbr)
    for part in np.split(batch, sorted(min(c, len(batch)) for c in cuts)):
        joined = joined.then(Summary(lbr, part))
    assert joined == whole


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_composing_is_associative_and_has_an_identity(data):
    lbr = data.draw(facilities())
    (a, do_a), (b, do_b), (c, do_c) = (data.draw(stretches(lbr)) for _ in range(3))
    assert a.then(b).then(c) == a.then(b.then(c))
    assert a.then(Summary(lbr)) == a == Summary(lbr).then(a)
    lbr.record(data.draw(traces(200)))
    expected = lbr.copy()
    for do in (do_a, do_b, do_c):
        do(expected)
    a.then(b).then(c).apply(lbr)
    assert shown(lbr) == shown(expected)


@given(facilities(), traces(400), traces(400))
@settings(max_examples=100, deadline=None)
def test_a_summary_holds_for_every_state_before_it(lbr, batch, before):
    """Also for one written record by record, with gaps that no recording leaves."""
    lbr.record(before)
    for i in range(0, lbr.depth, 2):
        lbr.write_entry(i, 0, 0, 0)
    expected = lbr.copy()
    expected.record(batch)
    Summary(lbr, batch).apply(lbr)
    assert shown(lbr) == shown(expected)


def test_pieces_of_a_long_call_stack_trace_fit_together():
    """More rows than are looked at in one go, with calls open across the seams."""
    rng = np.random.default_rng(5)
    batch = np.zeros(200_000, BRANCH_DTYPE)
    batch["class"] = rng.choice([0, 4, 5], len(batch), p=[0.5, 0.25, 0.25])
    batch["from"] = np.arange(len(batch)) + 1
    batch["cpl_from"] = batch["cpl_to"] = 3
    batch["cycles"] = 3
    lbr = LbrState(LbrConfig())
    lbr.ctl = 0x38000D
    expected = lbr.copy()
    expected.record(batch)
    Summary(lbr, columns(batch)).apply(lbr)
    assert shown(lbr) == shown(expected)
    assert lbr.records()["from"][1] > 0


def test_a_facility_set_up_otherwise_is_refused():
    lbr, other = LbrState(LbrConfig()), LbrState(LbrConfig())
    with pytest.raises(ValueError, match="records nothing"):
        Summary(lbr)
    lbr.ctl = other.ctl = RECORD_ALL
    other.depth = 8
    with pytest.raises(ValueError, match="set up differently"):
        Summary(lbr).apply(other)
    with pytest.raises(ValueError, match="set up differently"):
        Summary(lbr).then(Summary(other))
