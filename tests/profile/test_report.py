"""``pylbr report``, and the counts over a whole trace that it prints."""

import csv
import io
import json
import re
from collections import Counter

import numpy as np
import pytest

import pylbr.perf._entries as some_module
from lbrcore import BRANCH_DTYPE, BranchClass, BranchFlag
from pylbr.cli import main
from pylbr.files.elf import ElfImage
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, entry_flags
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.stacks import Event, Mmap, Samples, StacksMetadata
from pylbr.profile.history import Paths
from pylbr.profile.report_text import table_of
from pylbr.profile.whole import collect_trace
from pylbr.trace import Metadata, Module, Part, StreamTrace, Task, Writer

LIBRARY = some_module.__file__
BASE = 0x7F00_0000_0000
PID = 9


@pytest.fixture(scope="module")
def start():
    """Address of a function of a mapped library."""
    return BASE + ElfImage(LIBRARY).functions()["PyInit__entries"][0]


@pytest.fixture(scope="module")
def stacks(tmp_path_factory, start):
    """Three samples, two of them by the same way."""
    path = tmp_path_factory.mktemp("report") / "x.perf.data"
    hit, missed = (entry_flags(predicted=True, cycles=20), entry_flags(mispredicted=True))
    way = [(start + 8, start, hit), (start + 4, start + 6, missed), (start + 2, start + 4, hit)]
    other = [(start + 8, start, missed), (0x10, start + 8, hit)]
    entries = np.array(way * 2 + other, BRANCH_ENTRY_DTYPE)
    samples = Samples.build(np.array([0, 3, 6, 8]), entries, ip=start, pid=PID, tid=PID)
    maps = [Mmap(PID, PID, BASE + vaddr, size, offset, LIBRARY)
            for offset, size, vaddr, _ in ElfImage(LIBRARY).segments]  # fmt: skip
    metadata = StacksMetadata(events=(Event(name="branches:u", branch_sample_type=9),))
    write_perf_data(path, (metadata, [*maps, samples]))
    return path


def report(capsys, *words):
    assert main(["report", *map(str, words)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_edges_as_text(stacks, capsys):
    lines = report(capsys, stacks, "-n", "1").splitlines()
    assert lines[0] == f"{stacks}: 8 branches in 3 samples, 4 distinct, 37.5% mispredicted"
    assert lines[3].split() == ["share", "count", "missed", "mispredicted", "from", "to"]
    assert lines[4].startswith("37.50%      3  33.33%             1  PyInit__entries+0x8 (")
    assert len(lines) == 5


def test_edges_as_json_and_csv_hold_the_same(stacks, start, capsys):
    found = json.loads(report(capsys, stacks, "--json"))
    assert (found["samples"], found["branches"], found["mispredicted"]) == (3, 8, 3)
    assert found["edges"][0]["from"] == hex(start + 8)
    assert found["edges"][0]["to_symbol"].startswith("PyInit__entries (")
    assert found["edges"][-1]["from_symbol"] == "0x10"
    rows = list(csv.DictReader(io.StringIO(report(capsys, stacks, "--csv"))))
    assert [{k: str(v) for k, v in row.items()} for row in found["edges"]] == rows


def test_functions_mispredicts_and_runs(stacks, start, capsys):
    function = json.loads(report(capsys, stacks, "--by", "functions", "--json"))["functions"][0]
    assert function["function"] == "PyInit__entries" and function["file"] == LIBRARY
    assert (function["branches"], function["entered"], function["samples"]) == (7, 3, 3)
    worst = json.loads(report(capsys, stacks, "--by", "mispredicts", "--json"))["mispredicts"]
    assert [(row["branch"], row["mispredicted"], row["count"]) for row in worst] == [
        (hex(start + 4), 2, 2), (hex(start + 8), 1, 3),
    ]  # fmt: skip
    runs = json.loads(report(capsys, stacks, "--by", "runs", "--json"))["runs"]
    assert (runs[0]["first"], runs[0]["last"]) == (hex(start + 6), hex(start + 8))
    assert (runs[0]["cycles"], runs[0]["mean_cycles"], runs[0]["share"]) == (40, 20.0, 1.0)
    for view in ("functions", "mispredicts", "runs"):
        assert "PyInit__entries" in report(capsys, stacks, "--by", view)


def test_history(stacks, start, capsys):
    found = json.loads(report(capsys, stacks, "--by", "history", "--length", "3", "--json"))
    (row,) = found["history"]
    assert row["count"] == 2 and row["share"] == 1.0
    assert [step["from"] for step in row["path"]] == [hex(start + at) for at in (8, 4, 2)]
    text = report(capsys, stacks, "--by", "history", "--length", "2").splitlines()
    assert text[3] == " 66.67%  2 samples" and text[4].split()[0] == "PyInit__entries+0x8"
    rows = list(csv.DictReader(io.StringIO(
        report(capsys, stacks, "--by", "history", "--length", "2", "--csv")
    )))  # fmt: skip
    assert [row["position"] for row in rows] == ["0", "1", "0", "1"]
    assert "none" in report(capsys, stacks, "--by", "history", "--length", "9")


@pytest.fixture(scope="module")
def unmeasured(tmp_path_factory, start):
    """Stacks without cycles and without a word on prediction; empty and not-taken entries."""
    path = tmp_path_factory.mktemp("report") / "x.perf.data"
    not_taken = entry_flags(not_taken=True)
    entries = np.array([
        (start + 8, start, 0), (start + 4, start + 6, not_taken), (start + 9, start, 0), (0, 0, 0),
    ], BRANCH_ENTRY_DTYPE)  # fmt: skip
    metadata = StacksMetadata(events=(Event(name="branches:u", branch_sample_type=9),))
    write_perf_data(path, (metadata, [
        Samples.build(np.array([0, 4]), entries, ip=start, pid=PID, tid=PID, time=7)
    ]))  # fmt: skip
    return path


def test_what_was_not_measured_is_no_zero(unmeasured, start, capsys):
    found = json.loads(report(capsys, unmeasured, "--json"))
    assert (found["branches"], found["not_taken"], found["mispredicted"]) == (2, 1, None)
    assert found["edges"][0]["mispredict_rate"] is found["edges"][0]["mispredicted"] is None
    (run,) = json.loads(report(capsys, unmeasured, "--by", "runs", "--json"))["runs"]
    assert (run["first"], run["last"]) == (hex(start), hex(start + 8))
    assert run["cycles"] is run["mean_cycles"] is None and run["count"] == 1
    functions = json.loads(report(capsys, unmeasured, "--by", "functions", "--json"))
    assert functions["ordered_by"] == "branches"
    assert functions["functions"][0]["cycles"] is None
    assert functions["functions"][0]["branches"] == 2
    head, views, _, _, row, *_ = report(capsys, unmeasured, "--by", "runs").splitlines()
    assert head.endswith("2 branches in 1 samples, 2 distinct; 1 not taken, which are left out")
    assert views == "code between two branches, by count (no cycles were recorded):"
    assert row.split()[:4] == ["100.00%", "1", "n/a", "n/a"]
    assert "n/a" in report(capsys, unmeasured, "--csv")
    (way,) = json.loads(report(capsys, unmeasured, "--by", "history", "--length", "2", "--json"))[
        "history"
    ]
    assert [step["from"] for step in way["path"]] == [hex(start + 8), hex(start + 9)]
    assert main(["report", str(unmeasured), "--by", "mispredicts"]) == 2
    assert "mispredicts were not recorded" in capsys.readouterr().err


def test_code_without_a_symbol_is_named_so_in_tables_alone():
    row = {"share": 1.0, "function": "", "file": "", "caller": "", "caller_file": "/bin/x"}
    assert list(table_of([row]).rows[0])[1:] == [
        "[no symbol]", "[not mapped]", "[no symbol]", "/bin/x"]
    assert row["function"] == ""


def test_a_form_of_one_binary_names_the_likely_one(stacks, tmp_path, capsys):
    assert main(["convert", str(stacks), "-o", str(tmp_path / "x.folded")]) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"name it with --binary ELF, such as {LIBRARY} (88% of the branches)\n")


@pytest.mark.parametrize("view", ["edges", "functions", "history"])
def test_a_terminal_is_not_wide_enough_for_every_name(stacks, view, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "64")
    lines = report(capsys, stacks, "--by", view, "--length", "2").splitlines()[3:]
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in lines]
    assert any("\u2026" in line for line in lines) and max(map(len, lines)) <= 96
    if view != "functions":  # whose numbers alone have no room
        assert max(map(len, lines)) <= 64
    monkeypatch.setenv("COLUMNS", "400")
    assert "\u2026" not in report(capsys, stacks, "--by", view)


def test_paths_need_a_length():
    with pytest.raises(ValueError, match="at least one"):
        Paths(0)


@pytest.fixture
def branches():
    """Random branches, and their tasks."""
    random = np.random.default_rng(5)
    n = 5000
    branches = np.zeros(n, BRANCH_DTYPE)
    branches["from"] = random.integers(0x1000, 0x1020, n)
    branches["to"] = random.integers(0x1000, 0x1020, n)
    branches["class"] = random.integers(0, 8, n)
    branches["cycles"] = random.integers(0, 40_000, n)
    branches["flags"] = random.integers(0, 2, n) * BranchFlag.MISPRED
    return branches, random.integers(7, 9, n).astype("u4")


METADATA = Metadata(
    modules=(Module("/no/file", 0x1000, 0x1000),), tasks=(Task(7, 70), Task(8, 80))
)


def test_a_trace_is_counted_branch_by_branch(branches):
    branches, tasks = branches
    cuts = [*range(0, 5000, 700), *range(4900, 5000, 3), 5000]
    parts = [Part(branches[a:b], tasks[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
    columns = [*BRANCH_DTYPE.names, "task"]
    source = StreamTrace("test", METADATA, columns, lambda: iter(parts))
    edges, runs, broken, newest = Counter(), Counter(), 0, {}
    cycles = Counter()
    since = 0
    for branch, task in zip(branches, tasks.tolist(), strict=True):
        since += int(branch["cycles"])
        if branch["class"] in (BranchClass.NOT_TAKEN, BranchClass.ZERO_CALL):
            continue
        pid, first, last = task * 10, int(branch["from"]), int(branch["to"])
        edges[first, last, pid] += 1
        if task in newest and newest[task] <= first:
            runs[newest[task], first, pid] += 1
            cycles[newest[task], first, pid] += min(since, 0xFFFF)
        elif task in newest:
            broken += 1
        newest[task], since = last, 0
    profile = collect_trace(source)
    assert profile.broken == broken and profile.samples == 0
    assert {(e["first"], e["last"], e["pid"]): e["count"] for e in profile.edges} == edges
    assert {(r["first"], r["last"], r["pid"]): r["count"] for r in profile.runs} == runs
    assert {(r["first"], r["last"], r["pid"]): r["cycles"] for r in profile.runs} == cycles
    assert profile.spaces.find(70, 0x1010).path == "/no/file"


@pytest.fixture
def trace(branches, tmp_path):
    with Writer(tmp_path / "x.arrow", METADATA, columns=[*BRANCH_DTYPE.names, "task"]) as writer:
        writer.write(branches[0], task=branches[1])
    return tmp_path / "x.arrow"


def test_a_trace_is_reported_too(trace, capsys):
    assert main(["report", str(trace), "-n", "30"]) == 0
    captured = capsys.readouterr()
    head, _, _, heading, row, *_ = captured.out.splitlines()
    assert " branches, " in head and "samples" not in head
    assert heading.split()[:5] == ["share", "count", "missed", "mispredicted", "pid"]
    assert row.split()[4] in ("70", "80") and "file+0x" in row
    assert captured.err == (
        "pylbr report: /no/file: No such file or directory: no function names from it\n"
    )


def test_mistakes_are_one_line(stacks, trace, tmp_path, capsys):
    for words, message in (
        ([stacks, "-n", "0"], "--limit and --length take a number from 1 up"),
        ([trace, "--by", "history"], "a trace has no samples"),
        ([tmp_path / "missing"], "missing"),
    ):  # fmt: skip
        assert main(["report", *map(str, words)]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and message in captured.err
        assert captured.err.count("\n") == 1
