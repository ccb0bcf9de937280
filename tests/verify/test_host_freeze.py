"""The host's own FREEZE_LBRS_ON_PMI with architectural LBRs, and PMIs that come late."""

import pytest

from pylbr.arbitration import POLICIES, make_policy
from pylbr.errors import ConfigurationError, StateError
from pylbr.verify import script
from pylbr.verify.models import Configuration
from pylbr.verify.mutants import flaws_of
from pylbr.verify.suites import CORRECT, EXTENDED
from tests.verify.explored import explored, hunted

GUARDS = [(policy, flaw) for policy in CORRECT
          for flaw, (_, needs) in flaws_of(policy).items() if needs == "host-freeze"]
#: A guest records beside a host event, and leaves.
BESIDE = ("switch to vCPU A", "enter", "guest A wrmsr LBR_CTL", "exit irq", "exit-irqs-on",
          "IPI opens {kind}", "irq-return")
ARCHITECTURAL = [policy for policy in POLICIES if not make_policy(policy).legacy]


def play(policy, *items, kind="cpu-exclude"):
    text = "depth: 3; guests: 1; " + "; ".join(items).format(kind=kind)
    return script.play(script.read(text, policy))


@pytest.mark.parametrize("policy", [*CORRECT, *(
    pytest.param(f"{name}-lazy", marks=pytest.mark.slow) for name in CORRECT),
    "mediated-arch-lbr-fixed"])
def test_correct_policies_hold_everything(policy):
    result = explored(Configuration(policy, depth=1, **EXTENDED["freeze"]))
    assert result.complete and not result.broken and result.states > 30_000


@pytest.mark.parametrize(("policy", "flaw"), GUARDS)
def test_every_guard_of_the_freeze_is_needed(policy, flaw):
    assert hunted(policy, flaw).found


def test_guards_are_not_left_out():
    assert {flaw for _, flaw in GUARDS} == {
        "late-thaw", "host-frozen", "status-kept", "drop-host-debugctl", "thawed-image"}


@pytest.mark.parametrize(("policy", "when"), [
    *(("lease", step) for step in ("recheck", "prepare-entry", "vm-entry")),
    *((policy, step) for policy in ("mediated-merged", "mediated-arch-lbr")
      for step in ("recheck", "prepare-entry"))])
def test_a_late_pmi_stops_no_guest(policy, when):
    """The counter overflows on the way into the guest."""
    steps = play(policy, *BESIDE, "enter", f"host counter overflows before {when}", "vm-entry",
                 "guest A branch", kind="cpu-flexible")
    assert steps[-1]["after"]["records"][0] == "A0" and not script.broken_in(steps)


@pytest.mark.parametrize("when", ["recheck", "prepare-entry", "vm-entry"])
def test_in_the_series_of_2022_it_does(when):
    """Of an event that is scheduled beside the guest's; when the PMI comes, it is over."""
    steps = play("arch-lbr-v2", "switch to vCPU A", "enter", "guest A wrmsr LBR_CTL",
                 "after-exit", "exit-irqs-on", "IPI opens {kind}", "irq-return", "emulate", "enter",
                 f"host counter overflows before {when}", "vm-entry", "guest A branch",
                 "exit pmi", "enter", "guest A branch", kind="cpu-flexible")
    branches = [step for step in steps if step["word"] == "guest A branch"]
    assert [step["after"]["records"][0] for step in branches] == ["-", "A1"]
    assert {"P1'", "P21"} <= set(branches[0]["broken"])


@pytest.mark.parametrize("policy", ["request", "lease"])
@pytest.mark.parametrize("kind", ["cpu-exclude", "task-stack"])
def test_a_sample_is_of_the_overflow_but_for_call_stacks(policy, kind):
    """Two branches, an overflow, one more before the PMI comes."""
    steps = play(policy, "IPI opens {kind}", "irq-return", "host branch", "host branch",
                 "host counter overflows", "host branch", "NMI", "host branch", "NMI", kind=kind)
    late, after = (step["seen"]["records"] for step in steps if step["word"] == "NMI")
    frozen = kind == "cpu-exclude"
    assert late == (["h1", "h0", "-"] if frozen else ["h2", "h1", "h0"])
    assert after == (["h3", "h1", "h0"] if frozen else ["h3", "h2", "h1"])
    assert not script.broken_in(steps)


def test_records_put_aside_stay_frozen():
    """`lease` swaps them out before their PMI and in again: what an NMI handler executes in
    between is not in the sample."""
    steps = play("lease", *BESIDE, "enter", "exit irq", "exit-irqs-on", "host branch", "enter",
                 "host counter overflows before prepare-entry", "vm-entry", "guest A branch",
                 "exit pmi", "NMI branches before exit-irqs-on", "exit-irqs-on")
    seen = steps[-1]["seen"]
    assert seen["exposure"] == "sample" and seen["records"][0] == "h0"
    assert not script.broken_in(steps)


def test_a_mediated_guest_does_not_see_the_hosts_frozen_status():
    """The status is switched with the counters, so the host's sample is gone."""
    steps = play("mediated-merged", *BESIDE, "host branch", "enter",
                 "host counter overflows before prepare-entry", "vm-entry", "guest A branch")
    assert not script.broken_in(steps)
    with pytest.raises(StateError, match="exit pmi"):  # nothing overflows any more
        play("mediated-merged", "features: nmi, pebs, host-freeze", *BESIDE, "host branch", "enter",
             "host counter overflows before prepare-entry", "vm-entry", "exit pmi")


def test_the_snapshot_at_vcpu_load_loses_the_hosts_bit():
    assert hunted("arch-lbr-v2-fixed", "stale-debugctl").found == ("P5",)


@pytest.mark.parametrize("policy", [name for name in POLICIES if name not in ARCHITECTURAL])
def test_policies_of_legacy_lbrs_refuse_the_feature(policy):
    with pytest.raises(ConfigurationError, match="host-freeze: policy .* has legacy LBRs, which a "
                                                 "PMI switches off"):
        Configuration(policy, depth=1, features=("host-freeze",)).model()
