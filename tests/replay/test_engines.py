"""The lazy engine against its twin, bit by bit, in every mode."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE, Flavour, LbrConfig, LbrState
from lbrcore.events import CountedEvent, Unit
from lbrcore.reference_replay import ReferenceReplay, weight
from lbrcore.replay import Replay, SampleBuffer
from lbrcore.rows import Rows
from lbrcore.scan import find, last_rows, total
from tests.manual import RECORD_ALL
from tests.replay.strategies import columns, facilities, shown, traces

EVENTS = st.builds(
    CountedEvent,
    period=st.one_of(st.integers(1, 12), st.integers(13, 300)),
    classes=st.sampled_from([0xFFFF, 0xFFFF, 1 << 5, 0xFFBF, 0x18, 1 << 6, 0]),
    flags=st.sampled_from([0xFF, 0xFF, 0xF0]),
    cpls=st.sampled_from([0xF, 0xF, 0xE, 1]),
    unit=st.sampled_from([Unit.BRANCHES, Unit.BRANCHES, Unit.INSTRUCTIONS, Unit.CYCLES]),
    skid=st.sampled_from([0, 0, 1, 3, 40]),
)
JITTERED = EVENTS.flatmap(
    lambda e: st.builds(
        lambda jitter, seed: CountedEvent(
            e.period, e.classes, e.flags, e.cpls, e.unit, jitter, seed, e.skid),
        st.integers(0, e.period - 1), st.integers(0, (1 << 64) - 1)))
LAYOUTS = st.sampled_from([lambda batch: batch, columns])


def samples(out):
    """Samples of a buffer as the twin has them, whose INFO has the class."""
    entries = out.entries[:out.count].copy()
    entries["info"] |= out.classes[:out.count].astype("u8") << np.uint64(48)
    return [
        (int(out.row[i]), int(out.event[i]), int(out.period[i]), int(out.nr[i]),
         entries[i].tolist())
        for i in range(out.count)
    ]


def run(replay, branches, capacity=None, **place):
    """Samples of a run, taking the buffer out whenever it is full."""
    capacity = capacity or max(len(replay.events), 1)
    found, row = [], place.pop("first", 0)
    last = place.pop("last")
    while True:
        out = SampleBuffer(capacity, replay.lbr.depth)
        row = replay.run(branches, out, row, last)
        found += samples(out)
        if row == last and out.count + len(replay.events) <= capacity:
            return found


@given(facilities(), st.lists(JITTERED, max_size=3), traces(), st.booleans(), st.booleans(),
       LAYOUTS, st.lists(st.integers(0, 600), max_size=3), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_the_engine_equals_the_twin(lbr, events, batch, freeze, whole, layout, cuts, spare):
    """Also in chunks, and with a buffer that fills up."""
    reference = ReferenceReplay(lbr.copy(), events, freeze)
    reference.run(batch)
    cuts = [0, *sorted(min(cut, len(batch)) for cut in cuts), len(batch)]
    replay = Replay(lbr.copy(), events, freeze=freeze, whole=whole)
    found = []
    for first, last in zip(cuts, cuts[1:], strict=False):
        found += run(replay, layout(batch), len(events) + spare or 1, first=first, last=last)
    assert found == [tuple(sample) for sample in reference.samples]
    seen, expected = shown(replay.lbr, head=whole), shown(reference.lbr, head=whole)
    if not whole:
        seen, expected = seen[:1] + seen[2:], expected[:1] + expected[2:]  # all but LER
    assert seen == expected


@given(traces(2000), EVENTS, LAYOUTS, st.integers(1, 500), st.integers(0, 2000))
@settings(max_examples=100, deadline=None)
def test_counting_is_adding_up_weights(batch, event, layout, need, cut):
    first, last = sorted((min(cut, len(batch)), len(batch) * 3 // 4))
    weights = np.array([weight(event, b) for b in batch[first:last]], dtype="u8")
    rows = layout(batch)
    assert total(rows, event, first, last) == weights.sum()
    reached = np.flatnonzero(np.cumsum(weights) >= need)
    expected = first + reached[0] if len(reached) else None
    assert find(rows, event, need, first, last) == expected
    if event.unit == Unit.BRANCHES:
        matching = first + np.flatnonzero(weights)[::-1][:need % 65]
        assert last_rows(rows, event, need % 65, first, last) == matching.tolist()


def test_a_cpl_goes_by_the_address():
    batch = np.zeros(3, BRANCH_DTYPE)
    batch["from"] = [0x1000, 0xFFFF800000000000, 0x2000]
    rows = {"from": batch["from"], "to": batch["to"], "class": batch["class"],
            "cpl_from": "address"}
    assert total(rows, CountedEvent(1, cpls=0xE)) == 2
    assert total(rows, CountedEvent(1, cpls=1)) == 1


def test_a_frozen_stack_starts_to_count_cycles_anew():
    lbr = LbrState(LbrConfig())
    lbr.ctl = RECORD_ALL
    batch = np.zeros(4, BRANCH_DTYPE)
    batch["from"], batch["cycles"] = [1, 2, 3, 4], 5
    replay = Replay(lbr, [CountedEvent(2)], freeze=True)
    first, second = run(replay, batch, last=4)
    valid = [entry[2] >> 60 & 1 for entry in second[4][:4]]
    assert first[0] == 1 and second[0] == 3
    assert valid == [1, 0, 1, 0]


@pytest.mark.parametrize("rows", [
    {"from": np.zeros(2, "u8"), "to": np.zeros(3, "u8"), "class": np.zeros(2, "u1")},
    {"from": np.zeros(2, "u4"), "to": np.zeros(2, "u8"), "class": np.zeros(2, "u1")},
    {"from": np.zeros(2, "u8"), "to": np.zeros(2, "u8")},
    {"from": np.zeros(2, "u8"), "to": np.zeros(2, "u8"), "class": 3},
    {"from": np.zeros(2, "u8"), "to": np.zeros(2, "u8"), "class": np.zeros(2, "u1"),
     "cpl_to": "level"},
    {"from": np.zeros(2, "u8"), "to": np.zeros(2, "u8"), "class": np.zeros(2, "u1"),
     "cycles": 1 << 32},
    {"from": np.zeros(2, "u8"), "to": np.zeros(2, "u8"), "class": np.zeros(2, "u1"),
     "events": np.zeros((2, 3), "u1")},
    np.zeros(2, "u8"), None,
])  # fmt: skip
def test_rows_that_do_not_fit_are_refused(rows):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        total(rows, CountedEvent(1))


@pytest.mark.parametrize("change", [
    {"period": 0}, {"period": 1 << 47}, {"jitter": 10}, {"classes": -1}, {"flags": 256},
    {"cpls": 16}, {"skid": -1}, {"seed": 1 << 64},
])  # fmt: skip
def test_an_event_that_cannot_be_is_refused(change):
    with pytest.raises(ValueError):
        CountedEvent(**{"period": 10, **change})


@given(traces(100), st.data())
@settings(max_examples=20, deadline=None)
def test_columns_are_gathered(batch, data):
    first = data.draw(st.integers(0, len(batch)))
    last = data.draw(st.integers(first, len(batch)))
    for rows in (Rows(batch), Rows(columns(batch))):
        assert rows.gather(first, last).tobytes() == batch[first:last].tobytes()
    with pytest.raises(ValueError, match="of .* rows"):
        Rows(batch).gather(0, len(batch) + 1)


def test_calls_that_do_not_fit_are_refused():
    lbr = LbrState(LbrConfig())
    batch = np.zeros(3, BRANCH_DTYPE)
    with pytest.raises(ValueError, match="16 counters"):
        Replay(lbr, [CountedEvent(1)] * 17)
    replay = Replay(lbr, [CountedEvent(1)] * 2)
    with pytest.raises(ValueError, match="depth 8"):
        replay.run(batch, SampleBuffer(2, 8))
    with pytest.raises(ValueError, match="room for 2"):
        replay.run(batch, SampleBuffer(1, 32))
    with pytest.raises(ValueError, match="of 3 rows"):
        replay.run(batch, SampleBuffer(2, 32), 2, 4)


def test_legacy_samples_carry_the_top_of_stack():
    lbr = LbrState(LbrConfig.legacy(16))
    lbr.enable = True
    assert lbr.config.flavour == Flavour.LEGACY
    batch = np.zeros(100, BRANCH_DTYPE)
    batch["from"] = 7
    out = SampleBuffer(8, 16)
    Replay(lbr, [CountedEvent(30)], whole=True).run(batch, out)
    assert out.hw_idx[:3].tolist() == [30 % 16, 60 % 16, 90 % 16]


def test_a_buffer_takes_what_fits():
    lbr = LbrState(LbrConfig())
    out = SampleBuffer(1, 32)
    out.add(lbr, 5, 0, 9)
    assert (out.row[0], out.period[0], out.nr[0]) == (5, 9, 0)
    with pytest.raises(ValueError, match="full"):
        out.add(lbr, 5, 0, 9)
    with pytest.raises(ValueError, match="depth 32, the buffer 8"):
        SampleBuffer(1, 8).add(lbr, 5, 0, 9)
