"""Full traces: how large they become, and what ends them early."""

import os
import re
import signal

import numpy as np
import pytest

from pylbr import trace
from pylbr.cli import main
from pylbr.record import trace_output as output_module
from pylbr.record.spool import Spool
from pylbr.record.tasks import Task
from pylbr.record.trace_output import TraceOutput

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def program(build):
    return build("layout.c", "-static", output="layout-static")


def columns(path):
    with trace.open(path) as source:
        chunks = [[np.asarray(chunk.column(name)) for name in ("from", "to")]
                  for chunk in source.chunks()]
    return np.concatenate([np.stack(chunk) for chunk in chunks], axis=1)


def test_default_is_the_compact_container(qemu, program, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["record", "--full", "--", str(program), "20000"]) == 0
    assert os.listdir(tmp_path) == ["trace.parquet"]
    rows = columns("trace.parquet").shape[1]
    assert rows > 100_000 and os.path.getsize("trace.parquet") < rows
    assert f"{rows:,} branches in trace.parquet" in capfd.readouterr().err


@pytest.mark.parametrize(("name", "size", "least"), [
    ("x.parquet", "100K", 10_000), ("x.parquet", "1M", 262_144), ("x.arrow", "4M", 100_000),
])
def test_size_is_limited(qemu, program, tmp_path, capfd, name, size, least):
    """The file is no larger, and holds the first branches of all."""
    path, whole = tmp_path / name, tmp_path / "whole.arrow"
    call = ["record", "--full", "-o"]
    assert main([*call, str(whole), "--", str(program), "200000"]) == 0
    capfd.readouterr()
    assert main([*call, str(path), "--max-size", size, "--", str(program), "200000"]) == 0
    most = int(size[:-1]) << (10 if size.endswith("K") else 20)
    assert path.stat().st_size <= most
    found, everything = columns(path), columns(whole)
    assert least <= found.shape[1] < everything.shape[1]
    assert (found == everything[:, :found.shape[1]]).all()
    assert capfd.readouterr().err.splitlines()[1:] == [
        f"pylbr record: {path}: --max-size of {most:,} bytes is reached; "
        "the file holds what came before"]


@pytest.mark.parametrize("words", [["--full", "--max-size", "5"], ["--full", "--max-size", "0M"],
                                   ["--full", "--max-size", "many"], ["--max-size", "5M"]])
def test_sizes_that_are_none(words, tmp_path, capfd):
    with pytest.raises(SystemExit) if "--full" in words else pytest.MonkeyPatch.context():
        assert main(["record", *words, "-o", str(tmp_path / "x"), "--", "true"]) == 2
    assert "max-size" in capfd.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_what_is_kept_meanwhile_is_limited_too():
    """Words that do not compress, of a size that no smaller trace can hold."""
    words = np.random.default_rng(1).integers(1, 1 << 23, 1 << 16, np.uint32)
    spool = Spool(most_bytes=500_000)
    task = Task(0, 0, 1, 1, 1, 0, 0)
    kept = 0
    while spool.append(task, words):
        kept += 1
    assert 1 <= kept < 5 and spool.full and spool.words == kept * len(words)
    assert len(list(spool.chunks())) == kept
    spool.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_ends_the_writing(qemu, program, tmp_path, capfd, monkeypatch, number):
    """The file is complete, and pylbr reports how much of the run it contains."""
    written = []
    real = TraceOutput.branches

    def branches(self, task, found):
        written.append(len(found))
        if len(written) == 3:
            os.kill(os.getpid(), number)
        return real(self, task, found)

    monkeypatch.setattr(TraceOutput, "branches", branches)
    before = signal.getsignal(number)
    path = tmp_path / "x.parquet"
    assert main(["record", "--full", "-o", str(path), "--", str(program), "200000"]) == 0
    assert len(written) == 3 and columns(path).shape[1] == sum(written)
    said = capfd.readouterr().err
    assert re.search(rf"pylbr record: {number.name}: the file holds the first \d+\.\d% of the "
                     r"branches\n", said)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(("quiet", "lines", "suffix", "near"), [
    ([], 1, "arrow", 0.1), ([], 1, "parquet", 0.8), (["-q"], 0, "arrow", 0),
])
def test_much_to_write_is_announced(qemu, program, tmp_path, capfd, monkeypatch, quiet, lines,
                                    suffix, near):
    monkeypatch.setattr(output_module, "_MANY", 100_000)
    path = tmp_path / f"x.{suffix}"
    assert main(["record", "--full", *quiet, "-o", str(path), "--", str(program), "200000"]) == 0
    said = capfd.readouterr().err
    found = re.findall(r"^\[ pylbr record: writing about ([\d,]+) branches, ([\d,]+) MB in "
                       r"(\S+); SIGTERM or Ctrl-C ends the file early \]$", said, re.M)
    assert len(found) == lines
    for count, size, name in found:
        assert name == str(path)
        assert int(count.replace(",", "")) == pytest.approx(columns(path).shape[1], rel=0.1)
        assert int(size.replace(",", "")) == pytest.approx(path.stat().st_size / 1e6, rel=near,
                                                                abs=1)
