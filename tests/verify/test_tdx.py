"""What the host has to save around a TD that has LBRs, in the model and by the command."""

import json
import re
from itertools import permutations

import pytest

from pylbr.cli import main
from pylbr.verify import tdx
from tests.verify.test_json import holds
from tests.verify.trace_events import check

NEEDED = [("depth", "DEPTH"), ("records", "RECORDS"), ("ler", "LER"), ("ctl", "CTL")]
#: One line, in the words that the command prints.
STORY = ("host wrmsr LBR_CTL 1; host branch; TD enter; TD wrmsr LBR_CTL 1; TD branch; TD branch; "
         "TD exit; host branch")


def test_all_four_in_order_hold_everything():
    found = tdx.search()
    assert not found.broken and found.states > 30


@pytest.mark.parametrize(("part", "broken"), NEEDED)
def test_each_part_is_needed(part, broken):
    """And what is missing is the property of that name, and no other."""
    found = tdx.search([name for name in tdx.PARTS if name != part])
    assert set(found.broken) == {broken}
    assert tdx.search(tdx.parts_without([f"no-{part}"])).broken == found.broken


def test_depth_comes_before_the_records():
    """A write of DEPTH resets them; every order that has it first holds, every other does not."""
    for order in permutations(tdx.PARTS):
        first = order.index("depth") < order.index("records")
        assert ("RECORDS" not in tdx.search(order).broken) == first, order
    assert tdx.parts_without(["depth-last"]) == ("records", "ler", "ctl", "depth")


def test_depth_alone_breaks_at_the_first_exit():
    assert tdx.search(("records", "ler", "ctl")).broken["DEPTH"] == ["TD enter", "TD exit"]


def test_the_command_searches_it_as_a_policy(capsys):
    assert main(["verify", "tdx"]) == 0
    out = capsys.readouterr().out
    rows = [[word.strip() for word in line.split("|")[1:-1]] for line in out.splitlines()]
    assert [row for row in rows if len(row) == 2 and row[1] == "holds"] == [
        [name, "holds"] for name in tdx.TITLES]
    for name, title in tdx.TITLES.items():
        assert f"{name:7} {title}\n" in out


@pytest.mark.parametrize(("part", "broken"), NEEDED)
def test_the_command_tells_what_the_host_has_to_save(part, broken, capsys, tmp_path):
    words = ["verify", "tdx", "--flaw", f"no-{part}", "--stories", "--out", str(tmp_path)]
    assert main(words) == 1
    out = capsys.readouterr().out
    assert f"# {broken}: {tdx.TITLES[broken]}\npolicy: tdx +no-{part}\n" in out
    trace, file = sorted(tmp_path.iterdir())
    tracks = check(trace.read_text())
    assert len(tracks) == 5 and all(slices[0][0] == 0 for slices in tracks.values())
    assert file.name == f"tdx-no-{part}-{broken}.txt" and file.read_text() in out + "\n"
    assert main(["verify", "--story", str(file)]) == 1      # what is printed is run again
    assert capsys.readouterr().out.rstrip() in file.read_text()


def test_each_flaw_is_found(capsys):
    assert main(["verify", "tdx", "--set", "mutants"]) == 0
    out = capsys.readouterr().out
    rows = [[word.strip() for word in line.split("|")] for line in out.splitlines()]
    assert {row[2]: row[4] for row in rows if row[1:2] == ["tdx"]} == {
        **{f"no-{part}": broken for part, broken in NEEDED}, "depth-last": "RECORDS"}


def test_stories_are_played(capsys):
    assert main(["verify", "tdx", "--story", STORY]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^  7. TD exit +# host: h on; LER -, DEPTH of the host$", out, re.M)
    assert out.endswith("# => nothing broken\n")
    assert main(["verify", "tdx", "--flaw", "no-records", "--story", STORY]) == 1
    assert "# => RECORDS broken: " in capsys.readouterr().out


def test_an_event_at_every_point(capsys):
    words = ["verify", "tdx", "--flaw", "no-ler", "--what-if",
             f"host exception at every point of {STORY}"]
    assert main(words) == 1
    out = capsys.readouterr().out
    rows = [[word.strip() for word in line.split("|")[1:-1]] for line in out.splitlines()]
    assert ["2", "host branch", "breaks LER at 8"] in rows
    assert [row[0] for row in rows if row[2:] == ["cannot happen here"]] == ["0-1", "3-6"]
    assert "LER     after the TD's exit" in out


@pytest.mark.parametrize(("words", "kind", "status"), [
    ([], ["search"], 0), (["--flaw", "no-ctl", "--stories"], ["search"], 1),
    (["--set", "mutants", "--stories"], ["flaw"], 0), (["--story", STORY], ["story"], 0),
    (["--what-if", f"host branch at every point of {STORY}"], ["what_if"], 0)])
def test_json_is_as_of_a_policy(words, kind, status, capsys):
    assert main(["verify", "tdx", "--json", *words]) == status
    told = json.loads(capsys.readouterr().out)
    holds(told, kind)
    if "--flaw" in words:
        assert told[0]["broken"] == {"CTL": 3}
        assert told[0]["stories"]["CTL"]["broken"] == {"CTL": 3}


@pytest.mark.parametrize("words", [
    ["tdx", "lease"], ["tdx", "--depth", "1"], ["tdx", "--flaw", "no-wipe"],
    ["tdx", "--features", "nmi"], ["tdx", "--ownership"], ["tdx", "--set", "pebs"],
    ["tdx", "--walk", "9"], ["tdx", "--story", "enter"], ["tdx", "--story", ";"],
    ["tdx", "--what-if", "NMI at every point of TD enter"], ["svm-6.1", "--set", "mutants"],
    ["tdx", "--set", "mutants", "--flaw", "no-ctl"], ["--new-policy", "tdx"]])
def test_mistakes_are_one_line(words, capsys):
    assert main(["verify", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("pylbr verify: ")
