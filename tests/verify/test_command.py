"""pylbr verify."""

import pytest

from pylbr.cli import main
from pylbr.verify import bugs, suites
from pylbr.verify.models import Configuration
from pylbr.verify.run import in_parallel, search
from tests.verify.explored import caught, hunted


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


def test_depth_3_is_one_command(capsys):
    """Where LBRs come in ones and twos, as many as there are."""
    assert main(["verify", "--depth", "3", "--guests", "1", "--features", "", "--events",
                 "cpu-exclude"]) == 0
    rows = [[word.strip() for word in line.split("|")[1:-1]]
            for line in capsys.readouterr().out.splitlines() if line.endswith("|")]
    depths = {row[0]: row[3] for row in rows[2:] if len(row) == 9}
    assert depths["lease"] == depths["arch-lbr-v2"] == "3" and depths["kvm-legacy"] == "2"


def test_walks(capsys):
    assert main(["verify", "lease", "kvm-legacy", "--walk", "20000", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    assert "kvm-legacy: walks without smm and host-freeze" in err and "lease:" not in err
    lease, legacy = ([word.strip() for word in line.split("|")[1:-1]]
                     for line in out.splitlines() if line.startswith(("| lease", "| kvm")))
    assert lease[:6] == ["lease", "2", "4", "32", "3", "20,000"] and lease[7] == "nothing"
    assert legacy[0] == "kvm-legacy" and legacy[7] != "nothing"
    assert main(["verify", "lease", "--walk", "20000", "--flaw", "wipe-by-depth"]) == 1


def test_progress_counts_what_every_process_has_done():
    told = []
    configurations = [Configuration(policy, depth=1) for policy in ("mediated", "lease")]
    results = list(in_parallel(search, configurations, 2, told.append))
    assert [r.configuration for r in results] == configurations
    assert told == sorted(told) and 0 < told[-1] <= sum(r.states for r in results)


def test_known_bugs(capsys, monkeypatch):
    monkeypatch.setattr(suites, "hunt", lambda policy, flaw, known: hunted(policy, flaw))
    assert main(["verify", "--set", "bugs"]) == 0
    assert "NOT EXPLAINED" not in capsys.readouterr().out


def test_bugs_of_one_policy(capsys, monkeypatch):
    monkeypatch.setattr(suites, "hunt", lambda policy, flaw, known: hunted(policy, flaw))
    monkeypatch.setattr(bugs, "catch", caught)
    for suite, policy in (("bugs", "kvm-legacy-designed"), ("public", "svm-stack"),
                          ("mutants", "mediated-merged")):
        assert main(["verify", policy, "--set", suite]) == 0
        rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
        assert len(rows) > 2 and all(policy in row for row in rows)


@pytest.mark.parametrize("words", [["unknown"], ["lease", "--flaw", "x"], ["--jobs", "0"],
                                   ["--features", "x"], ["--events", "x"], ["--walk", "0"],
                                   ["--walk", "9", "--flaw", "x"], ["kvm-legacy", "--depth", "3"],
                                   ["--set", "pebs", "--features", "nmi"],
                                   ["--set", "mutants", "unknown"], ["--set", "public", "lease"],
                                   ["--set", "bugs", "--depth", "2"],
                                   ["lease", "--story", "enter", "--depth", "1"],
                                   ["lease", "--what-if", "NMI at every point of enter",
                                    "--cpus", "2"], ["--replay", "x", "--flaw", "no-wipe"],
                                   ["--walk", "9", "--features", "nmi"],
                                   ["--ownership", "--guests", "1"]])
def test_mistakes_are_one_line(words, capsys):
    assert main(["verify", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("pylbr verify: ")
