"""What a trace did not measure stays unmeasured in every form that is made of it."""

import csv
import itertools
import json
import re

import numpy as np
import pytest

from lbrcore import BRANCH_DTYPE, BranchFlag
from pylbr import trace
from pylbr.cli import main
from pylbr.trace import Metadata, Module, Task, open_stacks
from pylbr.trace.itrace import Itrace
from tests.manual import PERF_CYCLES, PERF_MISPRED, PERF_PREDICTED

MODELS = ("sapphire-rapids", "skylake", "haswell")


@pytest.fixture(scope="module", params=list(itertools.product((False, True), repeat=2)),
                ids=lambda has: f"flags={has[0]:d},cycles={has[1]:d}")
def measured(request, tmp_path_factory):
    """(path, has flags, has cycles) of one program with and without either column."""
    flags, cycles = request.param
    rng = np.random.default_rng(7)
    branches = np.zeros(6000, BRANCH_DTYPE)
    branches["class"] = 2
    branches["from"] = 0x401000 + np.arange(len(branches)) % 97 * 4
    branches["to"] = 0x401000 + rng.integers(0, 97, len(branches)) * 4
    branches["cpl_from"] = branches["cpl_to"] = 3
    branches["cycles"] = 4
    branches["flags"] = np.where(rng.random(len(branches)) < 0.25, int(BranchFlag.MISPRED), 0)
    columns = ["from", "to", "class", *["flags"] * flags, *["cycles"] * cycles]
    path = tmp_path_factory.mktemp("measured") / "program.arrow"
    metadata = Metadata(
        modules=(Module("/bin/prog", 0x401000, 0x1000, 0x1000, ""),), tasks=(Task(1, 1, "p"),))
    with trace.Writer(path, metadata, columns) as writer:
        writer.write(branches)
    return path, flags, cycles


def told(words):
    """(a prediction, cycles) that entries of perf tell."""
    prediction = words & np.uint64(PERF_MISPRED | PERF_PREDICTED)
    return bool(np.any(prediction)), bool(np.any(words & np.uint64(PERF_CYCLES)))


@pytest.mark.parametrize("engine", ["lazy", "architectural"])
@pytest.mark.parametrize("model", MODELS)
def test_entries_tell_what_was_measured(measured, tmp_path, model, engine):
    path, flags, cycles = measured
    out = tmp_path / "out.perf.data"
    assert main(["replay", str(path), "-c", "101", "--cpu", model, "--engine", engine,
                 "-o", str(out)]) == 0
    with open_stacks(out) as stacks:
        words = np.concatenate([r.entries["flags"] for r in stacks if hasattr(r, "entries")])
    assert len(words) > 500
    assert told(words) == (flags, cycles and model != "haswell")


def test_text_and_rows_tell_what_was_measured(measured, tmp_path):
    path, flags, cycles = measured
    text, rows = tmp_path / "out.perfscript", tmp_path / "out.csv"
    for out in (text, rows):
        assert main(["replay", str(path), "-c", "101", "-o", str(out)]) == 0
    entries = re.findall(r"0x[0-9a-f]+/0x[0-9a-f]+/([MP-])/-/-/(\d+)", text.read_text())
    assert {mark for mark, _ in entries} == ({"M", "P"} if flags else {"-"})
    assert any(int(number) for _, number in entries) == cycles
    table = list(csv.DictReader(rows.read_text().splitlines()))
    assert {(row["mispred"], row["predicted"]) for row in table} == (
        {("true", "false"), ("false", "true")} if flags else {("false", "false")})
    assert any(row["cycles"] != "0" for row in table) == cycles


@pytest.mark.parametrize("replayed", [False, True], ids=["trace", "stacks"])
def test_reports_tell_what_was_measured(measured, tmp_path, capsys, replayed):
    path, flags, cycles = measured
    if replayed:
        source, path = path, tmp_path / "out.perf.data"
        assert main(["replay", str(source), "-c", "101", "-o", str(path)]) == 0
    assert main(["report", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["mispredicted"] is not None) == flags
    assert all((edge["mispredicted"] is not None) == flags for edge in found["edges"])
    assert main(["report", str(path), "--by", "runs", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert runs and any(run["cycles"] is not None for run in runs) == cycles


def test_sums_of_a_missing_column_are_not_0(measured, capsys):
    path, flags, cycles = measured
    assert main(["inspect", "--all", "--json", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["instructions"] is None
    assert found["cycles"] == (24_000 if cycles else None)
    assert (found["mispredicted"] or 0) > 1000 if flags else found["mispredicted"] is None
    assert main(["inspect", "--all", str(path)]) == 0
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()
                   if len(line.split()) == 2)
    assert printed["instructions"] == "n/a"
    assert (printed["cycles"] == "n/a") == (not cycles)
    assert (printed["mispredicted"] == "n/a") == (not flags)


LINE = "app 10/10 [000] 1.{:09d}: branches:u: {} 401000 a (/bin/x) => 401010 b (/bin/x) {}\n"


@pytest.mark.parametrize(("marks", "tail", "columns"), [
    ("jcc", "", set()), ("jcc/miss/", "", {"flags"}), ("br miss", "", {"flags"}),
    ("jcc (x)", "", {"flags"}), ("jcc (D)", "", set()), ("jcc/not_taken/", "", set()),
    ("jcc", "IPC: 1.00 (4/4)", {"cycles", "instructions"}),
    ("jcc/miss/", "IPC: 1.00 (4/4)", {"flags", "cycles", "instructions"}),
])
def test_text_of_perf_has_the_columns_that_a_line_fills(tmp_path, marks, tail, columns):
    """The line stands behind many that fill none, as the first miss of a program does."""
    path = tmp_path / "pt.txt"
    plain = "".join(LINE.format(i, "jcc", "") for i in range(20_000))
    path.write_text(plain + LINE.format(20_000, marks, tail))
    with Itrace(path) as source:
        assert set(source.columns) & {"flags", "cycles", "instructions"} == columns
