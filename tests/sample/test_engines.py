"""Two engines, one answer: a processor that retires every branch, and looking back."""

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE
from lbrcore.rows import Rows
from pylbr.arch.models import MODELS, architectural
from pylbr.errors import ConfigurationError
from pylbr.sample import Sampler, SampleSetup
from tests.replay.strategies import columns, traces

GENERIC = ["branches", "branch-misses", "instructions", "cycles", "every-branch"]
LEVELS = ["", ":u", ":k"]
#: PMU version 2 to 5, each record format, AMD, event logging, no branch filter at all.
NAMES = ["sapphire-rapids", "sierra-forest", "skylake", "haswell", "nehalem", "core2", "goldmont",
         "goldmont-plus", "silvermont", "zen4", "core-duo", "prescott", "pentium-m"]
FILTERS = ["any,u", "any,k", "any", "stack,u", "stack", "any_call,u", "any_ret", "cond,u",
           "ind_call,ind_jmp", "call,k", "any,hw_index", "any,save_type,u", "any,u,counter",
           "stack,u,counter"]
#: An older architectural part, where a PMI clears LBREn.
OLD_PMU = architectural("old-pmu", pmu=MODELS["haswell"].pmu)


@st.composite
def setups(draw):
    """Any setup that a processor can have, with each engine."""
    period = draw(st.one_of(st.integers(1, 12), st.integers(13, 300)))
    model = draw(st.sampled_from([*map(MODELS.get, NAMES), OLD_PMU]))
    choice = {
        "events": draw(st.lists(
            st.builds(str.__add__, st.sampled_from(GENERIC), st.sampled_from(LEVELS)),
            min_size=1, max_size=3)),
        "period": period, "model": model, "branches": draw(st.sampled_from(FILTERS)),
        "jitter": draw(st.sampled_from([0, 0, period // 2])), "seed": draw(st.integers(0, 9)),
        "skid": draw(st.sampled_from([0, 0, 1, 3, 40])),
        "freeze": draw(st.sampled_from([None, None, True, False])),
        "scope": draw(st.sampled_from(["task", "cpu"])),
        "depth": draw(st.sampled_from([None, 8])) if model.arch else None,
    }
    try:
        return [SampleSetup.of(**choice, engine=engine) for engine in ("lazy", "architectural")]
    except ConfigurationError:
        reject()


def listed(batches):
    """All that samples say."""
    found = []
    for b in batches:
        for i in range(len(b)):
            start = int(b.starts[i])
            found.append((
                int(b.ip[i]), int(b.tid[i]), int(b.cpu[i]), int(b.time[i]), int(b.period[i]),
                int(b.event[i]), None if b.hw_idx is None else int(b.hw_idx[i]),
                b.stack(i).tolist(), b.classes[start:start + int(b.nr[i])].tolist()))
    return found


@given(setups(), traces(), st.data())
@settings(max_examples=150, deadline=None)
def test_both_engines_take_the_same_samples(engines, batch, data):
    """In chunks, with tasks that move between CPUs."""
    n = len(batch)
    task = cpu = None
    if data.draw(st.booleans()):
        run = data.draw(st.sampled_from([1, 7, 50]))
        rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
        task, cpu = (np.repeat(rng.integers(1, 4, n // run + 1), run)[:n].astype("u4")
                     for _ in range(2))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=3))), n]
    found = []
    for setup in engines:
        sampler = Sampler(setup)
        found.append([
            one for first, last in zip(cuts, cuts[1:], strict=False)
            for one in listed(sampler.take(
                columns(batch[first:last]), first,
                *(None if x is None else x[first:last] for x in (task, cpu))))
        ])
    assert found[0] == found[1]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_counts_branches_outside(name):
    """Also one without counters."""
    batch = np.zeros(100, BRANCH_DTYPE)
    batch["from"] = np.arange(100) + 1
    found = [
        listed(Sampler(SampleSetup.of("every-branch", 7, branches="any", model=name,
                                      engine=engine)).take(columns(batch)))
        for engine in ("lazy", "architectural")
    ]
    assert found[0] == found[1] and len(found[0]) == 14


@given(traces(), st.sampled_from(["any", "stack"]))
@settings(max_examples=30, deadline=None)
def test_samples_tell_classes(batch, branches):
    """Also those that share one BR_TYPE, and on models that record no type."""
    batch["from"] = np.arange(len(batch)) * 16 + 1
    for model in ("sapphire-rapids", "haswell"):
        for engine in ("lazy", "architectural"):
            setup = SampleSetup.of(
                "every-branch", 50, branches=branches, model=model, engine=engine)
            for found in Sampler(setup).take(columns(batch)):
                for i in range(len(found)):
                    start, nr = int(found.starts[i]), int(found.nr[i])
                    stack = found.stack(i)
                    shown = stack["from"] != ~np.uint64(0)
                    rows = (stack["from"][shown] - np.uint64(1)) // np.uint64(16)
                    classes = found.classes[start:start + nr][shown]
                    assert (classes == batch["class"][rows.astype(int)]).all()
                    assert not (stack["info"] >> np.uint64(48) & np.uint64(0xFF)).any() or (
                        model == "sapphire-rapids")


def test_logged_events_are_those_that_are_sampled():
    """IA32_PERFEVTSELx[35]: counts of the sampled events, and the trace's own of the others."""
    batch = np.zeros(40, BRANCH_DTYPE)
    batch["from"], batch["cpl_from"], batch["cpl_to"] = np.arange(40) + 1, 3, 3
    batch["class"][1::2] = 6
    batch["events"][:, 3] = 2
    for engine in ("lazy", "architectural"):
        setup = SampleSetup.of(
            "branches:u", 8, model="sierra-forest", branches="any,u,counter", engine=engine)
        found = [entry for b in Sampler(setup).take(columns(batch)) for s in b.stacks()
                 for entry in (s["info"] >> np.uint64(32) & np.uint64(0xFF)).tolist()]
        # Two branches from record to record, the first of all but one after a freeze.
        assert set(found) <= {2 | 3 << 6, 1 | 2 << 6} and 2 | 3 << 6 in found


def test_a_branch_out_of_range_is_refused_by_the_processor():
    batch = np.zeros(3000, BRANCH_DTYPE)
    batch["class"][1000] = 16
    setup = SampleSetup.of("every-branch", 10**6, engine="architectural")
    with pytest.raises(ValueError, match="out of range"):
        list(Sampler(setup).take(columns(batch)))


@pytest.mark.parametrize(("model", "events", "period", "change", "message"), [
    ("sapphire-rapids", ["branches"] * 9, 100, {}, "has 8 general counters"),
    ("pentium-m", ["branches"], 100, {}, "has 0 general counters"),
    ("nehalem", ["branches"], 1 << 31, {}, "take periods up to 2147483647"),
    ("core-duo", ["branches"], 100, {"freeze": True}, "no FREEZE_LBRS_ON_PMI"),
    ("skylake", ["branches"], 100, {"branches": "any,counter"}, "log no events"),
])
def test_what_no_processor_does_is_refused(model, events, period, change, message):
    with pytest.raises(ConfigurationError, match=message):
        SampleSetup.of(events, period, **{"model": model, "branches": "any", **change})


def test_rows_are_taken_in_place_or_gathered():
    from lbrcore.replay import SampleBuffer
    from pylbr.sample.architectural import ProcessorReplay

    batch = np.zeros(50_000, BRANCH_DTYPE)
    batch["from"] = np.arange(len(batch)) + 1
    setup = SampleSetup.of("branches", 1000, branches="any", engine="architectural")
    outs = []
    for rows in (batch, Rows(columns(batch))):
        replay = ProcessorReplay(setup, [event.counted for event in setup.events])
        out = SampleBuffer(20, 32)
        assert replay.run(rows, out) == 20_000  # no room for another
        outs.append(out.entries.tobytes())
        assert replay.run(rows, SampleBuffer(100, 32), 20_000) == len(batch)
        with pytest.raises(ValueError, match="of 50000 rows"):
            replay.run(rows, out, 3, 2)
        with pytest.raises(ValueError, match="depth 8"):
            replay.run(rows, SampleBuffer(1, 8))
        with pytest.raises(ValueError, match="room for 1"):
            replay.run(rows, SampleBuffer(0, 32))
    assert outs[0] == outs[1]
