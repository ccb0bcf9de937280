"""Architectural LBRs on the mediated PMU, as a public tree has them: each fault as a story, and
none of them once it is fixed."""

import pytest

from pylbr.arbitration import known_flaws, make_policy
from pylbr.verify import script
from pylbr.verify.models import Configuration
from pylbr.verify.suites import by_design
from tests.verify.explored import explored, hunted

TREE, FIXED = "mediated-arch-lbr", "mediated-arch-lbr-fixed"

#: What is told -> properties that break, and what the last one to look reads.
STORIES = {
    # The guest has not set LBREn: nothing is loaded, and XSAVES does not exit.
    "switch to vCPU A; IPI opens cpu-exclude; host branch; guest xsaves":
        ({"P1", "P1'", "P21"}, ["h0", "-"]),
    "switch to vCPU A; IPI opens cpu-exclude; host branch; guest PEBS record":
        ({"P1", "P1'", "P21"}, ["h0", "-"]),
    # XRSTORS of a guest that is not passed through writes what the host reads next.
    "IPI opens cpu-exclude; host branch; guest xrstors; after-exit; exit-irqs-on; NMI":
        ({"P4", "P21"}, ["A0", "-"]),
    # Another guest's LER is there still: a write of DEPTH does not reach it.
    "guest A wrmsr LBR_CTL; guest A branch; guest A branch fault; switch to vCPU B; guest B xsaves":
        ({"P2", "P7"}, ["-", "-"]),
    # XSTATE_BV[15] is 0 until the first XSAVES: what was written before is lost.
    "guest wrmsr LBR; guest wrmsr LBR_CTL; vm-entry; guest rdmsr LBR":
        ({"P21", "P1'"}, ["-", "-"]),
    "guest wrmsr LBR_CTL; guest branch; migrate; vm-entry; guest rdmsr LBR":
        ({"P21", "P1'"}, ["-", "-"]),
    # User space reads LER as 0.
    "guest wrmsr LBR_CTL; guest branch; guest branch fault; migrate; move-state":
        ({"P7"}, None),
    "guest wrmsr LBR_CTL; guest branch; guest wrmsr LBR_CTL 0; guest reset; guest rdmsr LBR; "
    "emulate": ({"P21", "P1'"}, ["A0", "-"]),
    # A guest that has stopped reads its records by RDMSR, and not by XSAVES.
    "guest wrmsr LBR_CTL; guest branch; guest wrmsr LBR_CTL 0; vm-entry; guest xsaves":
        ({"P21", "P1'"}, ["-", "-"]),
}


@pytest.mark.parametrize("text", STORIES)
def test_each_fault_as_a_story(text):
    broken, records = STORIES[text]
    steps = script.play(script.read(text, TREE))
    seen = [step["seen"] for step in steps if step["seen"]]
    assert broken <= set(script.broken_in(steps))
    assert records is None or seen[-1]["records"] == records
    assert not script.broken_in(script.play(script.read(text, FIXED)))


def test_a_guest_that_records_all_the_time_sees_its_own():
    """The part of the design that works: no fault shows while LBREn is set."""
    text = ("IPI opens cpu-exclude; host branch; guest wrmsr LBR_CTL; guest branch; guest branch; "
            "exit irq; host branch; vm-entry; guest rdmsr LBR")
    steps = script.play(script.read(text, TREE))
    assert not set(script.broken_in(steps)) - {"P20b"}
    assert steps[-1]["seen"]["records"] == ["A1", "A0"]


def test_the_search_finds_each_fault_by_itself():
    found = {flaw: hunted(FIXED, flaw).found for flaw in known_flaws(make_policy(FIXED))}
    assert all(found.values()) and len(found) == 7


def test_the_search_finds_the_worst_without_being_told_where():
    result = explored(Configuration(TREE, depth=1, guests=1), ignore=by_design(TREE))
    assert len(result.broken["P1"][0]) == 12
    assert not explored(Configuration(FIXED, depth=1, guests=1)).broken
