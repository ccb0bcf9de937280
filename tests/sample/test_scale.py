"""The simulation of docs/scale.md keeps to what cannot be otherwise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.scale import Costs, Repeated, RepeatedJob, simulate
from lbrcore import BRANCH_DTYPE
from pylbr import trace
from pylbr.sample import SampleSetup
from pylbr.sample.schedule import sample_parts
from tests.sample.test_engines import listed

COSTS = Costs(describe=2e-8, sample=2.1e-8, known=6e-10, spread=0.04, client=5e-5, task=3e-3,
              summary=1300, trace=0.03)


@given(st.sampled_from([1e10, 1e12, 1e14]), st.integers(2, 3000), st.sampled_from([1e8, 1e9]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_no_more_than_linear_and_no_quicker_than_the_client(branches, workers, part):
    found = simulate(COSTS, branches, workers, part)
    alone = simulate(COSTS, branches, 1, part).seconds
    assert alone == pytest.approx(branches * COSTS.sample)
    # Describing costs less than sampling, by 5 %, and some parts are done twice.
    assert alone / found.seconds <= workers * COSTS.sample / COSTS.describe * 1.02
    assert found.client <= 1.0 + 1e-9
    least = branches / part * (COSTS.client / 2 + COSTS.task)
    assert found.seconds >= least * 0.95
    assert found.memory >= branches / part * COSTS.summary


def test_more_workers_are_no_slower_until_the_client_is_busy():
    seconds = [simulate(COSTS, 1e13, workers, 1e8).seconds for workers in (2, 8, 32, 128, 512)]
    assert seconds == sorted(seconds, reverse=True)
    assert simulate(COSTS, 1e13, 4096, 1e8).client > 0.9


def test_a_repeated_trace_is_the_trace_again_and_again(tmp_path):
    branches = np.zeros(5000, BRANCH_DTYPE)
    branches["from"] = np.arange(5000) % 700 * 16 + 0x401000
    branches["to"] = branches["from"] + 8
    branches["cpl_from"] = branches["cpl_to"] = 3
    path = str(tmp_path / "t.lbrt")
    with trace.LbrtWriter(path) as out:
        out.write(branches)
    whole = np.tile(branches, 3)[:12_345]
    with Repeated(path, len(whole)) as source:
        found = np.concatenate([chunk.branches for chunk in source.chunks(start=4000)])
        assert np.array_equal(found[:len(whole) - 4000], whole[4000:])
        assert np.array_equal(source.read(4990, 10_010), whole[4990:10_010])
    setup = SampleSetup.of("branches:u", 101)
    long = str(tmp_path / "long.lbrt")
    with trace.LbrtWriter(long) as out:
        out.write(whole)
    with trace.open(long) as source:
        from pylbr.sample import sample
        expected = listed(sample(source, setup))
    job = RepeatedJob(path, setup, len(whole), 3001)
    assert listed(sample_parts(job, None, 2)) == expected != []
