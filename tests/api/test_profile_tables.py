"""`pylbr.profile_of`: the tables that ``pylbr report`` shows, for programs and notebooks."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas
import pytest

import pylbr
import pylbr.perf._entries as some_module
from pylbr.cli import main
from pylbr.errors import CommandError, LbrError, TraceError
from pylbr.files.elf import ElfImage
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, entry_flags
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.stacks import Event, Mmap, Samples, StacksMetadata
from pylbr.profile import report
from pylbr.tables import Table

ROOT = Path(__file__).resolve().parents[2]
TRACE = ROOT / "examples" / "gzip.parquet"
LIBRARY = some_module.__file__
BASE, PID = 0x7F00_0000_0000, 9


def write(path, *, flags=None, library=LIBRARY):
    """Fifty samples of a mapped library, with predictions and cycles unless `flags` is given."""
    start = BASE + ElfImage(LIBRARY).functions()["PyInit__entries"][0]
    hit, missed = (flags, flags) if flags is not None else (
        entry_flags(predicted=True, cycles=20), entry_flags(mispredicted=True))
    entries = np.empty(150, BRANCH_ENTRY_DTYPE)
    entries["from"] = start + 8 + np.arange(150) % 40
    entries["to"] = start + np.arange(150) % 7
    entries["flags"] = np.where(np.arange(150) % 3 == 0, np.uint64(missed), np.uint64(hit))
    samples = Samples.build(np.arange(0, 151, 3), entries, ip=start, pid=PID, tid=PID)
    maps = [Mmap(PID, PID, BASE + vaddr, size, offset, library)
            for offset, size, vaddr, _ in ElfImage(LIBRARY).segments]
    metadata = StacksMetadata(events=(Event(name="branches:u", branch_sample_type=9),))
    write_perf_data(path, (metadata, [*maps, samples]))
    return str(path)


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    return write(tmp_path_factory.mktemp("api") / "x.perf.data")


def reported(capsys, path, view, *words):
    assert main(["report", path, "--by", view, "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)[view]


# The library has no source lines: tests/profile/test_code.py has some.
@pytest.mark.parametrize("view", [view for view in report.VIEWS if view != "lines"])
def test_a_table_is_what_report_prints(stacks, view, capsys):
    profile = pylbr.profile_of(stacks, history=2)
    every = reported(capsys, stacks, view, "-n", "1000", "--length", "2")
    table = profile.to_arrow(view)
    assert every and table.to_pylist() == every
    assert tuple(table.column_names) == report.COLUMNS[view] == tuple(every[0])
    assert profile.to_polars(view).to_dicts() == every
    frame = profile.to_pandas(view)
    assert list(frame.columns) == list(every[0]) and len(frame) == len(every)
    for name in frame.columns.drop("path", errors="ignore"):
        shown = [None if cell is pandas.NA else cell for cell in frame[name].tolist()]
        assert shown == [row[name] for row in every]
    usual = reported(capsys, stacks, view, "--length", "2")
    assert profile.to_arrow(view, limit=20).to_pylist() == usual


@pytest.mark.parametrize("view", ["edges", "functions", "runs"])
def test_a_trace_has_the_same_tables(view, capsys):
    profile = pylbr.profile_of(TRACE)
    table = profile.to_arrow(view, 50).to_pylist()
    assert table == reported(capsys, str(TRACE), view, "-n", "50") and len(table) == 50


@pytest.mark.parametrize("view", ["edges", "functions", "history"])
def test_several_files_are_added_up_as_report_does(stacks, tmp_path, view, capsys):
    other = write(tmp_path / "other.perf.data", flags=entry_flags(predicted=True, cycles=3))
    total = pylbr.profile_of([stacks, Path(other)], history=2)
    assert total.samples == 100 and repr(total).startswith("2 inputs: 300 branches")
    words = [stacks, other, "--by", view, "--json", "-n", "1000", "--length", "2"]
    assert main(["report", *words]) == 0
    every = json.loads(capsys.readouterr().out)[view]
    assert every and total.to_arrow(view).to_pylist() == every
    with pytest.raises(CommandError, match="at least one file"):
        pylbr.profile_of([])


def test_what_was_not_measured_is_null_and_no_zero(tmp_path, capsys):
    path = write(tmp_path / "bare.perf.data", flags=0)
    profile = pylbr.profile_of(path)
    for view, columns in (("edges", ["mispredicted", "mispredict_rate"]),
                          ("functions", ["cycles", "mispredicted"]), ("runs", ["mean_cycles"])):
        table, frame = profile.to_arrow(view), profile.to_pandas(view)
        for name in columns:
            assert table[name].null_count == len(table) > 0
            assert frame[name].isna().all() and frame[name].dtype in (
                pandas.Int64Dtype(), pandas.Float64Dtype())
        assert table.to_pylist() == reported(capsys, path, view, "-n", "1000")
    with pytest.raises(CommandError, match="mispredicts were not recorded"):
        profile.to_arrow("mispredicts")


def test_a_view_without_rows_keeps_its_columns(tmp_path):
    path = write(tmp_path / "hits.perf.data", flags=entry_flags(predicted=True))
    table = pylbr.profile_of(path).to_arrow("mispredicts")
    assert not len(table) and tuple(table.column_names) == report.COLUMNS["mispredicts"]


def test_errors_name_what_to_do(stacks, tmp_path):
    profile = pylbr.profile_of(stacks)
    with pytest.raises(CommandError, match="there are callers, edges, functions, history"):
        profile.to_pandas("sources")
    with pytest.raises(CommandError, match="no source lines: .* -g"):
        profile.to_pandas("lines")
    with pytest.raises(CommandError, match="history=N"):
        profile.to_pandas("history")
    with pytest.raises(CommandError, match="from 1 up"):
        profile.rows(limit=0)
    with pytest.raises(CommandError, match="pylbr replay"):
        pylbr.profile_of(TRACE, history=3)
    with pytest.raises(TraceError, match="no such file|No such file"):
        pylbr.profile_of(tmp_path / "missing")


def test_a_missing_library_is_named(stacks, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(LbrError, match=r"pip install 'pylbr\[polars\]'"):
        pylbr.profile_of(stacks).to_polars()


class Cells(HTMLParser):
    """The cells of each row; fails for tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_a_profile_shows_its_first_lines(stacks):
    profile = pylbr.profile_of(stacks)
    lines = repr(profile).splitlines()
    assert lines[0].startswith(f"{stacks}: 150 branches in 50 samples, ")
    assert lines[1] == "taken branches, by count (the first 10):"
    assert len(lines) == 3 + 11 and "PyInit__entries" in lines[4]
    rows = Cells(profile._repr_html_()).rows
    assert [" ".join(row).split() for row in rows] == [line.split() for line in lines[3:]]


def test_what_a_file_holds_is_escaped(tmp_path):
    path = tmp_path / "<i>x.perf.data"
    shown = pylbr.profile_of(write(path, library="/<script>alert(1)\x1b[2J"))
    text = shown._repr_html_()
    assert not re.search("<script|<i>|\x1b", text) and "&lt;script&gt;" in text
    assert any("<script>" in cell for row in Cells(text).rows for cell in row)
    assert "\x1b" not in repr(shown)
    assert Cells(Table([["<a>", "1"]], ["&", "n"])._repr_html_()).rows == [["&", "n"], ["<a>", "1"]]


def test_names_that_are_no_utf8(tmp_path):
    path = write(tmp_path / "x.perf.data", library="/x\udce9-\u00e9")
    names = pylbr.profile_of(path).to_arrow("functions")["file"].to_pylist()
    assert names == ["/x\\xe9-\u00e9"]


def test_importing_loads_nothing_and_names_are_found():
    code = ("import sys, pylbr;"
            "assert not {'numpy', 'pyarrow', 'lbrcore', 'rich'} & set(sys.modules);"
            "assert set(pylbr.__all__) <= set(dir(pylbr));"
            "print(*[getattr(pylbr, name).__module__ for name in pylbr.__all__ if name[0] != '_'])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "pylbr.api" in done.stdout, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        getattr(pylbr, "missing")  # noqa: B009


def test_a_users_program_is_typed_and_runs(stacks):
    program = ROOT / "tests" / "api" / "user_program.py"
    ran = subprocess.run([sys.executable, program, stacks], capture_output=True, text=True,
                         cwd=ROOT)
    assert ran.stdout.split()[0] == pylbr.__version__ and ran.stdout.split()[3:] == ["50", "32"], (
        ran.stderr)


@pytest.mark.slow  # mypy reads what pylbr imports: 7 s
def test_mypy_is_strict_about_a_users_program(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import pylbr\nname: str = pylbr.profile_of('x').samples\n"
                     "pylbr.open(3)\npylbr.profile_of('x').rows(by='edges')\npylbr.missing\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent",
         "--cache-dir", tmp_path / "cache", wrong, ROOT / "tests" / "api" / "user_program.py"],
        capture_output=True, text=True, cwd=ROOT)
    faults = re.findall(r"^(\S+?\.py):(\d+): error:.*\[(.*)\]$", done.stdout, re.M)
    assert [(Path(name).name, line) for name, line, _ in faults] == [
        ("wrong.py", line) for line in "2345"], done.stdout + done.stderr
