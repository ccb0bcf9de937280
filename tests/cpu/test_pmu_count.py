"""The counting loop of the core against its twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE, LbrConfig, LbrState
from lbrcore.pmu import count
from lbrcore.reference_pmu import count as reference
from tests.cpu.helpers import some_branches

CALL_STACK, ALL = 0x38000F, 0x7F0007


@st.composite
def streams(draw):
    n = draw(st.integers(0, 700))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    b = np.zeros(n, BRANCH_DTYPE)
    for name, top in (("from", 1 << 47), ("to", 1 << 47), ("cycles", 1 << 32), ("class", 16),
                      ("instructions", 9), ("flags", 8), ("cpl_from", 4), ("cpl_to", 4)):
        b[name] = rng.integers(0, top, n)
    return b


SELECTORS = st.lists(st.tuples(st.integers(0, (1 << 32) - 1), st.integers(0, 7),
                               st.integers(0, 2)), min_size=1, max_size=16)


@settings(max_examples=150, deadline=None)
@given(streams(), SELECTORS, st.data())
def test_equals_the_twin_and_records_what_it_takes(branches, selectors, data):
    limits = [data.draw(st.integers(1, 300) | st.just((1 << 48) - 1)) for _ in selectors]
    start = data.draw(st.integers(0, len(branches)))
    expected = reference(branches, selectors, limits, start=start)
    assert count(branches, selectors, limits, start=start) == expected
    for ctl in (ALL, CALL_STACK, 0):
        one, two = LbrState(LbrConfig()), LbrState(LbrConfig())
        one.ctl = two.ctl = ctl
        assert count(branches, selectors, limits, start=start, state=one) == expected
        two.record(branches[start:expected[0]])
        assert one.records().tolist() == two.records().tolist()
        assert one.ler == two.ler and one.cycles == two.cycles


def test_bad_arguments():
    b = some_branches(10)
    good = [(0xFFFFFFFF, 0, 0)]
    for args in ((b, [], []), (b, good, [1, 2]), (b, good * 17, [1] * 17), (b, good, [0])):
        with pytest.raises(ValueError):
            count(*args)
    for args in ((None, good, [1]), (b, None, [1]), (b["from"], good, [1]),
                 (b, [(1, 0, 1.5)], [1])):
        with pytest.raises(TypeError):
            count(*args)
    for selector in ((1 << 32, 0, 0), (1, 8, 0), (1, 0, 3), (-1, 0, 0)):
        with pytest.raises(OverflowError):
            count(b, [selector], [1])
    with pytest.raises(OverflowError):
        count(b, good, [1], start=11)


@pytest.mark.parametrize("field, value", [("class", 16), ("flags", 8), ("cpl_from", 4)])
def test_a_branch_out_of_range_records_nothing(field, value):
    b = some_branches(1000, classes=(0,))
    b[field][700] = value
    state = LbrState(LbrConfig())
    state.ctl = ALL
    with pytest.raises(ValueError):
        count(b, [(0, 0, 0)], [1], state=state)
    assert not state.records()["from"].any()
    assert count(b, [(0xFFFFFFFF, 0, 0)], [100], state=state)[0] == 100, "not looked at"
