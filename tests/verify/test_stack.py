"""Call-stack events of the host: their records go with the task."""

import pytest

from pylbr.verify.models import KINDS, Configuration
from pylbr.verify.mutants import flaws_of
from pylbr.verify.replay import Run
from pylbr.verify.suites import CORRECT, EXTENDED
from tests.verify.explored import explored, hunted
from tests.verify.guest_run import GuestRun

CALL, RETURN, JUMP = 0, 4, 8       # arguments of a branch
GUARDS = [(policy, flaw) for policy in CORRECT
          for flaw, (_, needs) in flaws_of(policy).items() if needs == "stack"]


@pytest.mark.parametrize("policy", CORRECT)
def test_correct_policies_hold_everything_with_call_stack_events(policy):
    result = explored(Configuration(policy, depth=1, **EXTENDED["stack"]))
    assert result.complete and not result.broken and result.states > 5_000


@pytest.mark.parametrize(("kind", "kept"), [("task-stack", ["h1", "h0"]),
                                            ("task-exclude", ["h1", "-"])])
@pytest.mark.parametrize("policy", [*CORRECT, "arch-lbr-v2-fixed", "kvm-legacy-designed"])
def test_records_go_with_the_task(policy, kind, kept):
    """Without call-stack users perf resets at every task switch."""
    run = GuestRun(policy, "nmi", kinds=(kind,))
    run.host()
    for name, argument in (("switch", 0), ("open", KINDS[kind]), ("host-branch", 0),
                           ("switch", 1), ("switch", 0), ("host-branch", 0)):
        run.act(name, argument)
        run.finish()
    assert run.act("nmi")["records"] == kept


@pytest.mark.parametrize("policy", [*CORRECT, "arch-lbr-v2-fixed", "kvm-legacy-designed"])
def test_calls_push_and_returns_pop(policy):
    """In call-stack mode; a jump is nothing, and what is left goes with the task."""
    run = GuestRun(policy, "nmi", kinds=("task-stack",))
    run.host()
    run.act("switch", 0)
    run.finish()
    run.act("open", KINDS["task-stack"])
    run.finish()
    for branch, kept in ((CALL, ["h0", "-"]), (CALL, ["h1", "h0"]), (JUMP, ["h1", "h0"]),
                         (CALL, ["h3", "h1"]), (RETURN, ["h1", "-"])):
        run.act("host-branch", branch)
        assert run.act("nmi")["records"] == kept == run.run.ideal_host()
    for task in (1, 0):
        run.act("switch", task)
        run.finish()
    for kept in (["-", "-"], ["-", "-"]):
        run.act("host-branch", RETURN)
        assert run.act("nmi")["records"] == kept == run.run.ideal_host()
    assert not run.broken or policy not in CORRECT


@pytest.mark.parametrize("policy", CORRECT)
def test_a_guest_neither_pushes_nor_pops(policy):
    run = GuestRun(policy, "nmi", kinds=("task-stack",))
    run.host()
    run.act("open", KINDS["task-stack"])
    run.finish()
    run.act("host-branch", CALL)
    run.resume()
    run.guest("wrmsr LBR_CTL")
    for branch in (CALL, RETURN, RETURN):
        run.act("guest-branch", branch)
    run.host()
    seen = run.act("nmi")
    assert run.run.ideal_host() == ["h0", "-"] and not run.broken
    if policy == "mediated":
        assert seen["cut"], "perf is not attached"
    else:  # what is swapped at every entry starts empty
        assert seen["records"] == ["-" if policy == "mediated-merged" else "h0", "-"]


def test_decoding_a_state_loses_nothing():
    """A search continues from decoded states; runs that continue by themselves reach as many."""
    configuration = Configuration("lease", depth=1, guests=1, features=(), kinds=("task-stack",))
    level = [Run(configuration.model())]
    known = {level[0].fingerprint()}
    while level:
        runs, level = level, []
        for run in runs:
            for action in run.actions():
                after = run.copy()
                after.apply(action)
                if after.fingerprint() not in known:
                    known.add(after.fingerprint())
                    level.append(after)
    assert explored(configuration).states == len(known) > 2_000


def test_as_designed_an_equal_filter_is_no_conflict():
    """The guest's event is a call-stack event too, so that both are scheduled."""
    result = explored(Configuration("arch-lbr-v2-fixed", depth=1, **EXTENDED["stack"]),
                     ignore=("P20b",))
    assert "P20" in result.broken


@pytest.mark.parametrize(("policy", "flaw"), GUARDS)
def test_every_guard_of_call_stack_events_is_needed(policy, flaw):
    assert "P21" in hunted(policy, flaw).found


def test_guards_are_not_left_out():
    assert sorted(GUARDS) == [("lease", "silent-stack"), ("lease", "stale-stack"),
                              ("request", "stale-stack")]
