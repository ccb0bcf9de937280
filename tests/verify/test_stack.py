"""Call-stack events of the host: their records go with the task."""

import pytest

from pylbr.arbitration import POLICIES
from pylbr.verify.models import KINDS, Configuration, explore
from pylbr.verify.suites import CORRECT, EXTENDED, hunt
from tests.verify.guest_run import GuestRun

GUARDS = [(policy, flaw) for policy in CORRECT
          for flaw, row in POLICIES[policy][0].FLAWS.items() if row[2:] == ("stack",)]


@pytest.mark.parametrize("policy", CORRECT)
def test_correct_policies_hold_everything_with_call_stack_events(policy):
    result = explore(Configuration(policy, depth=1, **EXTENDED["stack"]))
    assert result.complete and not result.broken and result.states > 5_000


@pytest.mark.parametrize(("kind", "kept"), [("task-stack", ["h1", "h0"]),
                                            ("task-exclude", ["h1", "-"])])
@pytest.mark.parametrize("policy", [*CORRECT, "arch-lbr-v2-mended", "kvm-legacy-designed"])
def test_records_go_with_the_task(policy, kind, kept):
    """Without call-stack users perf resets at every task switch."""
    run = GuestRun(policy, "nmi", kinds=(kind,))
    run.host()
    for name, argument in (("switch", 0), ("open", KINDS[kind]), ("host branch", 0),
                           ("switch", 1), ("switch", 0), ("host branch", 0)):
        run.act(name, argument)
        run.finish()
    assert run.act("nmi")["records"] == kept


def test_as_designed_an_equal_filter_is_no_conflict():
    """The guest's event is a call-stack event too, so that both are scheduled."""
    result = explore(Configuration("arch-lbr-v2-mended", depth=1, **EXTENDED["stack"]),
                     ignore=("P20b",))
    assert "P20" in result.broken


@pytest.mark.parametrize(("policy", "flaw"), GUARDS)
def test_every_guard_of_call_stack_events_is_needed(policy, flaw):
    assert "P21" in hunt(policy, flaw).found


def test_guards_are_not_left_out():
    assert sorted(GUARDS) == [("lease", "silent-stack"), ("lease", "stale-stack"),
                              ("request", "stale-stack")]
