"""``pylbr convert`` and ``pylbr inspect``, as a user calls them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pylbr import trace
from pylbr.cli import main
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.stacks import Comm, Event, StacksMetadata
from tests.conftest import heed_interrupts

DRMEMTRACE = "drmemtrace.simple_app.trace.zip"


def branches_of(path):
    with trace.open(path) as source:
        return np.concatenate([chunk.branches for chunk in source.chunks()])


def test_convert_through_every_container(shared, tmp_path, capsys):
    source = shared(DRMEMTRACE)
    previous = source
    for name in ("a.arrow", "b.parquet", "c.csv", "d.arrow"):
        assert main(["convert", str(previous), "-o", str(tmp_path / name)]) == 0
        previous = tmp_path / name
    original = branches_of(source)
    assert len(original) == 29_406
    for name in ("a.arrow", "b.parquet", "c.csv", "d.arrow"):
        assert np.array_equal(branches_of(tmp_path / name), original), name
    assert (tmp_path / "a.arrow").read_bytes() != (tmp_path / "d.arrow").read_bytes()
    folder = tmp_path / "e.parquet"
    assert main(["convert", str(source), "-o", str(folder), "--rows-per-file", "10000"]) == 0
    assert len(list(folder.iterdir())) == 3
    assert np.array_equal(branches_of(folder), original)
    assert capsys.readouterr() == ("", "")


def test_inspect(shared, tmp_path, capsys):
    assert main(["inspect", "--all", "--json", str(shared(DRMEMTRACE))]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["branches"], found["instructions"]) == (29_406, 136_049)
    assert found["classes"]["NEAR_RET"] == 880 and found["task_ids"] == [1438993]
    assert main(["inspect", str(shared("perf.data.branch-4.14"))]) == 0
    text = capsys.readouterr().out
    assert "13 of depth 32" in text and "m7-6Y75" in text and "5805  echo" in text


@pytest.mark.peer
@pytest.mark.parametrize("name", ["perf.data.branch-4.14", "perf.data.raw_callgraph_branch-3.4"])
def test_perf_prints_the_same_of_a_rewritten_file(shared, tmp_path, name):
    if shutil.which("perf") is None:
        assert os.environ.get("CI") != "true", "perf is not installed"
        pytest.skip("perf is not installed")
    rewritten = tmp_path / "again.perf.data"
    assert main(["convert", str(shared(name)), "-o", str(rewritten)]) == 0

    def script(path):
        command = ["perf", "script", "-f", "-F", "tid,pid,time,event,brstack", "-i", str(path)]
        return subprocess.run(command, capture_output=True, check=True).stdout

    original = script(shared(name))
    assert original.count(b"0x") > 400
    assert script(rewritten) == original


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "{d}/absent", "-o", "{d}/o.arrow"], "absent: cannot be read: No such file"),
        (["convert", "{d}/empty", "-o", "{d}/o.arrow"], "empty, offset 0x0: is empty"),
        (["convert", "{d}/text", "-o", "{d}/o.arrow"], "is of no known format"),
        (["convert", "{d}/t.csv", "-o", "{d}/o.txt"],
         "written as one of .arrow, .parquet, .lbrt, .csv"),
        (["convert", "{d}/t.csv", "-o", "{d}/o.preagg"], "pylbr replay makes them"),
        (["convert", "{d}/t.csv", "-o", "{d}/t.csv"], "is the file that is read"),
        (["convert", "{d}/t.csv", "-o", "{d}/no/o.arrow"], "cannot be written: No such file"),
        (["convert", "{d}/t.csv", "--from", "xml", "-o", "{d}/o.arrow"], "no format 'xml'"),
        (["convert", "{d}/unclassed.csv", "-o", "{d}/o.arrow"],
         "branch 0 has no class, and at its FROM 0x10 no module is mapped"),
        (["convert", "{d}/t.csv", "--module", "{d}/text", "-o", "{d}/o.arrow"], "is no ELF file"),
        (["convert", "{d}/bad.csv", "-o", "{d}/o.arrow"], "line 2: class 'JUMP' is no number"),
        (["inspect", "{d}/absent"], "cannot be read"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, capsys, arguments, message):
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "t.csv").write_text("from,to,class\n0x10,0x20,COND\n")
    (tmp_path / "bad.csv").write_text("from,to,class\n0x10,0x20,JUMP\n")
    (tmp_path / "unclassed.csv").write_text("from,to\n0x10,0x20\n")
    before = sorted(tmp_path.iterdir())
    assert main([word.format(d=tmp_path) for word in arguments]) == 2
    out, error = capsys.readouterr()
    assert message in error and error.count("\n") == 1 and out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_read_only_target(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("from,to,class\n0x10,0x20,COND\n")
    # Not even root writes to /proc.
    assert main(["convert", str(tmp_path / "t.csv"), "-o", "/proc/o.arrow"]) == 2
    assert "/proc/o.arrow: cannot be written" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "options"), [
    (".arrow", []), (".parquet", []), (".csv", []), (".parquet", ["--rows-per-file", "50000"]),
    (".parquet", ["--rows-per-file", "100000"]),
])
def test_full_disk(tmp_path, suffix, options):
    """A file size limit makes every write beyond it fail, as a full disk does."""
    rows = "".join(f"{i:#x},{i * 7919:#x},COND,{i}\n" for i in range(60_000))
    (tmp_path / "t.csv").write_text("from,to,class,cycles\n" + rows)
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));"
        "from pylbr.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    target = tmp_path / f"o{suffix}"
    done = subprocess.run(
        [sys.executable, "-c", code, "convert", str(tmp_path / "t.csv"), "-o", str(target),
         *options], capture_output=True, text=True, check=False,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"{target}: cannot be written: File too large; nothing was left there" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_interrupt_at_once(monkeypatch, capsys):
    """While the modules of the command are loaded."""
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pylbr.cli.parser_of", interrupted)
    assert main(["inspect", "x"]) == 130
    assert capsys.readouterr().err == "pylbr inspect: interrupted\n"


@pytest.mark.slow
def test_interrupt(tmp_path):
    rows = "".join(f"{i:#x},{i * 7919:#x},COND,{i}\n" for i in range(2_000_000))
    (tmp_path / "t.csv").write_text("from,to,class,cycles\n" + rows)
    target = tmp_path / "o.arrow"
    process = subprocess.Popen(
        [sys.executable, "-m", "pylbr", "convert", str(tmp_path / "t.csv"), "-o", str(target)],
        stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts,
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".o.arrow.*.part")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted after" in error and "was not written" in error
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_stacks_stay_stacks(shared, tmp_path, capsys):
    """Through text and back, and as tables and counts."""
    source = shared("perf.data.branch-4.14")

    def stacks_of(path):
        with trace.open_stacks(path) as stacks:
            batches = list(stacks.samples())
        return [batch.stack(i).tolist() for batch in batches for i in range(len(batch))]

    for name in ("a.perfscript", "b.perf.data", "c.csv"):
        assert main(["convert", str(source), "-o", str(tmp_path / name)]) == 0, name
    assert len(stacks_of(source)) == 13
    assert stacks_of(tmp_path / "a.perfscript") == stacks_of(source)
    assert stacks_of(tmp_path / "b.perf.data") == stacks_of(source)
    rows = (tmp_path / "c.csv").read_text().splitlines()
    assert rows[0].startswith("sample,position,from,to") and len(rows) == 417
    assert capsys.readouterr() == ("", "")
    assert main(["convert", str(tmp_path / "c.csv"), "-o", str(tmp_path / "f.arrow")]) == 2
    assert main(["convert", str(source), "-o", str(tmp_path / "f.arrow")]) == 2
    assert "a file of stacks is written as one of" in capsys.readouterr().err
    assert main(["convert", str(source), "-o", str(tmp_path / "g.preagg")]) == 2
    assert "name it with --binary" in capsys.readouterr().err
    for name in ("d.preagg", "e.afdo.txt"):
        arguments = ["convert", str(source), "-o", str(tmp_path / name), "--binary", sys.executable]
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert f"{sys.executable}: was not recorded" in error and "[kernel.kallsyms]" in error
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "f" * 5000])
def test_an_absurd_number_in_csv_is_one_line(number, tmp_path, capsys):
    path = tmp_path / "t.csv"
    path.write_text(f"from,to,class\n{number},1,0\n")
    assert main(["convert", str(path), "-o", str(tmp_path / "t.arrow")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "line 2: from" in error and len(error) < 300


def test_a_module_with_nul_in_its_name_is_refused(tmp_path, capsys):
    path = tmp_path / "t.txt"
    path.write_text(
        " prog  7/8 [001] 1.000000001: PERF_RECORD_MMAP2 7/8: "
        "[0x400000(0x1000) @ 0x1000 08:01 5 6]: r-xp /bin/p\0rog\n"
        " prog  8 [001] 1.000000103: 1 branches:uH:   400005 main (x) => 400000 m (x)\n")
    assert main(["convert", "--from", "itrace", str(path), "-o", str(tmp_path / "t.csv")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "line 1: is no event as perf prints it" in error


@pytest.mark.parametrize("name", ["x.arrow", "x.parquet", "x.csv"])
def test_a_conversion_of_nothing_is_an_error_and_leaves_nothing(tmp_path, capsys, name):
    source = tmp_path / "empty.csv"
    source.write_text("from,to,class\n")
    assert main(["convert", str(source), "-o", str(tmp_path / name)]) == 2
    assert "holds no branches: nothing to convert" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["empty.csv"]


@pytest.mark.parametrize("name", ["x.perf.data", "x.perfscript", "x.csv"])
def test_stacks_without_a_sample_are_an_error_too(tmp_path, capsys, name):
    source = tmp_path / "empty.perf.data"
    metadata = StacksMetadata(events=(Event(name="branches:u"),))
    write_perf_data(source, (metadata, [Comm(7, 7, "program", True)]))
    assert main(["convert", str(source), "-o", str(tmp_path / name)]) == 2
    assert "holds no samples: nothing to convert" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["empty.perf.data"]
