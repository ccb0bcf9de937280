"""Who hands the registers to whom, read off the models."""

import pytest

from pylbr.verify.ownership import handovers, mermaid, ownership_configuration
from pylbr.verify.suites import CORRECT

CHANGES = {policy: handovers(ownership_configuration(policy))
           for policy in (*CORRECT, "kvm-legacy-designed")}


@pytest.mark.parametrize("policy", CORRECT)
def test_no_steal_in_an_interrupt(policy):
    for before, after, _, context in CHANGES[policy]:
        if context.startswith("IRQ"):
            assert "unowned" in (before, after)
    assert not [c for c in CHANGES[policy] if c[0] == "guest A" and c[1] == "host"]


def test_merged_design_steals_in_an_interrupt():
    assert ("guest A", "host", "IPI opens an event", "IRQ, interrupts off") in CHANGES[
        "kvm-legacy-designed"]


@pytest.mark.parametrize("policy", CHANGES)
def test_no_change_of_owner_in_an_nmi(policy):
    assert CHANGES[policy]
    assert not [what for _, _, what, _ in CHANGES[policy] if "nmi" in what]


@pytest.mark.parametrize("policy", CORRECT)
def test_hand_overs_happen_with_interrupts_off(policy):
    assert {context.split(", ")[1] for *_, context in CHANGES[policy]} == {"interrupts off"}


def test_diagram():
    text = mermaid(CHANGES["mediated"])
    assert text.startswith("stateDiagram-v2") and "unowned --> guest_A" in text
