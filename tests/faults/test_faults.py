"""A sample of the failing calls; ``python -m tests.faults`` lets every one fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pylbr.perf._entries as some_module
from pylbr.errors import TraceError
from pylbr.perf.data_reader import PerfData
from pylbr.perf.stacks import Stacks, StacksMetadata
from pylbr.profile.aggregate import collect
from pylbr.profile.link import link_profile
from pylbr.record.native.launched import Launched
from pylbr.record.native.ptrace import Tracee
from pylbr.trace.lbrt_file import LbrtTrace
from pylbr.trace.writer import Writer
from tests.faults.runs import inputs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    inputs(folder)
    return folder


@pytest.mark.slow  # 50 runs of commands: ten seconds
def test_a_failed_call_is_one_line_and_leaves_nothing():
    runs = ("convert to parquet", "convert to csv", "merge --resume", "report")
    words = [word for run in runs for word in ("--run", run)]
    done = subprocess.run([sys.executable, "-m", "tests.faults", "--most", "1", *words], cwd=ROOT,
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert " 0 findings" in done.stdout and sum(
        int(cell) for line in done.stdout.splitlines() if line.startswith("| convert")
        for cell in line.split("|")[2:-1]) > 18


@pytest.mark.parametrize("name", ["t.lbrt", "t.arrow", "0.perf.data"])
def test_a_read_that_fails_is_the_inputs(files, name, monkeypatch):
    """Not the output's."""
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(TraceError, match=rf"{name}.*: cannot be read: Input/output error"):
        if name == "t.lbrt":
            LbrtTrace(files / name)
        elif name == "0.perf.data":
            PerfData(files / name)
        else:
            from pylbr import trace
            with trace.open_any(files / name) as source:
                source.read(0, 100)


def test_a_binary_that_cannot_be_read_is_one_line(tmp_path):
    profile = collect(Stacks(StacksMetadata(), iter(()), "x"))
    with pytest.raises(TraceError, match="cannot be read: No such file"):
        link_profile(profile, str(tmp_path / "gone"))
    (tmp_path / "text").write_text("no ELF file\n" * 50)
    with pytest.raises(TraceError, match="is no ELF file of 64 bits"):
        link_profile(profile, str(tmp_path / "text"))


def test_too_little_memory_is_one_line(files, tmp_path):
    """Also where a Parquet file has been begun: its writer must not complain at the end."""
    program = ("import sys, numpy as np\n"
               "def fail(*words, **more): raise MemoryError('of 2 MiB\\nand more')\n"
               "import pylbr.cli, pylbr.trace.writer as writer\n"
               "writer.np = type('np', (), {**vars(np), 'empty': staticmethod(fail)})\n"
               "sys.exit(pylbr.cli.main())")
    done = subprocess.run(
        [sys.executable, "-c", program, "convert", files / "t.csv", "-o", tmp_path / "o.parquet"],
        capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (
        2, "pylbr convert: not enough memory (of 2 MiB); nothing was written\n")
    assert not list(tmp_path.iterdir())


def test_a_parquet_file_that_could_not_be_ended_is_discarded(tmp_path, monkeypatch):
    writer = Writer(tmp_path / "o.parquet")
    writer._sink._writer.close()
    writer.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_disk_that_fills_up_half_way_loses_nothing_in_silence(files, unbuffered, tmp_path):
    """Unbuffered, Python itself takes a short write for a whole one."""
    program = ("import os, resource, signal, sys, pylbr.cli\n"
               "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
               "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
               "sys.exit(pylbr.cli.main())")
    with open(tmp_path / "out", "wb") as out:
        done = subprocess.run(
            [sys.executable, "-c", program, "inspect", files / "t.parquet"], stdout=out,
            stderr=subprocess.PIPE, text=True, timeout=60, check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
    assert done.returncode == 2 and done.stderr == (
        "pylbr inspect: standard output cannot be written: File too large\n")


@pytest.mark.peer
def test_a_traced_program_that_is_given_up_ends():
    """Its launcher waits for its end, which the tracer has to see first."""
    from pylbr.record.native.engine import launcher

    with Launched(launcher(), "/bin/true", ["true"]) as process:
        pid = process.wait_for_pid()
        tracee = Tracee(pid)
    assert tracee and not Path(f"/proc/{pid}").exists()


def test_the_binary_of_the_inputs_is_ours(files):
    assert (files / "elf").resolve() == Path(some_module.__file__).resolve()
