"""The counterpart of KVM's svm_lbr_nested_state, and that it is not blind."""

import pytest

from pylbr.errors import StateError
from pylbr.selftest.svm_cases import svm_cases
from pylbr.verify import svm


def failures(fixes):
    return [case.name for case in svm_cases(fixes) if not case.run()[0]]


def test_a_kvm_with_every_fix_passes():
    assert len(svm_cases()) == 6 and not failures(svm.FIXES)


@pytest.mark.parametrize("fix", [fix for fix in svm.FIXES if fix != "sev-es"])
def test_a_kvm_without_a_fix_fails(fix):
    """An SEV-ES guest runs no guests."""
    assert failures(svm.FIXES.keys() - {fix})


def test_what_is_played_is_what_the_search_prints():
    for fix in svm.FIXES:
        found = svm.search(svm.FIXES.keys() - {fix}, sev_es=fix == "sev-es", until="P5")
        for name, words in found.broken.items():
            assert name in svm.play(words, svm.FIXES.keys() - {fix}, fix == "sev-es").broken


def test_what_cannot_happen_is_told():
    with pytest.raises(StateError, match="step 2: 'L2 branch' cannot happen here; possible are"):
        svm.play(["VMRUN", "L2 branch"])
