"""Counterexamples as guest programs: what the search found shows on a machine, too."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pylbr.arbitration import POLICIES
from pylbr.cli import main
from pylbr.errors import ConfigurationError
from pylbr.selftest.counterexample import reproduce, write
from pylbr.verify import bugs
from pylbr.verify.models import Configuration, explore
from pylbr.verify.story import story_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "selftests.md"
#: Every public bug whose search has a story: those of SVM are a model of their own.
STORIES = {f"{n:02} {bug.what}": bugs.catch(bug).story for n, bug in enumerate(bugs.BUGS)
           if not bug.policy.startswith("svm")}
#: Policies without these bugs.
FIXED = {"arch-lbr-v2": "request", "mediated-arch-lbr": "mediated-arch-lbr-fixed"}


def _fixed(story):
    """The policy that a story's bug is not in; None for code that was merged with it."""
    configuration = story.configuration
    if configuration.flaws:
        return configuration.policy
    if configuration.policy.startswith("kvm-legacy"):
        return None
    if story.property == "P1'":
        return "mediated"  # `request` documents that the guest's records may break off
    if "vpmi" in configuration.features:
        return "arch-lbr-v2-fixed"  # a PMU of version 2, too
    return FIXED.get(configuration.policy)


def test_no_public_bug_is_left_out():
    assert len(STORIES) == 37
    assert {story.property for story in STORIES.values()} == {
        "P1", "P1'", "P2", "P4", "P5", "P6", "P7", "P20", "P21"}


@pytest.mark.parametrize("name", STORIES)
def test_it_shows_on_the_machine_and_not_without_the_bug(name, tmp_path):
    story = STORIES[name]
    found = reproduce(story, tmp_path, "guest")
    assert found.shown, found.lines
    fixed = _fixed(story)
    if fixed:
        assert not reproduce(story, tmp_path, "guest", fixed).shown


def _leak():
    return next(s for s in STORIES.values() if s.configuration.policy == "mediated-arch-lbr"
                and s.property == "P1")


def test_the_command(tmp_path, capsys):
    file = tmp_path / "leak.story.json"
    file.write_text(_leak().to_json())
    assert main(["selftest", "--counterexample", str(file), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "FAIL" in out and (
        "P1 of mediated-arch-lbr, a guest sees a record of the host, shows on the machine" in out)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "leak.c", "leak.script", "leak.elf"}
    assert main(["run", "--contention", str(tmp_path / "out" / "leak.script"),
                 str(tmp_path / "out" / "leak.elf")]) == 1
    assert "P1 broken\nP1   a guest sees a record of the host\n" in capsys.readouterr().err
    assert main(["selftest", "--counterexample", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"\| leak +\| mediated-arch-lbr +\| P1 +\| shows +\|", out)
    assert out.endswith("\n\nP1   a guest sees a record of the host\n\n1 of 1 show\n")


def test_a_policy_of_ones_own(tmp_path, capsys, monkeypatch):
    """Written, broken, found, and shown on the machine by the line that is printed."""
    monkeypatch.chdir(tmp_path)
    assert main(["verify", "--new-policy", "mine"]) == 0
    file = tmp_path / "mine.py"
    file.write_text(file.read_text().replace("return cpu.wanted", "return False"))
    assert main(["verify", "./mine.py", "--depth", "1", "--guests", "1", "--jobs", "1",
                 "--out", "found"]) == 1
    capsys.readouterr()
    assert main(["selftest", "--policy", "./mine.py", "--counterexample",
                 "found/mine-P22.story.json"]) == 0
    again = re.search(r"again with: pylbr (run --policy ./mine.py --contention .*)",
                      capsys.readouterr().out)[1]
    POLICIES.pop("mine")
    assert main(again.split()) == 1
    assert "P22 broken" in capsys.readouterr().err
    for words, said in (
            (["--policy", "lease", "--contention", "mine-P22.script"], "name a file"),
            (["--policy", "./mine.py"], "there is no --contention")):
        assert main(["run", *words, "mine-P22.elf"]) == 2
        assert said in capsys.readouterr().err
    POLICIES.pop("mine")


def test_a_host_alone_sees_some(tmp_path, capsys):
    """No guest can see two owners, or an access between check and use: the script asks."""
    for wanted in ("P6", "P20"):
        story = next(s for s in STORIES.values() if s.property == wanted)
        reproduce(story, tmp_path, wanted)
        status = main(["run", "--model", "skylake", "--contention",
                       str(tmp_path / f"{wanted}.script"), str(tmp_path / f"{wanted}.elf")])
        assert status == 1
        out = capsys.readouterr()
        assert out.out.endswith(" passed, 0 failed\n")
        assert f"{wanted} broken" in out.err


def test_a_mutant_is_a_policy_of_a_script(tmp_path):
    """The guards that are left out are named as on pylbr verify."""
    configuration = Configuration("lease", ("no-wipe",), guests=1, depth=1, kinds=("cpu-exclude",),
                                  features=("nmi", "xsaves"))
    result = explore(configuration)
    name = next(name for name in ("P20b", "P4", "P1") if name in result.broken)
    story = story_of(configuration, name, result.broken[name])
    assert reproduce(story, tmp_path, "guest").shown
    assert "policy lease +no-wipe\n" in (tmp_path / "guest.script").read_text()
    assert not reproduce(story, tmp_path, "guest", "lease").shown


def test_the_page_names_a_file_that_is_written():
    name = re.search(r"--counterexample bugs/(\d\d)-([\w.-]+)-(P\d+)\.story", PAGE.read_text())
    bug = bugs.BUGS[int(name[1]) - 1]
    assert (bug.policy, bug.property) == (name[2], name[3])


def test_what_has_no_program_is_one_line(tmp_path):
    story = _leak()
    for configuration, broken, said in (
            (replace(story.configuration, cpus=2), "P1", "has one processor"),
            (story.configuration, "P3", "runs in ring 0 alone")):
        with pytest.raises(ConfigurationError, match=said):
            write(replace(story, configuration=configuration, property=broken), tmp_path, "x")
