"""Guests that run guests: L1, L2, and one control register."""

import random

import pytest

from pylbr.arch import ExitReason, model
from pylbr.cpu import Processor, Vmcs
from pylbr.verify.models import Configuration
from pylbr.verify.suites import CORRECT, EXTENDED
from tests.manual import IA32_LBR_CTL, RECORD_ALL
from tests.verify.explored import explored, hunted
from tests.verify.guest_run import GuestRun

CTL, ALL = IA32_LBR_CTL, RECORD_ALL
ON, OFF = "wrmsr LBR_CTL", "wrmsr LBR_CTL 0"
LAUNCH = "vmlaunch"
CONTROLS = "vmlaunch with controls"
VMCALL = "vmcall"


@pytest.mark.parametrize("policy", CORRECT)
def test_correct_policies_hold_everything_with_nested_guests(policy):
    result = explored(Configuration(policy, depth=1, **{**EXTENDED["nested"], "guests": 1}))
    assert result.complete and not result.broken and result.states > 5_000


@pytest.mark.parametrize("policy", [*CORRECT, "arch-lbr-v2-fixed"])
def test_l2_records_where_l1_does(policy):
    run = GuestRun(policy, "nested", kinds=())
    for what in (ON, "branch", LAUNCH, "branch"):
        run.act("guest-branch") if what == "branch" else run.guest(what)
    assert run.run.cpu()["level2"] and run.read()["records"] == ["A1", "A0"]
    run.guest(VMCALL)
    seen = run.read()
    assert not run.run.cpu()["level2"]
    assert seen["records"] == ["A1", "A0"] and seen["control"] == ALL


@pytest.mark.parametrize("policy", CORRECT)
def test_l2_has_a_control_register_of_its_own(policy):
    run = GuestRun(policy, "nested", kinds=())
    run.guest(ON)
    run.act("guest-branch")
    run.guest(CONTROLS)
    run.act("guest-branch")
    assert run.read()["control"] == 0 and run.read()["records"] == ["A0", "-"]
    run.guest(VMCALL)
    assert run.read()["control"] == 0
    assert not run.broken


def test_hidden_controls_make_the_entry_fail():
    run = GuestRun("arch-lbr-v2-fixed", "nested", kinds=())
    run.guest(ON)
    run.guest(CONTROLS)
    assert not run.run.cpu()["level2"] and run.read()["control"] == ALL and not run.broken


@pytest.mark.parametrize("seed", range(20))
def test_control_is_that_of_a_bare_processor(seed):
    """L1 on a processor of its own, its VM entries and exits done by `pylbr.cpu`."""
    choose = random.Random(seed)
    spr = model("sapphire-rapids")
    bare, run = Processor(spr), GuestRun("lease", "nested", kinds=())
    shared = Vmcs.for_model(spr, "use MSR bitmaps")
    own = Vmcs.for_model(spr, "use MSR bitmaps", "load IA32_LBR_CTL", "clear IA32_LBR_CTL")
    launches, entered = 0, shared
    for _ in range(60):
        what = choose.choice([w for w in (ON, OFF, LAUNCH, CONTROLS, VMCALL) if run.can(w)])
        run.guest(what)
        if what in (ON, OFF):
            bare.wrmsr(CTL, ALL if what == ON else 0)
        elif what == VMCALL:
            bare.vm_exit(ExitReason.VMCALL)
            shared.guest_lbr_ctl = own.guest_lbr_ctl = entered.guest_lbr_ctl
        else:
            entered = own if what == CONTROLS else shared
            bare.vm_entry(entered)
            launches += 1
        assert run.read()["control"] == bare.rdmsr(CTL)
    assert launches > 3 and not run.broken


@pytest.mark.parametrize("policy", CORRECT)
@pytest.mark.parametrize("flaw", ["nested-no-controls", "nested-keep-ctl", "nested-no-load"])
def test_every_guard_of_nested_guests_is_needed(policy, flaw):
    assert "P5" in hunted(policy, flaw).found
