"""pylbr verify."""

import pytest

from pylbr.cli import main


def test_tables_and_files(tmp_path, capsys):
    assert main(["verify", "mediated", "kvm-legacy-designed", "--depth", "1", "--guests", "1",
                 "--jobs", "1", "--out", str(tmp_path), "--stories"]) == 0
    out = capsys.readouterr().out
    assert "| mediated" in out and "| P21 " in out and "a request" not in out.split("|")[0]
    names = {path.name for path in tmp_path.iterdir()}
    assert "kvm-legacy-designed-P4.story.json" in names
    assert "kvm-legacy-designed-P4.trace.json" in names
    assert not any(name.endswith(".part") for name in names)
    assert main(["verify", "--replay", str(tmp_path / "kvm-legacy-designed-P4.story.json")]) == 0
    assert "P4 broken" in capsys.readouterr().out


def test_a_broken_correct_policy_is_a_negative_answer(capsys):
    assert main(["verify", "lease", "--depth", "1", "--guests", "1", "--jobs", "1",
                 "--flaw", "no-wipe"]) == 1
    assert "P20b" in capsys.readouterr().out


def test_known_bugs(capsys):
    assert main(["verify", "--set", "bugs"]) == 0
    assert "NOT EXPLAINED" not in capsys.readouterr().out


@pytest.mark.parametrize("words", [["nobody"], ["lease", "--flaw", "x"], ["--jobs", "0"],
                                   ["--features", "x"], ["--events", "x"]])
def test_mistakes_are_one_line(words, capsys):
    assert main(["verify", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("pylbr verify: ")
