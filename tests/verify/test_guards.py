"""Guards are left out of a copy of the policies; the policies themselves know nothing of them."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import pylbr.arbitration
from pylbr.arbitration import make_policy
from pylbr.errors import ConfigurationError
from pylbr.verify import _mutants, guards, weave
from pylbr.verify.explore import Explorer
from pylbr.verify.models import Configuration
from pylbr.verify.mutants import flaws_of, mutant
from tests.verify.explored import explored

SOURCES = Path(pylbr.arbitration.__file__).parent


@pytest.mark.parametrize("module", guards.MODULES)
def test_a_policy_reads_as_the_policy_alone(module):
    text = (SOURCES / f"{module}.pyx").read_text()
    assert not re.search(r"self\.has\(|left_out|flaw|guard", text, re.I)


@pytest.mark.parametrize("policy", guards.POLICIES)
def test_a_copy_with_every_guard_is_the_policy(policy):
    """State for state: the switches change nothing while they are off."""
    right = explored(Configuration(policy, depth=1))
    copy = getattr(_mutants, guards.POLICIES[policy])()
    assert type(copy) is not type(make_policy(policy)) and copy.name == policy
    again = Explorer(Configuration(policy, depth=1).model(copy))
    assert again.run(1 << 30) and not again.failed
    assert (again.states, again.transitions) == (right.states, right.transitions)


def test_every_guard_is_of_some_policy_and_each_policy_has_some():
    assert {name for guard in guards.GUARDS.values() for name in guard.policies} == set(
        guards.POLICIES)
    assert len(guards.GUARDS) < 64, "one bit each"
    assert "no-swap-back" in flaws_of("lease") and "no-swap-back" not in flaws_of("request")


@pytest.mark.parametrize(("edit", "message"), [
    ({"old": "hw_init(&c->hw)"}, "0 times"), ({"where": "SingleOwner.wipes"}, "no method"),
    ({"where": "Owner.wipe"}, "no class"), ({"where": "SingleOwner.emulate", "old": "v.image"},
                                            "times, expected once"),
])
def test_an_edit_that_does_not_fit_ends_the_build(monkeypatch, edit, message):
    guard = guards.GUARDS["no-wipe"]
    wrong = replace(guard, edits=(replace(guard.edits[0], **edit),))
    monkeypatch.setattr(weave, "runpy", SimpleNamespace(
        run_path=lambda _: {**vars(guards), "GUARDS": {"no-wipe": wrong}}))
    with pytest.raises(weave.WeaveError, match=message):
        weave.weave()


def test_what_is_built_is_what_is_declared():
    assert weave.TARGET.read_text() == weave.weave()


def test_a_flaw_that_is_not_there():
    with pytest.raises(ConfigurationError, match="mediated has no flaw 'no-recheck'; it has"):
        mutant("mediated", ["no-recheck"])
    with pytest.raises(ConfigurationError, match="policy kvm-legacy has no flaw 'no-wipe'"):
        mutant("kvm-legacy", ["no-wipe"])
    with pytest.raises(ConfigurationError, match="policy lease has no flaw 'no-wipe'; it has none"):
        make_policy("lease", ["no-wipe"])
