"""Two implementations of the designs count the same states and break the same properties."""

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pylbr.arbitration import POLICIES, make_policy
from pylbr.verify.models import KINDS, NEEDS, STANDARD, Configuration, explore
from pylbr.verify.mutants import flaws_of
from pylbr.verify.properties import NAMES
from pylbr.verify.suites import CORRECT, EQUIVALENT, EXTENDED, of_legacy
from tests.peers.peer_tools import need
from tests.verify.explored import explored
from tests.verify.second.compare import KNOWS, build, first, ignored, second

pytestmark = pytest.mark.peer

OPENED = STANDARD["kinds"]
SMALL = ("nmi", "migrate")


def _needs(policy, flaw):
    """Features without which a flaw is never seen."""
    return [needs] if (needs := flaws_of(policy)[flaw][1]) else []


#: Every flaw of every policy: (policy, flaw).
FLAWS = [(policy, flaw) for policy in POLICIES for flaw in flaws_of(policy)
         if flaw not in getattr(make_policy(policy), "flaws", ())]
#: What a flaw needs -> features and events that show it.
SHOWN = {
    "pebs": {"features": ("pebs",), "kinds": ("cpu-exclude", "cpu-pebs")},
    "stack": {"features": (), "kinds": ("task-stack", "cpu-exclude")},
}
#: What a flaw needs -> what else is searched with it.
BESIDE = {"stack": (("nmi",),), "host-freeze": (("nmi",), ("nmi", "nmi-branch"))}
GROUNDS = {
    "standard": {"features": STANDARD["features"], "kinds": OPENED},
    "LER": {"features": ("nmi", "nmi-branch", "fault", "xsaves"), "kinds": OPENED},
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
        one = first(configuration, ignore, explored)
        assert one == second(program, configuration, ignore)
        return one
    return check


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("guests", "features"), [
    (1, ()), (1, SMALL), (1, STANDARD["features"]), (2, SMALL), (2, STANDARD["features"])])
def test_same_states(same, policy, guests, features):
    count = same(Configuration(policy, depth=1, guests=guests, features=features, kinds=OPENED))
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
@pytest.mark.parametrize("ground", [
    {"features": STANDARD["features"], "kinds": OPENED},
    {"features": ("nmi", "vpmi", "migrate"), "kinds": ("cpu-exclude",)},
    {"features": ("nmi", "pebs", "fault", "xsaves"), "kinds": ("cpu-pebs", "cpu-exclude")},
    {"features": ("nested", "reset", "xrstors"), "kinds": ("cpu-exclude",)},
    {"features": ("init", "smm", "db"), "kinds": ("cpu",)},
    {"features": ("nmi",), "kinds": ("cpu-exclude",), "cpus": 2},
], ids=["standard", "PMIs", "PEBS", "nested", "events", "CPUs"])
def test_same_states_of_lazy_pass_through(same, policy, ground):
    """Of each policy's lazy form, which is not the other form by another name."""
    lazy, other = (same(Configuration(name, depth=1, guests=1, **ground))
                   for name in (f"{policy}-lazy", policy))
    assert lazy.states > 800 and lazy != other and not lazy.broken


@pytest.mark.parametrize("policy", CORRECT)
@pytest.mark.parametrize("name", [name for name in EXTENDED if name not in ("tasks", "all")])
def test_same_states_in_the_extended_sets(same, policy, name):
    """`tasks` and `all` are too large for every day."""
    same(Configuration(policy, depth=1, **{**EXTENDED[name], "guests": 1}))


@pytest.mark.parametrize("policy", ["mediated", "kvm-legacy-designed"])
def test_same_states_with_events_of_tasks(same, policy):
    same(Configuration(policy, depth=1, guests=1, events=2, features=("nmi",),
                       kinds=("task-exclude", "task-flexible", "cpu")))


@pytest.mark.parametrize(("policy", "flaw"), FLAWS)
def test_same_verdict_on_every_flaw(same, policy, flaw):
    """As many states, the same properties broken, each by a way as short."""
    for what in _needs(policy, flaw):
        shown = SHOWN.get(what, {"features": (what,), "kinds": OPENED})
        counts = [same(Configuration(policy, (flaw,), depth=1, guests=1, **{
            **shown, "features": (*shown["features"], *more)}))
            for more in BESIDE.get(what, (("nmi",), ("migrate", "xsaves")))]
        assert any(count.broken for count in counts)
        return
    for ground in GROUNDS.values():
        if make_policy(policy).legacy:
            ground = {**ground, "features": of_legacy(ground["features"])}
        same(Configuration(policy, (flaw,), depth=1, guests=1, **ground))


@pytest.mark.parametrize("policy", ["kvm-legacy", "kvm-legacy-designed"])
def test_a_legacy_guest_that_filters(same, policy):
    same(Configuration(policy, depth=1, guests=1, features=("kernel",), kinds=OPENED))


@pytest.mark.parametrize("policy", ["request", "kvm-legacy-2024"])
def test_events_of_tasks_on_two_cpus(same, policy):
    same(Configuration(policy, depth=1, guests=1, cpus=2, features=(), kinds=("task-exclude",)))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_same_states_of_any_small_configuration(program, data):
    """Policies, flaws, features and events as they come."""
    policy = data.draw(st.sampled_from(list(POLICIES)))
    some = {"unique": True, "max_size": 4}
    kinds = set(data.draw(st.lists(st.sampled_from(sorted(KINDS)), **some)))
    flaws = data.draw(st.lists(st.sampled_from(
        [flaw for of, flaw in FLAWS if of == policy] or [None]), unique=True, max_size=2))
    flaws = [flaw for flaw in flaws if flaw]
    always = {f for flaw in flaws for f in _needs(policy, flaw)}
    kinds |= {"task-stack"} if "stack" in always else set()
    always = always & KNOWS | {NEEDS[kind] for kind in kinds if kind in NEEDS}
    features = {*always, *data.draw(st.lists(st.sampled_from(sorted(KNOWS)), **some))}
    configuration = Configuration(
        policy, tuple(flaws),
        depth=data.draw(st.sampled_from([1, 2])), guests=1,
        cpus=data.draw(st.sampled_from([1, 1, 2])),
        features=of_legacy(features) if make_policy(policy).legacy else tuple(features),
        kinds=tuple(sorted(kinds)),
        events=data.draw(st.sampled_from([1, 1, 2])))
    ignore = data.draw(st.sampled_from([(), ("P20", "P20b"), NAMES]))
    assume(explore(configuration, ignore=ignore, limit=40_000).complete)
    assert first(configuration, ignore) == second(program, configuration, ignore)


@pytest.mark.parametrize("flaw", ["no-wipe", "no-save", "take-in-ipi", "silent-cut"])
def test_planted_bug_is_found_by_both_and_by_the_comparison(program, same, flaw):
    right, wrong = (Configuration("lease", flaws, depth=1, guests=1) for flaws in ((), (flaw,)))
    assert same(wrong).broken and not same(right).broken
    assert first(right, ()) != second(program, wrong, ())


def test_a_guard_that_changes_nothing_changes_nothing_here_either(program):
    """`keep-enabled` is equivalent: not one state differs."""
    assert "keep-enabled" in EQUIVALENT
    count = second(program, Configuration("mediated", ("keep-enabled",), depth=1), ())
    assert count == first(Configuration("mediated", depth=1), ())
