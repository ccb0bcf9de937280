"""pylbr bench: contests, statistics, what is written, and two trees compared."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pylbr
from pylbr.bench import statistics, suite
from pylbr.bench.alone import values_of
from pylbr.bench.chart import svg
from pylbr.bench.compare import compare, difference_table, tree_of
from pylbr.bench.contest import Contender, Contest, Row, Setting, measure_row
from pylbr.bench.history import add_run
from pylbr.bench.machine import look
from pylbr.bench.report import as_json, markdown, quantity, short
from pylbr.cli import main
from pylbr.errors import CommandError, UnsupportedFeature

ROOT = Path(__file__).resolve().parent.parent
FEW = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=5)


def plain_p(one, other):
    """The same chance, by every order of the values, from the definition of a rank."""
    values = [*one, *other]
    ranks = [sum(v < w for v in values) + (sum(v == w for v in values) + 1) / 2 for w in values]
    expected = sum(ranks) * len(one) / len(values)
    seen = abs(sum(ranks[:len(one)]) - expected)
    ways = [abs(sum(way) - expected) >= seen - 1e-9
            for way in itertools.combinations(ranks, len(one))]
    return sum(ways) / len(ways)


@given(FEW, FEW)
def test_the_exact_test_is_that_of_its_definition(one, other):
    chance = statistics.permutation_p(one, other)
    assert chance == pytest.approx(plain_p(one, other))
    assert chance == pytest.approx(statistics.permutation_p(other, one))


def test_many_values_are_divided_at_random_and_repeatably():
    one, other = [float(i % 7) for i in range(20)], [float(i % 7) for i in range(20)]
    assert statistics.permutation_p(one, other) > 0.5
    far = [value + 5 for value in one]
    assert statistics.permutation_p(one, far) == statistics.permutation_p(one, far) < 0.001


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.9, 0.5]) == [1.0, 1.0] and statistics.holm([]) == []


def contest(**others):
    return Contest("things", Contender(lambda: 0.5, 10), others)


def result_of(contest, tmp_path):
    return measure_row(Row("area.row", "title", lambda setting: contest), Setting(tmp_path))


def test_a_value_that_a_contender_returns_is_what_is_measured(tmp_path):
    found = result_of(contest(slow=Contender(lambda: 2.0, 10, once=True)), tmp_path)
    ours, slow = found.contenders
    assert set(ours.values) == {20.0} and len(ours.values) >= 3
    assert slow.values == (5.0,) and slow.ratio.median == 4.0
    assert found.unit == "things" and found.row.area == "area"


def test_what_is_missing_is_named_and_never_zero(tmp_path):
    def fails():
        raise UnsupportedFeature("it fails\nhere")

    found = result_of(contest(gone=Contender("no tool (Debian: tool)"), bad=Contender(fails)),
                      tmp_path)
    _, gone, bad = found.contenders
    assert gone.why == "no tool (Debian: tool)" and gone.values == () and gone.spread is None
    assert bad.why == "it fails here" and bad.ratio is None

    def prepare(setting):
        raise UnsupportedFeature("no compiler")

    none = measure_row(Row("area.none", "title", prepare), Setting(tmp_path))
    text = markdown(run_with([found, none]))
    for why in ("no tool (Debian: tool)", "it fails here", "no compiler"):
        assert f"not measured: {why}" in text
    rows = {row["name"]: row for row in as_json(run_with([found, none]))["rows"]}
    assert rows["area.none"]["contenders"] == [
        {"name": "pylbr", "values": [], "not_measured": "no compiler"}]


def test_a_contest_is_closed_whatever_happens(tmp_path):
    closed = []

    def fails():
        raise ValueError("a mistake of ours is not hidden")

    with pytest.raises(ValueError, match="mistake"):
        result_of(Contest("x", Contender(fails), {}, close=[lambda: closed.append(1)]), tmp_path)
    assert closed == [1]


def run_with(rows):
    return suite.Result("1.0", "2026-01-02T03:04:05+00:00", True, look(), list(rows), 1.0)


def test_quantities():
    assert quantity(1.234e9, "branches", "rate") == "1.23 G branches/s"
    assert quantity(0.25, "bit/branch", "size") == "0.25 bit/branch"


def test_the_machine_is_plausible():
    machine = look()
    assert machine.clock is None or 0.2 < machine.clock < 10
    assert 0.1 < machine.copy < 10_000 and 0.1 < machine.copy_cached < 10_000


def test_the_picture_has_a_bar_per_alternative(tmp_path):
    size = Contest("MB", Contender(lambda: 2.0), {"a <large> one": Contender(lambda: 8.0)},
                   kind="size")
    found = [result_of(contest(slow=Contender(lambda: 2.0, 10)), tmp_path),
             result_of(size, tmp_path)]
    root = ET.fromstring(svg(run_with(found)))
    space = "{http://www.w3.org/2000/svg}"
    texts = [node.text for node in root.iter(f"{space}text")]
    assert len(list(root.iter(f"{space}rect"))) == 1 + 2
    assert "area.row / a <large> one" in texts and texts.count("4") == 2  # both 4 times better


def test_large_ratios_are_written_out():
    assert [short(value) for value in (0.03812, 3.158, 67.71, 99.99, 2684.2)] == [
        "0.0381", "3.16", "67.7", "100", "2,684"]


def test_the_history_has_the_form_of_asv(tmp_path):
    size = Contest("MB", Contender(lambda: 2.0), {}, kind="size")
    found = run_with([result_of(contest(), tmp_path), replace(
        result_of(size, tmp_path), row=Row("area.size", "size", None))])
    directory = tmp_path / "results"
    path = add_run(directory, found, "0123456789abcdef" * 2 + "01234567")
    add_run(directory, found, "f" * 40)
    listed = json.loads((directory / "benchmarks.json").read_text())
    assert listed.pop("version") == 2 and set(listed) == {"area.time_row", "area.track_size"}
    run = json.loads(path.read_text())
    assert path.name == "01234567-pylbr.json" and len(list(path.parent.iterdir())) == 3
    measured = dict(zip(run["result_columns"], run["results"]["area.time_row"], strict=False))
    assert measured["result"] == [0.05] and measured["stats_q_25"] == [0.05]
    assert measured["stats_repeat"] == [len(measured["samples"][0])]
    assert run["results"]["area.track_size"][0] == [2.0]
    (directory / "benchmarks.json").write_text("[]")
    with pytest.raises(CommandError, match="is no list of benchmarks"):
        add_run(directory, found, "f" * 40)


def test_rows_have_names_of_their_own_and_patterns_choose(capsys):
    rows = suite.chosen()
    assert len({row.name for row in rows}) == len(rows) > 20
    assert {row.area for row in rows} >= {"core", "msr", "replay", "read", "write", "container",
                                          "profile", "record", "explorer", "unicorn", "linux"}
    assert [row.name for row in suite.chosen(["msr.w*"])] == ["msr.write"]
    assert main(["bench", "nothing"]) == 2 and "no row is named nothing" in capsys.readouterr().err


def test_a_row_by_the_command(tmp_path, capsys):
    assert main(["bench", "msr.write", "--json", "-o", str(tmp_path / "x"),
                 "--history", str(tmp_path / "h")]) == 0
    printed = json.loads(capsys.readouterr().out)
    (row,) = printed["rows"]
    ours, plain = row["contenders"]
    assert ours["spread"]["median"] > 1000 and plain["ratio"]["median"] > 0
    assert json.loads((tmp_path / "x.json").read_text())["rows"] == printed["rows"]
    assert "msr.write" in (tmp_path / "x.md").read_text()
    ET.parse(tmp_path / "x.svg")
    assert len(list((tmp_path / "h").rglob("*-pylbr.json"))) == 1


@pytest.mark.peer
@pytest.mark.parametrize("row", [
    row for row in suite.chosen() if row.area not in ("explorer", "linux")],
    ids=lambda row: row.name)
def test_every_row_does_what_it_measures(row, tmp_path):
    """What fails would be shown as not measured."""
    contest = row.prepare(Setting(tmp_path, quick=True))
    try:
        contest.ours.call()
    finally:
        for close in contest.close:
            close()


def test_the_suite_of_here_measures_the_pylbr_of_a_tree(tmp_path):
    worker = ROOT / "pylbr" / "bench" / "worker.py"
    done = subprocess.run([sys.executable, worker, ROOT, "msr.write", "quick"], cwd=tmp_path,
                          capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["unit"] == "accesses" and min(found["values"]) > 1000
    (tmp_path / "pylbr").mkdir()
    (tmp_path / "pylbr" / "__init__.py").write_text("")
    done = subprocess.run([sys.executable, worker, tmp_path, "msr.write", "quick"], cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    assert done.returncode and "No module named 'pylbr." in done.stderr
    shutil.copytree(ROOT / "pylbr", tmp_path / "pylbr", dirs_exist_ok=True, symlinks=True,
                    ignore=lambda place, names: {"bench", "html", "ready", "__pycache__"})
    done = subprocess.run([sys.executable, worker, tmp_path, "msr.write", "quick"], cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    assert "No module named 'lbrcore'" in json.loads(done.stdout)["why"]  # not that of here


def test_what_another_revision_lacks_is_named():
    assert "has no row" in values_of("no.such", True)["why"]


def fake(before, after):
    """Values of two trees, turn by turn."""
    turns = {"before": iter(before), "after": iter(after)}
    return lambda tree, name, quick: {
        "values": [next(turns[tree.name])], "unit": "things", "kind": "rate"}


@pytest.mark.parametrize(("after", "verdict"), [
    ([130.0, 131, 129, 133, 132, 128], "better"), ([70.0, 71, 69, 73, 72, 68], "worse"),
    ([101.0, 99.5, 100.5, 98, 103, 99], "no difference shown")])
def test_two_trees_differ_where_the_values_do(after, verdict):
    row = Row("area.row", "title", None)
    before = [100.0, 101, 99, 103, 102, 98]
    (found,) = compare([row], Path("before"), Path("after"), True, values_of=fake(before, after))
    assert found.verdict == verdict and found.before == tuple(before)
    assert verdict in str(difference_table([found], "HEAD~1", "this"))


def test_the_chance_is_that_beside_all_rows():
    rows = [Row(f"area.{i}", "title", None) for i in range(30)]
    before, after = [1.0, 2, 3, 4, 5, 6] * 30, [7.0, 8, 9, 10, 11, 12] * 30
    found = compare(rows, Path("before"), Path("after"), True, values_of=fake(before, after))
    assert all(one.chance == pytest.approx(30 * 2 / 924) for one in found)


def test_a_row_that_one_tree_lacks():
    row = Row("area.row", "title", None)
    (found,) = compare([row], Path("before"), Path("after"), True,
                       values_of=lambda tree, name, quick: {"why": "no such row"})
    assert found.verdict == "not measured: no such row (the revision)"


def test_what_to_compare_with_is_a_tree_or_a_revision(tmp_path):
    with tree_of(str(ROOT), tmp_path) as tree:
        assert tree == ROOT
    with pytest.raises(CommandError, match="no checkout of git"), tree_of("HEAD", tmp_path):
        pass
    with pytest.raises(CommandError, match="--compare no-such-revision: "), \
            tree_of("no-such-revision", Path(pylbr.__file__).resolve().parent.parent):
        pass
