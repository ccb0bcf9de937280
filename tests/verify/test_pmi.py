"""PMIs of a guest's counters: what freezes, who acknowledges, what the handler reads."""

import pytest

from pylbr.arbitration.microsteps import Instruction
from pylbr.verify.models import Configuration
from pylbr.verify.mutants import flaws_of
from pylbr.verify.suites import CORRECT, EXTENDED
from tests.verify.explored import explored, hunted
from tests.verify.guest_run import GuestRun

ON, FREEZE, PMI, ACK = ("wrmsr LBR_CTL", "wrmsr FREEZE_LBRS_ON_PMI", "counter overflows",
                        "wrmsr LBR_FRZ 0")
EXIT_PMI = Instruction.EXIT_PMI
GUARDS = [(policy, flaw) for policy in CORRECT
          for flaw, (_, needs) in flaws_of(policy).items() if needs == "vpmi"]


def sampled(policy, *, freeze):
    """A guest makes two branches, a counter overflows, its handler makes one."""
    run = GuestRun(policy, "vpmi", "nmi")
    if freeze:
        run.guest(FREEZE)
    run.guest(ON)
    run.read()  # merged KVM makes its event at an access to a record
    for _ in range(2):
        run.act("guest-branch")
    run.guest(PMI)
    run.act("guest-branch")
    return run


@pytest.mark.parametrize("policy", CORRECT)
def test_correct_policies_hold_everything_with_pmis(policy):
    result = explored(Configuration(policy, depth=1, **{**EXTENDED["vpmi"], "guests": 1}))
    assert result.complete and not result.broken and result.states > 4_000


@pytest.mark.parametrize("policy", [*CORRECT, "arch-lbr-v2-fixed", "kvm-legacy-designed"])
def test_a_sample_is_of_the_overflow(policy):
    run = sampled(policy, freeze=True)
    assert run.read()["records"] == ["A1", "A0"]
    assert run.can(ACK) == (policy in CORRECT)  # a vPMU of version 2 has no LBR_FRZ
    run.guest(ACK if policy in CORRECT else ON)
    run.act("guest-branch")
    assert run.read()["records"] == ["A3", "A1"] and not run.broken


@pytest.mark.parametrize("policy", [*CORRECT, "arch-lbr-v2-fixed", "kvm-legacy-designed"])
def test_without_the_bit_nothing_freezes(policy):
    run = sampled(policy, freeze=False)
    assert run.read()["records"] == ["A2", "A1"] and not run.broken


@pytest.mark.parametrize("policy", ["request", "lease", "arch-lbr-v2-fixed"])
def test_a_pmi_of_the_host_is_not_the_guests(policy):
    """It comes in guest mode, where FREEZE_LBRS_ON_PMI is as the guest has set it."""
    run = GuestRun(policy, "vpmi", "nmi", kinds=("cpu-exclude",))
    run.guest(FREEZE)
    run.host()
    run.act("open", 3)
    run.finish()
    run.resume()
    run.act("exit", EXIT_PMI)
    seen = run.finish()
    assert seen["exposure"] == "sample" and not run.can(ACK)
    run.resume()
    assert not run.can(ACK) and not run.broken


@pytest.mark.parametrize(("policy", "flaw"), GUARDS)
def test_every_guard_of_pmis_is_needed(policy, flaw):
    assert hunted(policy, flaw).found


def test_guards_are_not_left_out():
    assert {flaw for _, flaw in GUARDS} == {
        "pmi-no-freeze", "no-refreeze", "keep-frozen", "ack-by-host", "drop-debugctl",
        "drop-frozen"}
