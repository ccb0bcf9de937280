"""Samples of traces with tasks, CPUs and chunks, against a plain replay of every branch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE, LbrConfig, LbrState
from lbrcore.reference_replay import ReferenceReplay
from pylbr import trace
from pylbr.errors import ConfigurationError
from pylbr.perf.batch import SampleBatch
from pylbr.sample import LbrIndex, Sampler, SampleSetup, lbr_at, parallel, sample
from pylbr.trace import Metadata, Task
from tests.manual import RECORD_ALL
from tests.replay.strategies import columns, traces

SETUPS = st.builds(
    lambda event, period, branches, model, scope, freeze, jitter, skid: SampleSetup.of(
        event, period, branches=branches, model=model, scope=scope, freeze=freeze,
        jitter=min(jitter, period - 1), seed=7, skid=skid),
    st.sampled_from(["branches:u", "every-branch", "branch-misses", "instructions",
                     ["every-branch", "branch-misses:k"]]),
    st.integers(1, 120), st.sampled_from(["any,u", "any_call,k", "stack,u", "stack", "cond"]),
    st.sampled_from(["sapphire-rapids", "skylake", "sierra-forest"]),
    st.sampled_from(["task", "cpu"]), st.sampled_from([None, True, False]),
    st.sampled_from([0, 0, 5]), st.sampled_from([0, 0, 3]),
)


class PlainSampler:
    """One branch after the other, one facility a task or CPU."""

    def __init__(self, setup):
        self.setup, self.replays = setup, {}
        self.last_task, self.last_cpu = {}, {}
        self.samples = []

    def replay(self, key):
        if key not in self.replays:
            sampler = Sampler(self.setup)
            events = sampler.replay_of(key).events  # seeds differ by stream
            self.replays[key] = ReferenceReplay(
                self.setup.facility(), events, bool(self.setup.freeze))
        return self.replays[key]

    def take(self, index, branch, task, cpu):
        replay = self.replay(task if self.setup.scope == "task" else cpu)
        switched = self.last_task.get(cpu, task) != task or self.last_cpu.get(task, cpu) != cpu
        self.last_task[cpu], self.last_cpu[task] = task, cpu
        if switched:
            self.switch_in(replay.lbr)
        done = len(replay.samples)
        replay.run(branch.reshape(1))
        for one in replay.samples[done:]:
            self.samples.append((
                int(branch["to"][0]), task, cpu, index, one.period, one.event,
                one.records[:one.nr]))

    def switch_in(self, lbr):
        if not (self.setup.call_stack and self.setup.scope == "task"):
            lbr.clear()
        if not lbr.frozen:
            lbr.frozen = True
            lbr.frozen = False


def listed(batches):
    return [
        (int(b.ip[i]), int(b.tid[i]), int(b.cpu[i]), int(b.time[i]), int(b.period[i]),
         int(b.event[i]), b.stack(i).tolist())
        for b in batches for i in range(len(b))
    ]


@given(SETUPS, traces(), st.data())
@settings(max_examples=60, deadline=None)
def test_samples_of_a_trace_with_tasks_and_cpus(setup, batch, data):
    n = len(batch)
    run = data.draw(st.sampled_from([1, 7, 50]))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    task, cpu = (np.repeat(rng.integers(1, 4, n // run + 1), run)[:n].astype("u4")
                 for _ in range(2))
    plain = PlainSampler(setup)
    for i in range(n):
        plain.take(i, batch[i:i + 1], int(task[i]), int(cpu[i]))
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=3))), n]
    sampler = Sampler(setup)
    batches = [
        found for first, last in zip(cuts, cuts[1:], strict=False)
        for found in sampler.take(
            columns(batch[first:last]), first, task[first:last], cpu[first:last])
    ]
    assert listed(batches) == plain.samples


@given(SETUPS, traces(2000), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_threads_change_nothing(setup, batch, threads):
    whole = parallel._SMALLEST_PART
    parallel._SMALLEST_PART = 64
    try:
        alone, together = Sampler(setup), Sampler(setup, threads=threads)
        for first in (0, len(batch) // 2):
            part = columns(batch[first:first + len(batch) // 2])
            expected = listed(alone.take(part, first))
            assert listed(together.take(part, first)) == expected
    finally:
        parallel._SMALLEST_PART = whole


@pytest.fixture(scope="module")
def program():
    """A call tree that goes up and down, with loops."""
    rng = np.random.default_rng(11)
    n = 40_000
    batch = np.zeros(n, BRANCH_DTYPE)
    batch["class"] = rng.choice([0, 0, 0, 6, 6, 4, 5, 3, 5], n)
    batch["from"] = np.arange(n) * 16 + 0x400000
    batch["to"] = batch["from"] + 64
    batch["cycles"], batch["instructions"] = rng.integers(1, 30, n), rng.integers(1, 9, n)
    batch["cpl_from"] = batch["cpl_to"] = 3
    return batch


@pytest.fixture(scope="module")
def path(program, tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "program.arrow"
    with trace.Writer(path, Metadata(tasks=(Task(7, 6, "prog"),))) as writer:
        writer.write(program)
    return path


def test_a_file_is_sampled_chunk_by_chunk(path, program):
    setup = SampleSetup.of("branches:u", 501, branches="any,u")
    done = []
    with trace.open(path) as source:
        batches = list(sample(source, setup, update=done.append))
    assert sum(done) == len(program)
    joined = SampleBatch.concat(batches)
    assert (joined.time == np.arange(500, len(program), 501)).all()
    assert (joined.pid == 6).all() and (joined.tid == 7).all()
    newest = np.array([stack["from"][0] for stack in joined.stacks()])
    taken = np.flatnonzero(program["class"] != 6)
    last_taken = taken[np.searchsorted(taken, joined.time, side="right") - 1]
    assert (newest == program["from"][last_taken]).all()
    assert (joined.ip == program["to"][joined.time.astype(int)]).all()


@pytest.mark.parametrize("branches", ["any,u", "stack,u", "ind_call,u"])
def test_any_place_can_be_looked_up(path, program, branches):
    setup = SampleSetup(branches=branches)
    places = [0, 1, 40, 999, 16384, 30_001, len(program) - 1]
    with trace.open(path) as source:
        index = LbrIndex(source, setup, every=4096)
        for place in places:
            expected = setup.facility()
            expected.record(program[:place + 1])
            for found in (lbr_at(source, place, setup), index.at(place)):
                assert found.records().tolist() == expected.records().tolist()
                assert found.cycles == expected.cycles
        for place in (-1, len(program)):
            with pytest.raises(IndexError):
                lbr_at(source, place, setup)
            with pytest.raises(IndexError):
                index.at(place)


def test_a_trace_can_be_asked_itself(path, program):
    fresh = SampleSetup(branches="any_call").facility()
    with trace.open(path) as source:
        for place in (0, 31, 999, len(program) - 1):
            plain, calls = LbrState(LbrConfig()), fresh.copy()
            plain.ctl = RECORD_ALL
            for expected, found in ((plain, source.lbr_at(place)),
                                    (calls, source.lbr_at(place, fresh))):
                expected.record(program[:place + 1])
                assert found.records().tolist() == expected.records().tolist()
                assert found.cycles == expected.cycles
        assert not fresh.records()["from"].any()
        for place in (-1, len(program)):
            with pytest.raises(IndexError):
                source.lbr_at(place)


def test_a_column_that_an_event_counts_must_be_there(program, tmp_path):
    with trace.Writer(tmp_path / "t.arrow", columns=("from", "to", "class")) as writer:
        writer.write(program[:100])
    with trace.open(tmp_path / "t.arrow") as source:
        assert listed(sample(source, SampleSetup.of("branches", 30)))
        with pytest.raises(ConfigurationError, match="no column 'cycles'"):
            list(sample(source, SampleSetup.of("cycles", 30)))


def test_a_session_needs_an_event():
    with pytest.raises(ConfigurationError, match="no event"):
        Sampler(SampleSetup())
