"""Full traces that are written while the program runs."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from lbrcore import BranchClass
from pylbr import trace
from pylbr.cli import main
from pylbr.record import streamed
from pylbr.record.engine import Request, engine
from pylbr.record.trace_output import TraceOutput

pytestmark = pytest.mark.peer


def rows_of(path):
    """{thread, in the order of their appearance: its branches}."""
    with trace.open(path) as source:
        chunks = [(chunk.branches, np.asarray(chunk.task)) for chunk in source.chunks()]
        modules = {module.path for module in source.metadata.modules}
        tids = {task.tid for task in source.metadata.tasks}
    rows, tasks = (np.concatenate(found) for found in zip(*chunks, strict=True))
    assert set(tasks.tolist()) <= tids
    found = [rows[tasks == task] for task in dict.fromkeys(tasks.tolist())]
    return found, modules


def test_same_branches_as_in_the_other_container(qemu, build, tmp_path):
    program = build("layout.c", "-static", output="layout-static")
    paths = tmp_path / "a.lbrt", tmp_path / "b.arrow"
    for path in paths:
        assert main(["record", "--full", "-q", "-o", str(path), "--", str(program), "5000"]) == 0
    (ours, modules), (theirs, expected) = map(rows_of, paths)
    assert modules == expected and len(ours) == len(theirs) == 1
    assert np.array_equal(ours[0], theirs[0])


@pytest.mark.parametrize(("name", "least"), [("signals.c", 1), ("forks.c", 2)])
def test_signals_and_forks(qemu, build, tmp_path, name, least):
    """What arrives by chance: every step is explained, and each process has its rows."""
    program = build(name, "-static", "-pthread", output=f"{name}-streamed")
    path = tmp_path / "a.lbrt"
    main(["record", "--full", "-q", "-o", str(path), "--", str(program), "3"])
    found, _ = rows_of(path)
    assert len(found) >= least
    classes = set(np.concatenate(found)["class"].tolist())
    assert BranchClass.SYSCALL in classes
    if name == "signals.c":
        assert BranchClass.INTERRUPT in classes and BranchClass.IRET in classes
    for rows in found:  # each row begins where the one before arrived
        near = rows["class"] <= BranchClass.ZERO_CALL
        assert (rows["from"][1:] >= rows["to"][:-1])[near[1:]].all()


def test_threads_and_mispredicts(qemu, build, tmp_path):
    program = build("threads.c", "-static", "-pthread", output="threads-streamed")
    path = tmp_path / "a.lbrt"
    command = ["record", "--full", "-q", "--cycles", "--mispredicts", "tage", "-o", str(path),
               "--", str(program)]
    assert main(command) == 0
    found, _ = rows_of(path)
    assert len(found) > 1
    rows = np.concatenate(found)
    assert rows["cycles"].any() and (rows["flags"] & 4).any()


def test_an_error_of_the_encoder_ends_the_recording(qemu, build, tmp_path, monkeypatch, capfd):
    """The program runs to its end; nothing appears."""
    program = build("layout.c", "-static", output="layout-static")
    monkeypatch.setattr(TraceOutput, "blocks", lambda *_: (_ for _ in ()).throw(OSError(28, "x")))
    assert main(["record", "--full", "-q", "-o", str(tmp_path / "a.lbrt"), "--", str(program),
                 "20000"]) != 0
    assert "x" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())
    assert not [t for t in threading.enumerate() if t.name == "pylbr-encode"]


def test_size_is_limited(qemu, build, tmp_path, capfd):
    program = build("layout.c", "-static", output="layout-static")
    path = tmp_path / "a.lbrt"
    assert main(["record", "--full", "-q", "--max-size", "100K", "-o", str(path), "--",
                 str(program), "2000000"]) == 0
    assert path.stat().st_size <= 100 << 10
    with trace.open(path) as source:
        assert source.count > 20_000
    assert "--max-size of 102,400 bytes is reached" in capfd.readouterr().err


class Slow:
    """A sink that is slower than the program."""

    streams, size, count = True, 0, 0

    def __init__(self):
        self.most, self.queue = 0, None

    def record(self, record):
        pass

    def expect(self, *_):
        pass

    def blocks(self, task, walk, words):
        time.sleep(0.002)
        self.count += len(walk.feed(words))
        return True


def test_the_program_waits_for_the_encoder(qemu, build, monkeypatch):
    """No more chunks wait than are allowed, and all arrive."""
    program = build("layout.c", "-static", output="layout-static")
    monkeypatch.setattr(streamed, "_WAITING", 2)
    waiting = []
    append = streamed.Streamed.append

    def watched(self, task, words):
        waiting.append(self._queue.qsize())
        return append(self, task, words)

    monkeypatch.setattr(streamed.Streamed, "append", watched)
    sink = Slow()
    null = os.open(os.devnull, os.O_WRONLY)
    saved = os.dup(1)
    os.dup2(null, 1)
    try:
        outcome = engine("qemu").run(Request((str(program), "400000"), full=True), sink,
                                     lambda: None)
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(null)
    assert not outcome.gaps and len(waiting) > 10
    assert max(waiting) == 2 and sink.count > 2_000_000


def test_an_interrupt_ends_the_file_where_it_came(qemu, build, tmp_path, monkeypatch, capfd):
    program = build("layout.c", "-static", output="layout-static")
    path, calls = tmp_path / "a.lbrt", []
    real = TraceOutput.blocks

    def blocks(self, *rest):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *rest)

    monkeypatch.setattr(TraceOutput, "blocks", blocks)
    main(["record", "--full", "-q", "-o", str(path), "--", str(program), "100000000"])
    with trace.open(path) as source:
        assert source.count > 100_000
