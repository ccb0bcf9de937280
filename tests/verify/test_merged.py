"""What merged Linux does, as its source has it (6.1.192 and 6.12.117), told as stories."""

import pytest

from pylbr.errors import ConfigurationError
from pylbr.verify import script
from pylbr.verify.models import STANDARD, Configuration
from pylbr.verify.ownership import handovers, ownership_configuration
from tests.verify.explored import explored


def told(policy, text, **changes):
    """Steps of a story, and which properties broke."""
    each = script.read(text, policy)
    configuration = Configuration(**{**each.configuration.to_dict(), **changes})
    steps = script.play(script.Script(configuration, each.items))
    return steps, set(script.broken_in(steps)) - {"P20", "P20b"}


@pytest.mark.parametrize(("kind", "records", "broken"), [
    ("cpu-exclude", ["h0", "-"], {"P1", "P1'"}), ("cpu-flexible", ["-", "-"], set())])
def test_first_touch_reads_the_host_beside_a_pinned_event_only(kind, records, broken):
    """A pinned event stays, so that the guest's is not the first user and resets nothing; a
    flexible one is taken out before, and the guest's event resets the stack."""
    steps, found = told("kvm-legacy", f"switch to vCPU A; IPI opens {kind}; host branch; "
                                      "guest rdmsr LBR; emulate; emulate")
    seen = next(step["seen"] for step in reversed(steps) if step["seen"])
    assert seen["records"] == records and broken <= found and ("P1" in found) == bool(broken)


def test_a_host_event_gets_no_guest_branch_unless_the_guests_own_bit_is_set():
    """In guest mode the guest's DEBUGCTL counts alone, whatever the event asks for."""
    steps, broken = told("kvm-legacy", "IPI opens cpu; guest branch; NMI")
    assert "P21" in broken and steps[-1]["seen"]["records"] == ["-", "-"]
    steps, broken = told("kvm-legacy-designed",
                         "IPI opens cpu; guest wrmsr LBR_CTL; guest branch; NMI")
    assert "A0" in steps[-1]["seen"]["records"] and "P21" not in broken


def test_a_debug_exception_does_not_clear_debugctl_lbr():
    """It is intercepted and injected again; nothing on that way writes DEBUGCTL."""
    text = "guest wrmsr LBR_CTL; guest db; guest branch"
    assert "P5" in told("kvm-legacy", text)[1]
    assert "P5" not in told("kvm-legacy", "guest wrmsr LBR_CTL; guest init; guest branch")[1]
    assert "P5" not in told("arch-lbr-v2-fixed", text)[1]


def test_smm_of_a_legacy_guest_is_refused_and_not_dropped(capsys):
    from pylbr.cli import main

    with pytest.raises(ConfigurationError, match="feature smm: policy kvm-legacy has legacy LBRs"):
        Configuration("kvm-legacy", features=("smm",)).model()
    assert main(["verify", "kvm-legacy", "--set", "events"]) == 2
    capsys.readouterr()
    assert main(["verify", "--set", "events", "--guests", "1"]) == 0
    told = capsys.readouterr()
    assert "left out, without a model of smm: kvm-legacy, kvm-legacy-2024" in told.err
    assert "| kvm-legacy" not in told.out


def test_as_designed_a_pinned_event_wins_and_a_flexible_one_does_not():
    before = "guest wrmsr LBR_CTL; guest branch; "
    steps, _ = told("kvm-legacy-designed", before + "IPI opens cpu-exclude")
    assert steps[-1]["after"]["owner"] == "host"
    steps, broken = told("kvm-legacy-designed",
                         before + "IPI opens cpu-flexible; vm-entry; guest rdmsr LBR")
    assert steps[-1]["after"]["owner"] == "guest A" and not broken
    assert steps[-1]["seen"]["records"] == ["A0", "-"]


def test_an_event_in_error_is_never_enabled_again():
    """The guest reads zeros after the host's event has gone, until it clears its bit and is
    scheduled in again."""
    taken = "guest wrmsr LBR_CTL; guest branch; IPI opens cpu-exclude; IPI closes; "
    steps, _ = told("kvm-legacy-designed", taken + "vm-entry; guest branch; guest rdmsr LBR; exit")
    seen = next(step["seen"] for step in reversed(steps) if step["seen"])
    assert seen["records"] == ["-", "-"] and steps[-1]["after"]["owner"] == "unowned"
    again = "guest wrmsr LBR_CTL 0; switch to host; vm-entry; guest wrmsr LBR_CTL; exit"
    steps, _ = told("kvm-legacy-designed", taken + again)
    assert steps[-1]["after"]["owner"] == "guest A"


def test_lazy_release_loses_the_sample_that_kvms_own_freeze_has_made():
    """The freeze clears the enable bit, and the enable bit alone decides about the release."""
    sampled = ("guest wrmsr FREEZE_LBRS_ON_PMI; guest wrmsr LBR_CTL; guest branch; "
               "guest counter overflows; vm-entry; ")
    steps, broken = told("kvm-legacy", sampled + "guest rdmsr LBR")
    assert steps[-1]["seen"]["records"] == ["A0", "-"] and not broken
    steps, broken = told("kvm-legacy", sampled + "switch to host; vm-entry; guest rdmsr LBR; "
                                                 "exit-irqs-on; emulate; emulate")
    assert steps[-1]["seen"]["records"] == ["-", "-"] and "P21" in broken


def test_the_merged_mediated_pmu_changes_hands_at_entry_and_exit():
    changes = handovers(ownership_configuration("mediated-merged"))
    guests = [c for c in changes if "guest A" in c[:2]]
    assert {c[2] for c in guests} == {"prepare-entry", "after-exit"}
    assert {c[3] for c in guests} == {"task, interrupts off"}
    first = handovers(ownership_configuration("mediated"))
    assert {c[2] for c in first if c[1] == "guest A"} == {"vcpu-load", "migrate-load"}


def test_the_multiplex_timer_is_a_hard_interrupt():
    changes = handovers(Configuration("lease", depth=1, guests=1, features=("rotate",), events=2,
                                      kinds=("cpu-flexible", "task-flexible")))
    assert all(c[3].startswith("IRQ") for c in changes if c[2] == "timer rotates")


def test_a_flexible_event_is_in_the_standard_set_and_breaks_what_pinned_ones_do_not():
    assert "cpu-flexible" in STANDARD["kinds"]
    pinned = explored(Configuration("arch-lbr-v2-fixed", depth=1, kinds=("cpu-exclude", "cpu")),
                     ignore=("P20b",))
    result = explored(Configuration("arch-lbr-v2-fixed", depth=1), ignore=("P20b",))
    assert "P4" in result.broken and "P4" not in pinned.broken


def test_a_migrated_guest_goes_on_recording_since_6_12():
    """6.12 saves IA32_DEBUGCTL, 6.1 does not; neither saves a record."""
    text = "guest wrmsr LBR_CTL; guest branch; migrate; vm-entry; guest branch; guest rdmsr LBR"
    for policy, records in (("kvm-legacy", ["-", "-"]), ("kvm-legacy-6.12", ["A1", "-"])):
        steps, broken = told(policy, text + ("; exit-irqs-on; emulate; emulate"
                                             if policy == "kvm-legacy" else ""))
        seen = next(step["seen"] for step in reversed(steps) if step["seen"])
        assert seen["records"] == records and "P21" in broken


def test_the_host_records_again_before_interrupts_are_on():
    """DEBUGCTL is written back first after the exit: an NMI's branch there is in the window."""
    steps, _ = told("kvm-legacy", "switch to vCPU A; IPI opens cpu-exclude; vm-entry; exit irq; "
                                  "after-exit; NMI branches; exit-irqs-on; NMI")
    after = next(step for step in steps if step["word"] == "after-exit")
    assert after["after"]["recording"] and not after["after"]["irqs"]
    assert steps[-1]["seen"]["records"] == ["h0", "-"]
    steps, _ = told("request", "switch to vCPU A; IPI opens cpu-exclude; vm-entry; exit irq; "
                               "NMI branches; after-exit; exit-irqs-on; NMI")
    assert steps[-1]["seen"]["records"] == ["-", "-"]


def test_a_pinned_event_that_comes_second_goes_to_error_and_stays_there():
    """Two pinned events that differ in their filter; perf alone enables the second again."""
    before = "IPI opens cpu-exclude; IPI opens cpu-user; host branch; IPI closes cpu event 0"
    steps, _ = told("kvm-legacy", before, events=2)
    assert steps[-1]["after"]["owner"] == "unowned"
    steps, _ = told("kvm-legacy", before + "; IPI enables cpu event 1", events=2)
    assert steps[-1]["after"]["owner"] == "host"


@pytest.mark.parametrize(("of_thread", "owner", "events", "after"), [
    ("task-stack", "host", 1, "unowned"), ("task-exclude", "guest A", 2, "guest A")])
def test_a_failed_pinned_event_takes_the_guests_to_error_with_it(of_thread, owner, events, after):
    """The thread's own event asks for another filter than the CPU's, or for the same; the guest's
    comes after it and passes by the filter."""
    text = (f"switch to vCPU A; IPI opens {of_thread}; guest wrmsr LBR_CTL; guest branch; "
            "IPI opens cpu-exclude")
    steps, _ = told("kvm-legacy", text, events=2)
    assert steps[-1]["after"]["owner"] == owner and steps[-1]["after"]["events"] == events
    # Once the host's event has gone, the guest's is enabled by none.
    steps, _ = told("kvm-legacy", text + "; IPI closes cpu event 0; vm-entry", events=2)
    assert steps[-1]["after"]["owner"] == after
