"""Searches, walks and the big simulation: states, actions and world switches a second."""

import time

import pytest

from pylbr.verify.compare import Workload, compare
from pylbr.verify.models import Configuration, explore
from pylbr.verify.suites import CORRECT
from pylbr.verify.walk import Walk
from pylbr.verify.walks import everything


@pytest.mark.parametrize("policy", CORRECT)
def test_search(benchmark, policy):
    result = benchmark.pedantic(explore, (Configuration(policy, depth=2),), rounds=1)
    benchmark.extra_info["states_per_second"] = result.states / result.seconds
    assert result.states / result.seconds > 50_000


def test_walk(benchmark):
    """A billion actions at depth 32 with 4 guests must be feasible."""
    walk = Walk(everything("lease"))
    start = time.process_time()
    benchmark.pedantic(walk.run, (2_000_000,), rounds=1)
    seconds = time.process_time() - start
    benchmark.extra_info["actions_per_second"] = walk.steps / seconds
    assert walk.steps / seconds > 1_000_000


@pytest.mark.parametrize("policy", ["request", "lease"])
def test_simulation(benchmark, policy):
    """At least 50,000 world switches and a million events a second."""
    workload = Workload(guest_branches=20, host_branches=10)
    start = time.process_time()
    figures = benchmark.pedantic(compare, (workload, 2_000_000, (policy,)), rounds=1)[0]
    seconds = time.process_time() - start
    switches = (figures.counts["entries"] + figures.counts["exits"]) / seconds
    events = figures.counts["branches"] / seconds
    benchmark.extra_info.update(world_switches_per_second=switches, branches_per_second=events)
    assert switches > 50_000 and events > 1_000_000
