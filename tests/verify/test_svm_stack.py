"""AMD's LbrExtV2 under KVM: what released KVM does to host and guest, and what it would take."""

from contextlib import suppress

import pytest

from pylbr.errors import StateError
from pylbr.kvm.guest_cpuid import amd_debug_leaf
from pylbr.selftest.svm_stack_cases import stack_msr_cases, stack_state_cases
from pylbr.verify.svm_stack import FIXES, MERGED, TITLES, play, search

READ, ENABLE = "L1 rdmsr SAMP_BR_FROM", "L1 wrmsr DBG_EXTN_CFG"


def without(*names):
    return FIXES.keys() - {*names}


@pytest.mark.parametrize("release", MERGED)
def test_released_kvm_harms_the_host_only(release):
    """No guest reads a record, nor records one of its own."""
    found = search(MERGED[release], offered=False)
    assert found.broken.keys() == {"P4", "P21"} and found.states > 400
    assert found.broken["P4"] == ["perf opens", "VMRUN", "L1 branch", "exit", "host sample"]
    assert found.broken["P21"] == ["perf opens", "host branch", "VMRUN", "L1 wrmsr DEBUGCTL",
                                   "exit", "host sample"]


@pytest.mark.parametrize("release", MERGED)
def test_of_an_sev_es_guest_the_host_sees_nothing_and_loses_its_own(release):
    """LBRV is always on, and #VMEXIT clears the stack."""
    found = search(MERGED[release], offered=False, sev_es=True)
    assert found.broken == {"P21": ["perf opens", "host branch", "VMRUN", "exit", "host sample"]}


@pytest.mark.parametrize("words", [[READ], [ENABLE], [ENABLE, "L1 branch", READ]])
def test_a_guest_sees_its_stack_or_a_fault(words):
    """With the feature and without, on 6.1 and 6.12, SEV-ES too."""
    for sev_es in (False, True):
        for fixes in MERGED.values():
            assert {*play(["VMRUN", *words], fixes, offered=False, sev_es=sev_es).reads} == {"#GP"}
        played = play(["perf opens", "host branch", "VMRUN", *words], sev_es=sev_es)
        assert not played.broken and "#GP" not in played.reads
        assert played.reads[-1:] == {1: ("",) if READ in words else (), 3: ("L1a",)}[len(words)]


def test_a_kvm_that_offers_the_stack_holds_everything():
    found = search()
    assert not found.broken and found.states > 100_000
    assert not search(sev_es=True).broken and not search(offered=False).broken


@pytest.mark.parametrize(("fix", "broken"), [
    ("host-off", "P5"), ("host-stack", "P4"), ("enable", "P5"), ("nested-stack", "P21"),
    ("saved", "P21"), ("series", "P5")])
def test_each_part_of_it_is_needed(fix, broken):
    words = search(without(fix), until=broken).broken[broken]
    assert broken in play(words, without(fix)).broken
    with suppress(StateError):  # a register that was lost is not written again
        assert broken not in play(words).broken


def test_parts_are_not_left_out():
    assert {"host-off", "host-stack", "enable", "nested-stack", "saved", "series"} == set(FIXES)
    assert set(TITLES) == {"P1", "P4", "P5", "P21"}


def test_before_the_series_a_guest_reads_the_host():
    """Interception stays off after L2, and without LBRV the registers hold the host's records."""
    words = ["perf opens", "host branch", "VMRUN", "L1 vmrun", "L2 wrmsr DEBUGCTL",
             "L2 exits to L1", READ]
    assert "P1" in play(words, without("series")).broken
    assert not play(words).broken


def test_selftests_pass_with_every_fix_and_fail_without():
    assert all(case.run()[0] for case in (*stack_state_cases(), *stack_msr_cases()))
    for fix in FIXES:
        assert not all(case.run()[0] for case in stack_state_cases(without(fix))), fix


def test_what_kvm_passes_on_of_the_leaf():
    zen4 = (0b111, 6 | 16 << 4 | 1 << 10)
    assert amd_debug_leaf(*zen4, "6.1") == (0, 0) and amd_debug_leaf(*zen4) == (1, 6)


def test_what_cannot_happen_is_one_line():
    with pytest.raises(StateError, match="step 1: 'host sample' cannot happen here; possible are"):
        play(["host sample"])
