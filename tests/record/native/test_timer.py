"""Ticks of a timer, where perf events are refused."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pylbr.record.native.timer import tick
from tests.record.conftest import ROOT, need
from tests.record.native.stacks import complaints, read
from tests.record.native.test_attach import attach, server, visible  # noqa: F401
from tests.record.native.test_difficulties import built  # noqa: F401

pytestmark = [pytest.mark.peer, pytest.mark.slow]
TIMER = {**os.environ, "PYTHONPATH": str(ROOT), "PYLBR_TICKS": "timer"}
RATE = ("-F", "2000", "--max-overhead", "100")


def test_a_filter_that_refuses_perf_events(native, built, build, tmp_path):  # noqa: F811
    """As in a container: the default engine is still the native one, and says what ticks."""
    refused, program = built("refused.c"), build("sorting.c", "-O2")
    alone = subprocess.run([program, "1500000"], capture_output=True)
    done = subprocess.run(
        [refused, sys.executable, "-m", "pylbr", "record", *RATE, "-o", tmp_path / "data", "--",
         program, "1500000"],
        capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)})
    need(done.returncode != 99, "no seccomp filters here")
    assert done.returncode == alone.returncode, done.stderr
    assert "timer, for perf_event_open is refused" in done.stderr
    found = read(tmp_path / "data")
    edges, ranges, wrong = complaints(found)
    assert found.count > 20 and edges and ranges and not wrong


def test_stacks_weigh_what_the_thread_has_used(native_record, build):
    program = build("sorting.c", "-O2")
    before = os.times()
    subprocess.run([program, "2000000"], check=True, capture_output=True)
    alone = os.times().children_user - before.children_user
    path, _ = native_record(program, "2000000", options=RATE, env=TIMER)
    total = sum(read(path).weights) / 1e9
    assert 0.4 * alone < total < 2.5 * alone  # CPU time; the machine may be slower now


def test_calls_that_wait_are_not_cut_short(native, built, tmp_path):  # noqa: F811
    """A tick meets each of them; one that the blob does not recognise shows that it does."""
    command = [sys.executable, "-m", "pylbr", "record", "--engine", "native", *RATE, "-o",
               tmp_path / "data", "--", built("sleeps.c")]
    told = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          env=TIMER) as recorder:
        pid = int(recorder.stdout.readline())
        for line in recorder.stdout:
            told.append(line.rstrip())
            if "was ended" not in line:
                while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
                    time.sleep(0.001)
                tick(pid, pid, 0)
    assert recorder.returncode == 0
    assert told == ["poll", "nanosleep", "epoll_wait", "select", "other", "other was ended"]


def test_threads_forks_and_executed_programs(native_record, built):  # noqa: F811
    program = built("families.c")
    alone = subprocess.run([program], capture_output=True, timeout=60)
    path, result = native_record(program, options=RATE, env=TIMER, check=alone.returncode)
    assert result.stdout == alone.stdout
    found = read(path)
    edges, ranges, wrong = complaints(found)
    assert len(found.tids) > 4 and edges and ranges and not wrong


def test_attached_and_left_without_a_trace(native, server, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("PYLBR_TICKS", "timer")
    process = server()
    before = visible(process.pid)
    path, _ = attach(tmp_path, "-p", process.pid, "--duration", "2", *RATE)
    assert visible(process.pid) == before
    found = read(path)
    edges, ranges, wrong = complaints(found)
    assert edges and ranges and not wrong
    assert len(found.tids) >= 2
    out, _ = process.communicate(b"end", timeout=60)
    assert process.returncode == 0 and out == b"end\n"


def test_what_proc_tells_of_processes(tmp_path):
    """The same kinds of records as perf's, in bodies of the same layout."""
    from pylbr.record.native.polled import Polled

    code = "import os, threading\ninput()\nt = threading.Thread(target=input)\nt.start()\n" \
           "t.join()\nos.execv('/bin/sh', ['sh', '-c', 'sleep 0.1 & read x; wait'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, bufsize=0)
    time.sleep(0.5)
    polled, kinds = Polled([process.pid]), []
    for _ in range(3):
        process.stdin.write(b"\n")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = polled.records()
            kinds += [(r.kind, r.misc, r.body[8:12]) for r in found]
            if found:
                deadline = min(deadline, time.monotonic() + 1)
            time.sleep(0.01)
            if process.poll() is not None:
                break
    kinds += [(r.kind, r.misc, r.body[8:12]) for r in polled.records()]
    process.stdin.close()
    process.wait(timeout=20)
    assert (3, 1 << 13, b"sh\0") in kinds  # COMM of an exec
    assert {kind for kind, _, _ in kinds} >= {3, 4, 7, 10}
