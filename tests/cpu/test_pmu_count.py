"""The counting loop of the core against its twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE, LbrConfig, LbrState
from lbrcore.pmu import Bank
from lbrcore.reference_pmu import Bank as Reference
from tests.cpu.helpers import some_branches
from tests.manual import RECORD_ALL

CALL_STACK, ALL = 0x38000F, RECORD_ALL


@st.composite
def streams(draw):
    n = draw(st.integers(0, 700))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    b = np.zeros(n, BRANCH_DTYPE)
    for name, top in (("from", 1 << 47), ("to", 1 << 47), ("cycles", 1 << 32), ("class", 16),
                      ("instructions", 9), ("flags", 8), ("cpl_from", 4), ("cpl_to", 4)):
        b[name] = rng.integers(0, top, n)
    return b


PLACES = st.lists(st.integers(0, 7) | st.integers(32, 39), min_size=1, max_size=16, unique=True)
SELECTOR = st.tuples(st.integers(0, (1 << 32) - 1), st.integers(0, 7), st.integers(0, 2))


@st.composite
def banks(draw):
    """Arguments of a bank, and values of its counters, most of them close to overflow."""
    places = draw(PLACES)
    widths = [draw(st.sampled_from([1, 8, 32, 40, 48, 62])) for _ in places]
    general, fixed = [0] * 8, [0] * 8
    for place, width in zip(places, widths, strict=True):
        left = draw(st.integers(1, 300) | st.just(1 << 48))
        (general if place < 32 else fixed)[place & 31] = max((1 << width) - left, 0)
    return (places, [draw(SELECTOR) for _ in places], widths), general, fixed


@settings(max_examples=150, deadline=None)
@given(streams(), banks(), st.data())
def test_equals_the_twin_and_records_what_it_takes(branches, setup, data):
    arguments, general, fixed = setup
    start = data.draw(st.integers(0, len(branches)))
    stop = data.draw(st.integers(start, len(branches)) | st.none())
    values = general.copy(), fixed.copy()
    expected = Reference(*arguments).count(branches, *values, start, stop)
    bank = Bank(*arguments)
    for ctl in (None, ALL, CALL_STACK, 0):
        one, two = LbrState(LbrConfig()), LbrState(LbrConfig())
        one.ctl = two.ctl = ctl or 0
        counted = general.copy(), fixed.copy()
        assert bank.count(branches, *counted, start, stop,
                          None if ctl is None else one) == expected
        assert counted == values
        if ctl is not None:
            two.record(branches[start:expected[0]])
            assert one.records().tolist() == two.records().tolist()
            assert one.ler == two.ler and one.cycles == two.cycles


@settings(max_examples=300)
@given(banks(), st.tuples(st.integers(0, 15), st.integers(0, 3), st.integers(0, 7), st.booleans(),
                          st.integers(0, 9) | st.integers(0, (1 << 32) - 1),
                          st.integers(0, (1 << 32) - 1)))
def test_one_branch_equals_the_twin(setup, branch):
    arguments, general, fixed = setup
    values, counted = (general.copy(), fixed.copy()), (general.copy(), fixed.copy())
    expected = Reference(*arguments).add(*values, *branch)
    assert Bank(*arguments).add(*counted, *branch) == expected
    assert counted == values


@pytest.mark.parametrize("left", [1, 2, 15, 16, 17, 127, 128, 129, 255, 256, 257, 700])
@pytest.mark.parametrize("n", [5, 16, 100, 256, 257, 699, 700])
def test_stops_at_the_exact_branch(n, left):
    general = [256 - left if left <= 256 else 1024 - left]
    width = 8 if left <= 256 else 10
    bank = Bank([0], [(0xFFFFFFFF, 0, 0)], [width])
    assert bank.count(some_branches(n), general, []) == (min(left, n), int(left <= n))
    assert general == [0 if left <= n else (1 << width) - left + n]


def test_bad_arguments():
    good = [0], [(0xFFFFFFFF, 0, 0)], [48]
    for args in (([], [], []), ([0, 1], *good[1:]), (list(range(17)), good[1] * 17, [8] * 17),
                 (*good[:2], [0])):
        with pytest.raises(ValueError):
            Bank(*args)
    for args in ((None, *good[1:]), (*good[:2], None), ([0.5], *good[1:]), ([0], [3], [48])):
        with pytest.raises(TypeError):
            Bank(*args)
    for places, selector, width in ((64, (1, 0, 0), 48), (-1, (1, 0, 0), 48), (0, (1, 0, 0), 63),
                                    (0, (1 << 32, 0, 0), 48), (0, (1, 8, 0), 48),
                                    (0, (1, 0, 3), 48), (0, (-1, 0, 0), 48)):
        with pytest.raises(OverflowError):
            Bank([places], [selector], [width])


def test_bad_arguments_of_a_count():
    b, bank = some_branches(10), Bank([0, 33], [(0xFFFFFFFF, 0, 0)] * 2, [8, 8])
    for args in ((None, [0], [0, 0]), (b["from"], [0], [0, 0]), (b, None, [0, 0]),
                 (b, [0], (0, 0)), (b, [0.5], [0, 0])):
        with pytest.raises(TypeError):
            bank.count(*args)
    for start, stop in ((11, None), (-1, None), (0, 11), (6, 5)):
        with pytest.raises(ValueError):
            bank.count(b, [0], [0, 0], start, stop)
    for general, fixed in (([], [0, 0]), ([0], [0])):
        with pytest.raises(IndexError):
            bank.count(b, general, fixed)
        with pytest.raises(IndexError):
            bank.add(general, fixed, 0, 0, 0, True, 1, 1)
    for general, fixed in (([256], [0, 0]), ([0], [0, -1])):
        with pytest.raises(OverflowError):
            bank.count(b, general, fixed)
    for one in ((16, 0, 0), (0, 4, 0), (0, 0, 8)):
        with pytest.raises(ValueError):
            bank.add([0], [0, 0], *one, True, 1, 1)


@pytest.mark.parametrize("field, value", [("class", 16), ("flags", 8), ("cpl_from", 4)])
def test_a_branch_out_of_range_counts_and_records_nothing(field, value):
    b = some_branches(1000, classes=(0,))
    b[field][700] = value
    state, general = LbrState(LbrConfig()), [0]
    state.ctl = ALL
    with pytest.raises(ValueError):
        Bank([0], [(0xFFFF, 0, 0)], [48]).count(b, general, [], state=state)
    assert not state.records()["from"].any() and general == [0]
    general = [156]
    bank = Bank([0], [(0xFFFFFFFF, 0, 0)], [8])
    assert bank.count(b, general, [], state=state) == (100, 1), "not looked at"
