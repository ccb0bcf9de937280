"""Adaptive PEBS records: LBRs that reach memory without an access to a register."""

import pytest

from pylbr.verify.models import KINDS, Configuration
from pylbr.verify.mutants import flaws_of
from pylbr.verify.suites import CORRECT, EXTENDED
from pylbr.verify.words import kind
from tests.verify.explored import explored, hunted
from tests.verify.guest_run import GuestRun

ON, RECORD = "wrmsr LBR_CTL", "PEBS record"
GUARDS = [(policy, flaw) for policy in CORRECT
          for flaw, (_, needs) in flaws_of(policy).items() if needs == "pebs"]


@pytest.mark.parametrize("policy", CORRECT)
def test_correct_policies_hold_everything_with_pebs(policy):
    result = explored(Configuration(policy, depth=1, **{**EXTENDED["pebs"], "guests": 1}))
    assert result.complete and not result.broken and result.states > 1_500


def host_traces(run):
    """The host opens an event that traces guests, and makes a branch."""
    run.host()
    run.act("open", KINDS["cpu"])
    run.finish()
    run.act("host-branch")
    run.resume()


@pytest.mark.parametrize("policy", ["request", "lease"])
def test_a_record_has_the_guests_own_lbrs_or_none(policy):
    run = GuestRun(policy, "pebs")
    run.guest(ON)
    run.resume()
    run.act("exit"), run.finish(), run.resume()
    run.act("guest-branch")
    seen = run.guest(RECORD)
    assert seen["exposure"] == "pebs" and seen["records"] == ["A0", "-"]
    host_traces(run)
    assert run.run.cpu()["owner"] == "host" and run.guest(RECORD) is None
    assert not run.broken


@pytest.mark.parametrize("policy", ["kvm-legacy-designed", "arch-lbr-v2-fixed"])
def test_hidden_from_guests_or_a_leak(policy):
    assert not GuestRun(policy, "pebs").can(RECORD)
    run = GuestRun(policy, "pebs", flaws=("pebs-baseline",))
    host_traces(run)
    assert "h0" in run.guest(RECORD)["records"] and run.broken & 1


@pytest.mark.parametrize("policy", CORRECT)
def test_host_events_read_by_pebs(policy):
    run = GuestRun(policy, "pebs", "nmi", kinds=("cpu-pebs",))
    run.host()
    run.act("switch", 0)
    run.finish()
    run.act("open", KINDS["cpu-pebs"])
    run.finish()
    run.act("host-branch")
    assert kind("nmi") not in {of for of, _, _ in run.run.actions()}
    assert run.act("pebs-record")["records"] == ["h0", "-"] and not run.broken


@pytest.mark.parametrize(("policy", "shown"), [("kvm-legacy", True),
                                               ("arch-lbr-v2-fixed", False)])
def test_merged_kernel_shows_the_guest_to_host_pebs(policy, shown):
    run = GuestRun(policy, "pebs", kinds=("cpu-pebs",))
    run.guest(ON)
    run.host()
    run.act("open", KINDS["cpu-pebs"])
    run.finish()
    run.resume()
    run.act("guest-branch")
    run.act("exit")
    assert ("A0" in run.act("pebs-record")["records"]) == shown


@pytest.mark.parametrize(("policy", "flaw"), GUARDS)
def test_every_guard_of_pebs_is_needed(policy, flaw):
    assert {"P1", "P4"} & set(hunted(policy, flaw).found)


def test_guards_are_not_left_out():
    assert {flaw for _, flaw in GUARDS} == {"guest-pebs-lbrs", "keep-pebs"}
