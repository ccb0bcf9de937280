"""ChampSim traces that are written: what can be known of them comes back."""

import os

import numpy as np
import pytest

from lbrcore import BRANCH_DTYPE
from lbrcore import BranchClass as C
from pylbr import trace
from pylbr.cli import main
from pylbr.trace import champsim_writer
from pylbr.trace.champsim_layout import RECORD
from tests.trace.test_lbrt import program

NAMES = ("from", "to", "class", "instructions", "task")


def walk(count):
    """Branches whose next one lies where they lead to, of every class."""
    rng = np.random.default_rng(7)
    rows = np.zeros(count, BRANCH_DTYPE)
    rows["class"] = rng.integers(0, 16, count)
    rows["instructions"] = rng.integers(2, 9, count)
    rows["to"] = 0x400000 + 64 * rng.integers(1, 500, count)
    rows["from"][0] = 0x400000
    rows["from"][1:] = rows["to"][:-1] + 4 * (rows["instructions"][1:] - 1)
    rows["cpl_from"] = rows["cpl_to"] = 3
    return rows


def write(path, rows, columns=NAMES, **extra):
    with trace.LbrtWriter(path, None, columns) as out:
        out.write(rows, **extra)
    return str(path)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("block", [1, 7, 1 << 14])
def test_branches_come_back(tmp_path, monkeypatch, capsys, suffix, block):
    monkeypatch.setattr(champsim_writer, "_ROWS", block)
    rows = walk(900)
    path = str(tmp_path / f"t.champsimtrace{suffix}")
    assert main(["convert", write(tmp_path / "t.lbrt", rows, task=3), "-o", path]) == 0
    assert "made-up addresses and no registers" in capsys.readouterr().err
    with trace.open(path, format="champsim") as source:
        found = np.concatenate([chunk.branches for chunk in source.chunks()])
    assert np.array_equal(found["from"], rows["from"])
    assert np.array_equal(found["to"], rows["to"])
    assert np.array_equal(found["instructions"][1:], rows["instructions"][1:])
    expected = rows["class"].copy()
    expected[expected == C.ZERO_CALL] = C.NEAR_REL_CALL
    expected[expected >= C.FAR_BRANCH] = C.FAR_BRANCH
    assert np.array_equal(found["class"], expected)


def test_instructions_between_branches_are_spread_evenly(tmp_path):
    rows = np.zeros(2, BRANCH_DTYPE)
    rows["from"], rows["to"] = [0x1000, 0x2009], [0x2000, 0x3000]
    rows["instructions"] = [1, 4]
    path = tmp_path / "t.champsimtrace"
    assert main(["convert", write(tmp_path / "t.lbrt", rows), "-o", str(path)]) == 0
    records = np.frombuffer(path.read_bytes(), RECORD)
    assert [hex(ip) for ip in records["ip"].tolist()] == [
        "0x1000", "0x2000", "0x2003", "0x2006", "0x2009", "0x3000"]
    assert records["is_branch"].tolist() == [1, 0, 0, 0, 1, 0]


def test_what_cannot_be_written(tmp_path, capsys):
    """Several threads, no instructions, nothing at all: a line, and no file."""
    rows, path = program(3, 100), str(tmp_path / "t.champsimtrace.xz")
    several = write(tmp_path / "a.lbrt", rows, task=np.arange(100, dtype=np.uint32) % 2)
    without = write(tmp_path / "b.lbrt", rows, ("from", "to", "class"))
    empty = write(tmp_path / "c.lbrt", rows[:0])
    for source, said in ((several, "several threads"), (without, "no column instructions"),
                         (empty, "no branches")):
        assert main(["convert", source, "-o", path]) != 0
        assert said in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["a.lbrt", "b.lbrt", "c.lbrt"]
