"""XRSTORS by a guest, and the reset of a vCPU."""

import pytest

from pylbr.verify.models import KINDS, Configuration
from pylbr.verify.suites import CORRECT, EXTENDED
from tests.manual import RECORD_ALL
from tests.verify.explored import explored, hunted
from tests.verify.guest_run import GuestRun

ON, XRSTORS, RESET = "wrmsr LBR_CTL", "xrstors", "reset"
ALL = RECORD_ALL


@pytest.mark.parametrize("policy", CORRECT)
def test_correct_policies_hold_everything_with_xrstors_and_reset(policy):
    result = explored(Configuration(policy, depth=1, **{**EXTENDED["state"], "guests": 1}))
    assert result.complete and not result.broken and result.states > 2_500


@pytest.mark.parametrize("policy", [*CORRECT, "arch-lbr-v2-fixed"])
def test_xrstors_is_one_write_of_all_records(policy):
    run = GuestRun(policy, "xrstors", kinds=())
    run.guest(ON)
    for _ in range(3):
        run.act("guest-branch")
    run.guest(XRSTORS)
    seen = run.read()
    assert seen["records"] == ["A3", "-"] and seen["control"] == ALL
    run.act("guest-branch")
    assert run.read()["records"] == ["A4", "A3"] and not run.broken


@pytest.mark.parametrize("policy", ["request", "lease"])
def test_xrstors_of_a_guest_that_is_kept_out(policy):
    run = GuestRun(policy, "xrstors", "nmi")
    run.host()
    run.act("open", KINDS["cpu"])
    run.finish()
    run.act("host-branch")
    run.resume()
    run.guest(XRSTORS)
    assert run.read()["records"] == ["A0", "-"]
    assert run.run.cpu()["records"] == ["h0", "-"] and not run.broken


@pytest.mark.parametrize("policy", [*CORRECT, "arch-lbr-v2-fixed", "kvm-legacy-designed"])
def test_reset_leaves_nothing(policy):
    run = GuestRun(policy, "reset", kinds=())
    run.guest(ON)
    run.read()
    run.act("guest-branch")
    run.guest(RESET)
    seen = run.read()
    assert seen["records"] == ["-", "-"] and seen["control"] == 0
    run.act("guest-branch")
    assert run.read()["records"] == ["-", "-"]


@pytest.mark.parametrize("policy", ["request", "mediated", "lease"])
def test_reset_reaches_the_registers(policy):
    assert "P21" in hunted(policy, "reset-keeps-records").found
