"""Counterexamples as guest programs: what the search found shows on a machine, too."""

import re
from pathlib import Path

import pytest

from pylbr.cli import main
from pylbr.errors import ConfigurationError
from pylbr.selftest.counterexample import reproduce, write
from pylbr.verify import bugs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "selftests.md"
STORIES = {f"{n:02} {bug.what}": bugs.catch(bug).story for n, bug in enumerate(bugs.BUGS)
           if bug.policy in ("kvm-legacy", "kvm-legacy-6.12", "kvm-legacy-designed", "arch-lbr-v2",
                             "mediated-arch-lbr") and not bug.flaws}
#: Whose property a machine shows, and whose words a guest program and a script have.
SHOWN = {name: story for name, story in STORIES.items()
         if story.property in ("P1", "P4", "P21") and not any(
             word in name for word in ("PEBS", "by a PEBS", "a reset leaves"))}
#: Policies without these bugs.
FIXED = {"arch-lbr-v2": "request", "mediated-arch-lbr": "mediated-arch-lbr-fixed"}


def test_many_can_be_shown():
    assert len(SHOWN) >= 12
    assert {story.configuration.policy for story in SHOWN.values()} >= {
        "kvm-legacy", "kvm-legacy-designed", "arch-lbr-v2", "mediated-arch-lbr"}


@pytest.mark.parametrize("name", [n for n in SHOWN if "the same by a PEBS" not in n])
def test_it_shows_on_the_machine_and_not_without_the_bug(name, tmp_path):
    story = SHOWN[name]
    found = reproduce(story, tmp_path, "guest")
    assert found.shown, found.lines
    fixed = FIXED.get(story.configuration.policy)
    if fixed:
        assert not reproduce(story, tmp_path, "guest", fixed).shown


def test_the_command(tmp_path, capsys):
    story = next(s for s in SHOWN.values() if s.configuration.policy == "mediated-arch-lbr"
                 and s.property == "P1")
    file = tmp_path / "leak.story.json"
    file.write_text(story.to_json())
    assert main(["selftest", "--counterexample", str(file), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "FAIL" in out and "P1 of mediated-arch-lbr shows on the machine" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "leak.c", "leak.script", "leak.elf"}
    assert main(["run", "--contention", str(tmp_path / "out" / "leak.script"),
                 str(tmp_path / "out" / "leak.elf")]) == 1


def test_the_page_names_a_file_that_is_written():
    name = re.search(r"--counterexample bugs/(\d\d)-([\w.-]+)-(P\d+)\.story", PAGE.read_text())
    bug = bugs.BUGS[int(name[1]) - 1]
    assert (bug.policy, bug.property) == (name[2], name[3])
    assert bugs.catch(bug).story in SHOWN.values()


def test_what_has_no_program_is_one_line(tmp_path):
    for story in STORIES.values():
        if story.property in ("P20", "P5", "P2", "P7"):
            with pytest.raises(ConfigurationError, match="does not show on a machine"):
                write(story, tmp_path, "x")
    late = next(s for s in STORIES.values() if s.property == "P1'")
    with pytest.raises(ConfigurationError, match="no contention script has 'host counter over"):
        write(late, tmp_path, "x")
    planted = bugs.catch(next(bug for bug in bugs.BUGS if bug.flaws and bug.property == "P1"
                              and not bug.policy.startswith("svm"))).story
    with pytest.raises(ConfigurationError, match="without flaws"):
        write(planted, tmp_path, "x")
