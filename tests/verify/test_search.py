"""The search itself: what it finds, what it does not, and that it is not blind."""

from pathlib import Path

import pytest

from pylbr.arbitration import POLICIES, known_flaws, make_policy
from pylbr.errors import ConfigurationError
from pylbr.tables import print_table
from pylbr.verify.guards import GUARDS
from pylbr.verify.models import Configuration, explore
from pylbr.verify.run import flaw_table
from pylbr.verify.suites import (
    CORRECT,
    EQUIVALENT,
    EXTENDED,
    by_design,
    hunt,
)
from tests.verify.explored import explored, hunted

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mutants.md"
BUGS = [(policy, flaw) for policy in ("arch-lbr-v2-fixed", "kvm-legacy-designed",
                                      "mediated-arch-lbr-fixed")
        for flaw in known_flaws(make_policy(policy))]


@pytest.mark.parametrize("policy", CORRECT)
def test_correct_policies_hold_everything(policy):
    result = explored(Configuration(policy, depth=1))
    assert result.complete and not result.broken
    assert result.states > 10_000 and result.diameter > 40


@pytest.mark.slow
@pytest.mark.parametrize("policy", CORRECT)
def test_correct_policies_hold_everything_at_depth_2(policy):
    result = explored(Configuration(policy, depth=2))
    assert result.complete and not result.broken


@pytest.mark.parametrize("policy", [f"{name}-lazy" for name in CORRECT]
                         + ["mediated-arch-lbr-fixed"])
def test_lazy_pass_through_holds_everything(policy):
    """Of every policy, in the standard set and in those that add something to a guest."""
    result = explored(Configuration(policy, depth=1))
    assert result.complete and not result.broken and result.states > 10_000
    for name in ("ler", "filters", "events", "nested", "vpmi", "pebs", "state", "stack", "cpus"):
        result = explored(Configuration(policy, depth=1, **{**EXTENDED[name], "guests": 1}))
        assert result.complete and not result.broken, name


def test_lazy_pass_through_differs_from_pass_through_on_first_use():
    for policy in CORRECT:
        lazy, first_use = (explored(Configuration(name, depth=1, guests=1))
                           for name in (f"{policy}-lazy", policy))
        assert lazy.states != first_use.states
    with pytest.raises(ConfigurationError, match="kvm-legacy does not pass LBRs through lazily"):
        Configuration("kvm-legacy-lazy").model()
    with pytest.raises(ConfigurationError, match="mediated-arch-lbr passes LBRs through lazily it"):
        Configuration("mediated-arch-lbr-lazy").model()


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy not in CORRECT
                                    and policy != "mediated-arch-lbr-fixed"])
def test_the_others_reach_the_fixpoint_of_the_standard_set(policy):
    """With one entry; with two they do by `pylbr verify`, whose figures docs/arbitration.md has."""
    result = explored(Configuration(policy, depth=1), by_design(policy))
    assert result.complete and {"P1'", "P20b", "P21"} <= set(result.broken)


@pytest.mark.slow
@pytest.mark.parametrize("policy", CORRECT)
@pytest.mark.parametrize("name", EXTENDED)
def test_extended_sets_hold(policy, name):
    result = explored(Configuration(policy, depth=1, **EXTENDED[name]))
    assert result.complete and not result.broken


@pytest.mark.parametrize(("policy", "flaw", "broken"), [
    ("arch-lbr-v2-fixed", "depth-outside-check", "P6"),
    ("arch-lbr-v2-fixed", "raw-data-msrs", "P1"),
    ("arch-lbr-v2-fixed", "exit-clear-always", "P5"),
    ("arch-lbr-v2-fixed", "init-clears", "P5"),
    ("arch-lbr-v2-fixed", "db-in-nmi-path", "P5"),
    ("arch-lbr-v2-fixed", "rsm-clobber", "P5"),
    ("arch-lbr-v2-fixed", "ctl-loaded-when-reclaimed", "P4"),
    ("arch-lbr-v2-fixed", "no-data-msrs-saved", "P21"),
    ("arch-lbr-v2-fixed", "no-xss-exiting", "P1"),
    ("arch-lbr-v2-fixed", "ler-kept", "P1"),
    ("arch-lbr-v2-fixed", "no-entry-load", "P5"),
    ("arch-lbr-v2-fixed", "both-scheduled", "P20"),
    ("arch-lbr-v2-fixed", "lazy-release", "P21"),
    ("arch-lbr-v2-fixed", "nested-dropped", "P5"),
    ("arch-lbr-v2-fixed", "vmcs12-debugctl", "P5"),
    ("arch-lbr-v2-fixed", "ctl-in-vmcs", "P5"),
    ("arch-lbr-v2-fixed", "late-freeze", "P5"),
    ("arch-lbr-v2-fixed", "pebs-baseline", "P1"),
    ("kvm-legacy-designed", "pebs-baseline", "P1"),
    ("kvm-legacy-designed", "host-pmi-freezes", "P5"),
    ("kvm-legacy-designed", "stale-snapshot", "P5"),
    ("kvm-legacy-designed", "check-with-irqs-on", "P6"),
    ("mediated-arch-lbr-fixed", "ler-kept", "P20b"),
    ("mediated-arch-lbr-fixed", "records-left", "P20b"),
    ("mediated-arch-lbr-fixed", "no-xss-exiting", "P21"),
    ("mediated-arch-lbr-fixed", "guest-pebs-lbrs", "P21"),
    ("mediated-arch-lbr-fixed", "no-xstate-bv", "P21"),
    ("mediated-arch-lbr-fixed", "no-ler-saved", "P7"),
    ("mediated-arch-lbr-fixed", "reset-keeps-image", "P21"),
])
def test_known_bug_is_found(policy, flaw, broken):
    assert broken in hunted(policy, flaw).found


def test_no_known_bug_is_left_out():
    assert len(BUGS) > 25 and all(hunted(*bug).found for bug in BUGS)


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")]
            for line in text.splitlines() if line.startswith("|")]


@pytest.mark.slow
def test_every_guard_is_needed_or_explained(capsys):
    """And docs/mutants.md has the table that `pylbr verify --set mutants` prints: but for searches
    of `lease` to the end, which are a minute of it, all rows."""
    known: dict = {}
    tried = [(policy, guard) for policy in CORRECT for guard, its in GUARDS.items()
             if policy in its.policies]
    left_out = [one for one in tried if one[0] == "lease" and one[1] in EQUIVALENT]
    table = [hunt(*one, known) for one in tried if one not in left_out]
    assert len(table) > 40
    print_table(flaw_table(table))
    rows, page = cells(capsys.readouterr().out)[2:], cells(PAGE.read_text())[2:]
    assert [row for row in page if tuple(row[:2]) not in left_out] == rows
    assert [tuple(row[:2]) for row in page] == tried
    survivors = {found.flaw for found in table if not found.found}
    assert survivors == {guard for policy, guard in set(tried) - set(left_out)
                         if guard in EQUIVALENT}
    assert all(row[3] == f"equivalent: {EQUIVALENT[row[1]]}" for row in page
               if tuple(row[:2]) in left_out)


def test_merged_kernel_as_implemented_leaks_and_loses():
    result = explored(Configuration("kvm-legacy", depth=1, guests=1), ignore=("P20", "P20b"))
    assert {"P1", "P4", "P21", "P20"} <= set(result.broken)


def test_a_host_event_is_seen_by_the_guest_of_a_policy_that_steals():
    """Non-interference is what merged KVM does not have; mediated has it without exception."""
    steals = explored(Configuration("arch-lbr-v2-fixed", depth=1), ignore=("P20b",))
    assert "P1'" in steals.broken and "P1" not in steals.broken
    assert not explored(Configuration("mediated", depth=1)).broken


def test_search_can_be_ended():
    result = explore(Configuration("request", ("no-wipe",), depth=1), stop=True)
    assert not result.complete and "P20b" in result.broken
    assert not explore(Configuration("lease"), limit=1000).complete


@pytest.mark.parametrize("bad", [
    {"policy": "unknown"}, {"policy": "lease", "flaws": ("no-such",)},
    {"policy": "lease", "depth": 4}, {"policy": "kvm-legacy", "depth": 3},
    {"policy": "lease", "features": ("x",)}, {"policy": "lease", "kinds": ("x",)},
    {"policy": "lease", "cpus": 3}, {"policy": "lease", "guests": 5},
])
def test_impossible_configurations(bad):
    with pytest.raises(ConfigurationError):
        Configuration(**bad).model()


def test_a_kind_of_event_that_needs_a_feature():
    with pytest.raises(ConfigurationError, match="kind of event 'cpu-pebs' needs the feature "
                                                 "'pebs'"):
        Configuration("lease", kinds=("cpu-pebs",)).model()
    Configuration("lease", kinds=("cpu-pebs",), features=("pebs",)).model()
    Configuration("lease", kinds=("task-stack",), features=()).model()


def test_hunt_tells_an_equivalent_guard():
    assert not hunted("mediated", "keep-enabled").found
