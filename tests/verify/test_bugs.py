"""Public bugs: each is found in the code that has it, and not in the code that does not."""

import json
import re
from pathlib import Path

import pytest

from pylbr.cli import main
from pylbr.verify import bugs, script, svm
from pylbr.verify.models import Configuration
from pylbr.verify.story import Story
from tests.verify.explored import caught, explored
from tests.verify.trace_events import check

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bugs.md"
FIXED = {"mediated-arch-lbr": "mediated-arch-lbr-fixed", "arch-lbr-v2-fixed": "request",
         "arch-lbr-v2": "request"}


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """The command searches what is caught already, too."""
    monkeypatch.setattr(bugs, "catch", caught)


def test_there_are_many_and_most_are_not_planted():
    assert len(bugs.BUGS) >= 40
    merged = [bug for bug in bugs.BUGS if not bug.flaws]
    assert len(merged) > 35


@pytest.mark.parametrize("bug", [bug for bug in bugs.BUGS if not bug.policy.startswith("svm")],
                         ids=lambda bug: bug.what)
def test_the_line_that_is_printed_shows_the_bug(bug):
    steps = script.play(script.read(caught(bug).told(), bug.policy, bug.flaws))
    assert bug.property in script.broken_in(steps)


@pytest.mark.parametrize("bug", [bug for bug in bugs.BUGS if bug.policy in FIXED],
                         ids=lambda bug: bug.what)
def test_it_is_not_in_code_without_it(bug):
    """On the same ground, `request` or the tree with its faults fixed."""
    ground = {"guests": 1, "depth": 1, "kinds": (), "features": (), **bug.ground}
    assert not explored(Configuration(FIXED[bug.policy], **ground)).broken


def test_the_page_is_the_output_of_the_command(capsys):
    assert main(["verify", "--set", "public"]) == 0
    printed = capsys.readouterr().out
    table = printed.split("\n\n")[0]
    assert table in PAGE.read_text()
    assert len(re.findall(r"^\|", table, re.M)) == len(bugs.BUGS) + 2


def test_stories_are_written_and_replay(tmp_path, capsys):
    assert main(["verify", "--set", "public", "--json", "--out", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["bug"] for one in told] == [bug.what for bug in bugs.BUGS]
    files = sorted(tmp_path.glob("*.story.json"))
    assert len(files) == len([bug for bug in bugs.BUGS if not bug.policy.startswith("svm")])
    assert Story.load(files[0]).replay()
    texts = sorted(file.name for file in tmp_path.glob("*.txt"))
    assert len(texts) == len(bugs.BUGS) and texts[-9] == "38-svm-6.1-P5.txt"
    for file in files:          # and each timeline is one that Perfetto opens
        tracks = check(Path(str(file).replace(".story.", ".trace.")).read_text())
        assert len(tracks) == 5 and all(slices[0][0] == 0 for slices in tracks.values())


# SVM

def test_stories_of_amd_are_written_in_words_that_the_command_plays(tmp_path, capsys):
    words = ["verify", "--set", "public", "--stories", "svm-6.1", "svm", "svm-stack"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    files = sorted(tmp_path.glob("*.txt"))
    assert len(files) == 9 == len([check(file.read_text()) for file in tmp_path.glob("*.json")])
    for file in files:
        assert file.read_text() in printed
        main(["verify", "--story", str(file)])
        assert f"=> {file.stem.split('-')[-1]} broken" in capsys.readouterr().out


def test_a_kvm_with_every_fix_holds_everything():
    found = svm.search()
    assert not found.broken and found.states > 20_000
    assert not svm.search(sev_es=True).broken


@pytest.mark.parametrize(("fix", "broken"), [
    ("dirty", "P5"), ("intercepts", "P1"), ("nested-copy", "P21"), ("saved", "P21"),
    ("debugctl", "P5"), ("sev-es", "P5")])
def test_every_fix_is_needed(fix, broken):
    assert broken in svm.search(svm.FIXES.keys() - {fix}, fix == "sev-es", broken).broken


def test_an_intercepted_read_exits_first():
    """#VMEXIT saves the record that KVM then reads, stale intercepts or not."""
    words = ["VMRUN", "L1 vmrun with LBRV", "L2 wrmsr DEBUGCTL 1", "L2 branch",
             "L2 rdmsr LASTBRANCHFROMIP"]
    assert svm.play(words, svm.MERGED["6.1"]) == svm.Played(("L2a",), ())


def test_l1_reads_the_hosts_lbrs_after_l2_had_them():
    """What the series of November 2025 calls a fun problem."""
    found = svm.search(svm.FIXES.keys() - {"intercepts"}, until="P1")
    assert found.broken["P1"] == [
        "host sets DEBUGCTL.LBR to 1", "host branch", "VMRUN", "L1 vmrun with LBRV",
        "L2 exits to L1", "L1 rdmsr LASTBRANCHFROMIP"]


@pytest.mark.parametrize("bug", [bug for bug in bugs.BUGS if bug.policy == "svm-6.1"],
                         ids=lambda bug: bug.what)
def test_svm_of_6_12_does_not_break_what_6_1_does(bug):
    words = caught(bug).words
    assert svm.play(words, svm.MERGED["6.1"], bug.ground.get("sev_es", False)).broken
    assert not svm.search(svm.MERGED["6.12"], until=bug.property, **bug.ground).broken
