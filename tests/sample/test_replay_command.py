"""``pylbr replay``, as a user calls it."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time

import numpy as np
import pytest

from lbrcore import BRANCH_DTYPE, lbr
from pylbr import trace
from pylbr.cli import main
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.stacks import Comm, Event, Mmap, Samples, StacksMetadata
from pylbr.trace import Metadata, Module, Task, open_stacks
from pylbr.trace.formats import output_suffixes
from pylbr.trace.modules import parse_module
from tests.conftest import heed_interrupts

NOT_TAKEN = 6


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A trace of two tasks, and its branches."""
    rng = np.random.default_rng(3)
    branches = np.zeros(20_000, BRANCH_DTYPE)
    branches["class"] = rng.choice([0, NOT_TAKEN, 2, 4, 5], len(branches))
    branches["from"] = 0x401000 + np.arange(len(branches)) % 997 * 4
    branches["to"] = 0x401000 + rng.integers(0, 1000, len(branches)) * 4
    branches["cpl_from"] = branches["cpl_to"] = 3
    branches["cycles"], branches["instructions"] = 4, 3
    path = tmp_path_factory.mktemp("replay") / "program.arrow"
    metadata = Metadata(
        modules=(Module("/bin/prog", 0x401000, 0x1000, 0x1000, "ab" * 20),),
        tasks=(Task(10, 10, "prog"),))
    task = np.where(np.arange(len(branches)) < 12_000, 10, 11).astype("u4")
    with trace.Writer(path, metadata, [*BRANCH_DTYPE.names, "task"]) as writer:
        writer.write(branches, task=task)
    return path, branches, task


def read(path):
    with open_stacks(path) as stacks:
        metadata = stacks.metadata
        return metadata, list(stacks)


def test_perf_data_holds_what_the_trace_says(program, tmp_path, capsys):
    path, branches, task = program
    out = tmp_path / "out.perf.data"
    assert main(["replay", str(path), "-e", "branches:u", "-c", "1009", "-j", "any,u",
                 "--cpu", "sapphire-rapids", "-o", str(out)]) == 0
    assert capsys.readouterr() == ("", "")
    metadata, records = read(out)
    assert (metadata.events[0].name, metadata.events[0].period) == ("branches:u", 1009)
    assert {r.tid for r in records if isinstance(r, Comm)} == {10, 11}
    assert {(r.pid, r.path) for r in records if isinstance(r, Mmap)} == {
        (10, "/bin/prog"), (11, "/bin/prog")}
    samples = [s for s in records if isinstance(s, Samples)]
    seen = 0
    for part in samples:
        for i in range(len(part)):
            row = int(part.time[i])
            own = np.flatnonzero(task[:row + 1] == part.tid[i])
            assert len(own) % 1009 == 0
            taken = [r for r in own if branches["class"][r] != NOT_TAKEN][::-1][:32]
            stack = part.entries[part.offsets[i]:part.offsets[i + 1]]
            assert stack["from"].tolist() == branches["from"][taken].tolist()
            assert stack["to"].tolist() == branches["to"][taken].tolist()
            assert part.ip[i] == branches["to"][row]
            seen += 1
    assert seen == 12_000 // 1009 + 8_000 // 1009


def test_engines_and_threads_agree(program, tmp_path):
    texts = set()
    for number, options in enumerate(([], ["--engine", "architectural"], ["--threads", "2"])):
        out = tmp_path / f"{number}.perfscript"
        assert main(["replay", str(program[0]), "-e", "cycles:u,cpu/event=0xc4,umask=0x20/", "-c",
                     "997", "--call-graph", "lbr", "--skid", "2", "--jitter", "100", "--seed", "5",
                     *options, "-o", str(out)]) == 0
        texts.add(out.read_text())
    assert len(texts) == 1 and texts.pop().count("cycles:u") > 30


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """4 KiB of functions with line tables, which some forms are about."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "many.c").write_text("".join(
        f"int f{n}(int x) {{ return x * {n} +\n x / {n}; }}\n" for n in range(1, 300)))
    subprocess.run(["gcc", "-g", "-O1", "-shared", "-fPIC", "-o", folder / "many.so",
                    folder / "many.c"], check=True, timeout=60)
    return folder / "many.so"


@pytest.mark.parametrize("suffix", output_suffixes("stacks"))
def test_every_form_is_made_of_a_trace(program, library, tmp_path, capsys, suffix):
    """Of the forms that are about one binary, BOLT's says which BOLT reads it."""
    (module,) = parse_module(f"{library}@0x10000000")
    branches = program[1].copy()
    for end in ("from", "to"):
        branches[end] += np.uint64(module.start) - np.uint64(0x401000)
    source, out = tmp_path / "x.arrow", tmp_path / f"x{suffix}"
    with trace.Writer(source, Metadata(modules=(module,)), BRANCH_DTYPE.names) as writer:
        writer.write(branches)
    words = ["replay", str(source), "-c", "997", "-o", str(out), "--binary", str(library)]
    if suffix == ".speedscope.json":  # it is about call stacks
        words += ["--call-graph", "lbr"]
    assert main(words) == 0
    made = out.read_bytes()
    note = "pylbr replay: {}: trace lines, which BOLT reads from version 22 on"
    if suffix != ".preagg":
        assert made and capsys.readouterr() == ("", "")
        return
    assert note.format(out) in capsys.readouterr().err
    assert {line[:2] for line in made.splitlines()} == {b"T "}
    assert main([*words, "--preagg-form", "branches"]) == 0
    assert capsys.readouterr() == ("", "")
    assert {line[:2] for line in out.read_bytes().splitlines()} == {b"B ", b"F "}


@pytest.mark.parametrize(("arguments", "message"), [
    (["-c", "0"], "period: must be 1"), (["-e", "bees"], "not known for this processor"),
    (["-j", "any,quick"], "'quick': not one of"), (["-b", "-j", "any"], "give one of them"),
    (["--cpu", "vax"], "'vax' is not known"), (["--depth", "9"], "depth 9"),
    (["--threads", "0"], "at least 1"), (["-o", "x.arrow"], "stacks are written as one of"),
    (["--skid", "-1"], "skid"), (["--jitter", "200000"], "jitter"), (["--seed", "-1"], "--seed"),
    (["--cpu", "nehalem", "--call-graph", "lbr"], "lacks bits 0x200"),
])
def test_mistakes_are_named(program, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["replay", str(program[0]), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_a_file_of_stacks_is_no_trace(program, tmp_path, capsys):
    out = tmp_path / "out.perf.data"
    assert main(["replay", str(program[0]), "-c", "997", "-o", str(out)]) == 0
    assert main(["replay", str(out), "-o", str(tmp_path / "again.perf.data")]) == 2
    assert "between them branches are missing" in capsys.readouterr().err
    assert main(["replay", str(program[0]), "-o", str(program[0])]) == 2


def test_an_interrupt_leaves_no_half_file(program, tmp_path):
    out = tmp_path / "out.perf.data"
    run = subprocess.Popen(
        [sys.executable, "-m", "pylbr", "replay", str(program[0]), "-c", "1", "-e", "instructions",
         "--engine", "architectural", "-o", str(out)], stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_interrupts)
    while not os.listdir(tmp_path) and run.poll() is None:
        time.sleep(0.005)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130 and "was not written" in errors
    assert os.listdir(tmp_path) == []


PROGRESS = """
import time
from pylbr.cli.progress import progress
with progress(100, "branches", "program.arrow") as bar:
    for _ in range(14):
        time.sleep(0.1)
        bar.update(5)
"""


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_rate_and_time_left_on_a_terminal(terminal):
    ours, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcsetwinsize(theirs, (24, 100))
    os.set_blocking(ours, False)
    subprocess.run([sys.executable, "-c", PROGRESS], stderr=theirs, check=True, timeout=60)
    with os.fdopen(ours, "rb", buffering=0) as seen:
        shown = seen.read(1 << 16)
    os.close(theirs)
    if terminal:
        assert re.search(rb"program.arrow .*70%.* branches, .* branches/s, 0:0\d left", shown)
    else:
        assert shown is None


@pytest.mark.parametrize(("arguments", "message"), [
    (["-c", "20001"], "no sample: no event came as often as its period asks (branches:u 20,001)"),
    (["-c", "997", "-j", "ind_call"], "none of 20 samples has a branch"),
])
@pytest.mark.parametrize("suffix", output_suffixes("stacks"))
def test_nothing_found_is_an_error(program, tmp_path, capsys, suffix, arguments, message):
    out = tmp_path / f"x{suffix}"
    assert main(["replay", str(program[0]), *arguments, "-o", str(out),
                 "--binary", lbr.__file__]) == 2
    assert message in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_a_report_of_nothing_is_an_error(tmp_path, capsys):
    rows, stacks = tmp_path / "x.csv", tmp_path / "x.perf.data"
    rows.write_text("from,to,class\n0x401000,0x401008,NOT_TAKEN\n")
    assert main(["report", str(rows)]) == 2
    assert "holds no taken branches: nothing to report" in capsys.readouterr().err
    assert main(["replay", str(rows), "-c", "1", "-o", str(stacks)]) == 2
    from_none = Samples.build(np.array([0, 0]), np.empty(0, BRANCH_ENTRY_DTYPE), pid=1)
    write_perf_data(stacks, (StacksMetadata(events=(Event(name="branches:u"),)), [from_none]))
    capsys.readouterr()
    for words in (["report", str(stacks), "--json"],
                  ["convert", str(stacks), "-o", str(tmp_path / "y.csv")]):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert not out and "holds 1 samples without one branch" in err
