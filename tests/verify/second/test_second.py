"""Two implementations of the designs count the same states and break the same properties."""

import pytest

from pylbr.arbitration import POLICIES
from pylbr.verify.models import STANDARD, Configuration
from pylbr.verify.properties import NAMES
from pylbr.verify.suites import CORRECT, EQUIVALENT, EXTENDED
from tests.peers.peer_tools import need
from tests.verify.second.compare import build, first, ignored, second

pytestmark = pytest.mark.peer

KINDS = STANDARD["kinds"]
SMALL = ("nmi", "migrate")
#: Every flaw of every policy: (policy, flaw).
FLAWS = [(policy, flaw) for policy in POLICIES for flaw in POLICIES[policy][0].FLAWS
         if flaw not in POLICIES[policy][2]]
GROUNDS = {
    "standard": {"features": STANDARD["features"], "kinds": KINDS},
    "LER": {"features": ("nmi", "nmi-branch", "fault", "xsaves"), "kinds": KINDS},
    "filters": {"features": ("nmi", "kernel", "xsaves"), "kinds": ("cpu-exclude", "cpu-user")},
    "events": {"features": ("migrate", "init", "smm", "db"), "kinds": ()},
}


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    return build(tmp_path_factory.mktemp("second"), need("g++"))


@pytest.fixture
def same(program):
    def check(configuration, ignore=None):
        ignore = ignored(configuration) if ignore is None else ignore
        one, two = first(configuration, ignore), second(program, configuration, ignore)
        assert one == two
        return one
    return check


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("guests", [1, 2])
@pytest.mark.parametrize("features", [(), SMALL, STANDARD["features"]])
def test_same_states(same, policy, guests, features):
    count = same(Configuration(policy, depth=1, guests=guests, features=features, kinds=KINDS))
    assert count.states > (2000 if guests == 2 else 400)
    assert not count.broken or policy not in CORRECT


@pytest.mark.parametrize("policy", POLICIES)
def test_same_states_behind_broken_properties(same, policy):
    """Nothing pruned: what a flawed design does next is the same too."""
    same(Configuration(policy, depth=2, guests=1), ignore=NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["request", "mediated"])
def test_same_states_at_depth_2(same, policy):
    assert same(Configuration(policy, depth=2, guests=2)).states > 50_000


@pytest.mark.parametrize("policy", CORRECT)
@pytest.mark.parametrize("name", [name for name in EXTENDED if name != "tasks"])
def test_same_states_in_the_extended_sets(same, policy, name):
    same(Configuration(policy, depth=1, **{**EXTENDED[name], "guests": 1}))


@pytest.mark.parametrize("policy", ["mediated", "kvm-legacy-designed"])
def test_same_states_with_events_of_tasks(same, policy):
    same(Configuration(policy, depth=1, guests=1, events=2, features=("nmi",),
                       kinds=("task-exclude", "task-flexible", "cpu")))


@pytest.mark.parametrize(("policy", "flaw"), FLAWS)
def test_same_verdict_on_every_flaw(same, policy, flaw):
    """As many states, the same properties broken, each by a way as short."""
    for name, ground in GROUNDS.items():
        if POLICIES[policy][0].__name__ == "KvmLegacy" and name == "filters":
            continue            # see test_a_legacy_guest_that_filters
        same(Configuration(policy, (flaw,), depth=1, guests=1, **ground))


@pytest.mark.xfail(strict=True, reason="guest_execute writes an architectural LBR_CTL value to "
                   "MSR_LBR_SELECT, which refuses it: a legacy guest's own write is lost")
@pytest.mark.parametrize("policy", ["kvm-legacy", "kvm-legacy-designed"])
def test_a_legacy_guest_that_filters(same, policy):
    same(Configuration(policy, depth=1, guests=1, features=("kernel",), kinds=KINDS))


@pytest.mark.parametrize("flaw", ["no-wipe", "no-save", "steal-in-irq", "silent-cut"])
def test_planted_bug_is_found_by_both_and_by_the_comparison(program, same, flaw):
    right, wrong = (Configuration("lease", flaws, depth=1, guests=1) for flaws in ((), (flaw,)))
    assert same(wrong).broken and not same(right).broken
    assert first(right, ()) != second(program, wrong, ())


def test_a_guard_that_changes_nothing_changes_nothing_here_either(program):
    """`keep-enabled` is equivalent: not one state differs."""
    assert "keep-enabled" in EQUIVALENT
    count = second(program, Configuration("mediated", ("keep-enabled",), depth=1), ())
    assert count == first(Configuration("mediated", depth=1), ())
