"""The tables of docs/arbitration.md are what the commands above them print: searches of
policies with few states, and every known bug; test_search.py has the table of docs/mutants.md."""

import re
import shlex
from pathlib import Path

import pytest

from pylbr.cli import main
from pylbr.verify import suites
from tests.verify.explored import hunted

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "arbitration.md").read_text()
SEARCHES = {command: rows for command, rows in re.findall(
    r"^`pylbr (verify[^`]*)`\n\n((?:\|.*\n)+)", PAGE, re.M) if "transitions" in rows}
MODELS = ("tdx", "svm-stack", "svm")
QUICK = ("mediated", "mediated-merged", "mediated-arch-lbr", "mediated-arch-lbr-fixed")


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def tables(capsys, *words):
    """The tables that a command prints, as lists of cells."""
    main(list(words))
    return [[cells(line) for line in part.splitlines()]
            for part in capsys.readouterr().out.split("\n\n") if part.startswith("|")]


def counts(row):
    """Without the seconds."""
    return row[:-1]


def test_there_are_searches_of_several_sets():
    assert len(SEARCHES) >= 6 and "verify" in SEARCHES


@pytest.mark.parametrize("command", [
    pytest.param(name, marks=[pytest.mark.slow] * ("--set all" in name)) for name in SEARCHES])
def test_searches(command, capsys):
    rows = [cells(line) for line in SEARCHES[command].splitlines()][2:]
    few = QUICK[:2] if "--set all" in command else (*QUICK, *MODELS)
    quick = [row for row in rows if row[0] in few]
    named = {row[0] for row in rows}
    options = [word for word in shlex.split(command)[1:] if word not in named]
    printed = tables(capsys, "verify", *(row[0] for row in quick), *options)
    assert quick and [counts(row) for row in printed[0][2:]] == [counts(row) for row in quick]


def test_properties_of_the_standard_set(capsys):
    whole = [cells(line) for line in re.search(r"^\| {6}\| arch-lbr-v2 .*?\n\n", PAGE,
                                               re.M | re.S)[0].strip().splitlines()]
    head, *properties = tables(capsys, "verify", *QUICK)[1]
    for row, expected in zip([head, *properties[1:]], [whole[0], *whole[2:]], strict=True):
        assert row == [expected[0], *(expected[whole[0].index(policy)] for policy in QUICK)]


def after(command):
    """The table below a command."""
    return re.search(rf"^`pylbr {re.escape(command)}`\n\n((?:\|.*\n)+)", PAGE, re.M)[1]


def test_known_bugs(capsys, monkeypatch):
    monkeypatch.setattr(suites, "hunt", lambda policy, flaw, known: hunted(policy, flaw))
    assert main(["verify", "--set", "bugs"]) == 0
    assert capsys.readouterr().out.startswith(after("verify --set bugs"))


def test_what_a_host_must_save_around_a_td(capsys):
    assert main(["verify", "tdx", "--set", "mutants"]) == 0
    assert capsys.readouterr().out.startswith(after("verify tdx --set mutants"))
    assert main(["verify", "tdx", "--flaw", "depth-last", "--stories"]) == 1
    assert capsys.readouterr().out.split("\n\n")[-1] in PAGE
