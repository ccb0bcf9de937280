"""The big simulation: what one CPU and two do with the same workload."""

import pytest

from lbrcore.config import LbrConfig
from pylbr.arbitration import POLICIES
from pylbr.errors import ConfigurationError
from pylbr.verify.compare import program
from pylbr.verify.mutants import mutant
from pylbr.verify.simulation import Simulation
from pylbr.verify.suites import CORRECT

BRANCHES = 300_000
#: Much happens soon: short stays, short sessions, a sample every seventh branch.
BUSY = {"session_every": 5_000, "session_length": 5_000, "guest_branches": 30, "host_branches": 20,
        "period": 7, "task_every": 5}
STREAMS = [program(owner) for owner in range(4)]


def simulation(policy, flaws=(), cpus=2, streams=STREAMS, **rates):
    made = mutant(policy, flaws)
    config = (LbrConfig.legacy(32, linear_width=64) if made.legacy
              else LbrConfig(linear_width=64))
    return Simulation(made, config, streams, 512, cpus=cpus, **{**BUSY, **rates})


def after(policy, flaws=(), **rates):
    return simulation(policy, flaws, **rates).run(BRANCHES)


#: Of one CPU, as they were while there was no other.
NAMES = ("cycles", "host_lost", "guest_lost", "wait_branches", "wait_cycles", "longest_wait", "cut",
         "absent", "guest_cut", "msr_accesses", "xsaves", "exits")
ONE_CPU = {
    "kvm-legacy": (24_717_722, 44_722, 0, 4944, 404_764, 993, 6976, 6399, 114, 152_900, 0, 4230),
    "kvm-legacy-6.12": (24_717_722, 44_722, 0, 4944, 404_764, 993,
                        6976, 6399, 114, 152_900, 0, 4230),
    "kvm-legacy-2024": (24_717_722, 44_722, 0, 4944, 404_764, 993,
                        6976, 6399, 114, 152_900, 0, 4230),
    "kvm-legacy-designed": (43_282_522, 0, 124_388, 0, 0, 0, 6648, 0, 17_785, 78_397, 0, 22_000),
    "arch-lbr-v2": (10_591_722, 44_722, 0, 4944, 183_964, 993, 6976, 6399, 114, 1353, 1344, 4230),
    "arch-lbr-v2-fixed": (38_294_422, 0, 124_388, 0, 0, 0, 2143, 0, 17_785, 15_760, 34, 22_000),
    "request": (26_008_022, 443, 67_178, 443, 25_658, 38, 2189, 63, 9973, 12_368, 1090, 13_824),
    "mediated": (10_879_622, 44_722, 0, 4944, 181_664, 993, 6976, 6399, 15, 1160, 2368, 4230),
    "mediated-arch-lbr": (13_517_222, 0, 0, 0, 0, 0, 6648, 0, 15, 9278, 8454, 4230),
    "mediated-arch-lbr-fixed": (15_042_422, 0, 0, 0, 0, 0, 6648, 0, 15, 5018, 14_958, 4230),
    "mediated-merged": (15_045_122, 0, 0, 0, 0, 0, 6648, 0, 15, 5018, 14_967, 4230),
    "lease": (14_921_222, 443, 0, 443, 25_658, 38, 2189, 63, 15, 5018, 14_554, 4230),
}
SAME_FOR_ALL = {"branches": 300_037, "host_branches": 88_573, "guest_branches": 127_314,
                "sessions": 33, "served": 33, "refused": 0, "samples": 12_654,
                "guest_samples": 18_189, "remote": 0, "of_tasks": 0, "moved": 0}


@pytest.mark.parametrize("policy", POLICIES)
def test_one_cpu_does_what_it_did(policy):
    counts = after(policy, cpus=1)
    assert dict(zip(NAMES, ONE_CPU[policy], strict=True)) == {n: counts[n] for n in NAMES}
    assert {n: counts[n] for n in SAME_FOR_ALL} == SAME_FOR_ALL


@pytest.fixture(scope="module")
def two():
    return {policy: after(policy) for policy in POLICIES}


def test_two_cpus_see_the_same_workload_under_every_policy(two):
    for name in ("branches", "host_branches", "guest_branches", "sessions", "samples", "moved",
                 "guest_samples", "remote", "of_tasks"):
        assert len({counts[name] for counts in two.values()}) == 1, name
    counts = two["lease"]
    assert counts["remote"] > 5 and counts["of_tasks"] > 5 and counts["moved"] > 100
    assert counts["sessions"] - counts["of_tasks"] > 5


@pytest.mark.parametrize("policy", POLICIES)
def test_totals_are_those_of_the_cpus(policy):
    run = simulation(policy)
    seen = set()
    while run.branches < BRANCHES:
        run.run(min(5_000, BRANCHES - run.branches))
        threads = [task for task in run.tasks if task]
        assert len(set(threads)) == len(threads)  # a vCPU is loaded on one CPU only
        seen |= {(cpu, task) for cpu, task in enumerate(run.tasks)}
    assert seen == {(cpu, task) for cpu in range(2) for task in range(4)}
    assert len(run.per_cpu) == 2
    for name in run.per_cpu[0]:
        assert run.counts[name] == sum(one[name] for one in run.per_cpu)
        assert name in ("msr_accesses", "xsaves") or all(one[name] for one in run.per_cpu)
    longest_turn = 2 * BUSY["host_branches"] + 2 * BUSY["guest_branches"]
    assert abs(run.per_cpu[0]["branches"] - run.per_cpu[1]["branches"]) < longest_turn
    assert run.counts["branches"] == run.branches < BRANCHES + longest_turn
    assert run.counts["guest_branches"] == run.truth_counts[1:].sum()
    assert run.counts["host_branches"] == run.truth_counts[0].sum()
    assert run.counts["guest_branches"] + run.counts["host_branches"] <= run.branches
    assert run.counts == after(policy)  # in slices or at once


def test_the_seed_decides():
    assert after("lease", seed=7) == after("lease", seed=7) != after("lease", seed=8)


@pytest.mark.parametrize("exclude_guest", [True, False], ids=["exclude-guest", "trace-guests"])
@pytest.mark.parametrize("policy", CORRECT)
def test_nothing_leaks_between_two_cpus(policy, exclude_guest):
    counts = after(policy, exclude_guest=exclude_guest)
    assert counts["leaks"] == counts["gaps"] == counts["failures"] == 0
    assert counts["guest_samples"] > 1_000


@pytest.mark.parametrize(("policy", "flaws", "name"), [
    ("lease", ("no-wipe",), "leaks"), ("mediated", ("no-wipe",), "leaks"),
    ("request", ("guest-runs-host-ctl",), "leaks"), ("request", ("no-pause-clear",), "gaps"),
    ("kvm-legacy-designed", (), "leaks"),
])
def test_leaks_and_gaps_are_seen(policy, flaws, name):
    assert after(policy, flaws)[name] > 0


@pytest.mark.parametrize("policy", ["lease", "mediated"])
def test_records_go_with_a_vcpu_to_another_cpu(policy):
    counts = after(policy)
    assert counts["moved_whole"] == counts["moved_compared"] > 100
    assert counts["guest_lost"] == 0
    flawed = after(policy, ["no-save"])
    assert flawed["moved_compared"] == counts["moved_compared"] and not flawed["moved_whole"]


def test_who_is_stolen_from_moves_without_records(two):
    assert two["request"]["moved_whole"] < two["lease"]["moved_whole"]
    assert two["arch-lbr-v2-fixed"]["moved_whole"] < two["request"]["moved_whole"]


def test_events_elsewhere_wait_as_little_as_at_home(two):
    """An IPI makes the guest exit; what then is waited for is the next VM entry."""
    for policy in ("request", "lease"):
        counts = two[policy]
        assert counts["served"] == counts["sessions"]
        assert counts["host_lost"] <= counts["wait_branches"]
        assert counts["longest_wait"] < 2 * BUSY["host_branches"]
    assert two["mediated"]["served"] < two["mediated"]["sessions"]


@pytest.mark.parametrize("cpus", [0, 3])
def test_impossible_numbers_of_cpus(cpus):
    with pytest.raises(ConfigurationError, match="cpus: 1 to 2"):
        simulation("lease", cpus=cpus)
