"""Recording a process that runs already: it continues undisturbed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.record.conftest import ROOT, need
from tests.record.native.stacks import complaints, read

pytestmark = [pytest.mark.peer, pytest.mark.slow]

WORK = """
import threading, sys
ended = threading.Event()
def work():
    s = 1
    while not ended.is_set():
        s = (s * 31 + len(str(s))) & 0xffffff
threads = [threading.Thread(target=work) for _ in range(3)]
[t.start() for t in threads]
print("ready", flush=True)
text = sys.stdin.read()
ended.set()
[t.join() for t in threads]
print(text)
"""


@pytest.fixture
def server():
    """A Python program whose threads work until its standard input ends."""
    started = []

    def start():
        process = subprocess.Popen([sys.executable, "-c", WORK], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def recorder_of(process, path, seconds=1):
    """A recorder that has begun to record the process."""
    recorder = subprocess.Popen(
        [sys.executable, "-m", "pylbr", "record", "-o", path, "-p", str(process.pid)],
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    for _ in range(600):
        if "/memfd:" in Path(f"/proc/{process.pid}/maps").read_text():
            break
        time.sleep(0.05)
    time.sleep(seconds)
    return recorder


def attach(tmp_path, *options, check=0, **keywords):
    path = tmp_path / "out.data"
    command = [sys.executable, "-m", "pylbr", "record", "-o", path, *options]
    result = subprocess.run(
        [str(word) for word in command], capture_output=True, timeout=60, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, **keywords)
    assert result.returncode == check, result.stderr
    return path, result.stderr


def visible(pid):
    """What an injection changes: mappings, dispositions and masks of signals, descriptors."""
    status = Path(f"/proc/{pid}/status").read_text()
    signals = [line for line in status.splitlines()
               if line.startswith(("SigB", "SigC", "SigI", "SigP", "Tr"))]
    maps = [line.split()[:2] + line.split()[5:] for line in
            Path(f"/proc/{pid}/maps").read_text().splitlines() if "[heap]" not in line]
    return [word for word in maps if len(word) > 2], signals, sorted(os.listdir(f"/proc/{pid}/fd"))


def test_threads_are_recorded_and_left_without_a_trace(native, server, tmp_path):
    process = server()
    before = visible(process.pid)
    path, _ = attach(tmp_path, "-p", process.pid, "--duration", "1.5", "-F", "2000")
    assert visible(process.pid) == before
    found = read(path)
    edges, ranges, wrong = complaints(found)
    assert edges and ranges and not wrong
    assert len(found.tids) >= 3
    out, _ = process.communicate(b"end", timeout=60)
    assert process.returncode == 0 and out == b"end\n"


def test_a_sleeping_process_sleeps_on(native, tmp_path):
    process = subprocess.Popen(["sleep", "6"])
    began = time.monotonic()
    time.sleep(0.1)
    _, said = attach(tmp_path, "-p", process.pid, "--duration", "0.3", check=1)
    assert "no stacks" in said
    assert process.wait(timeout=30) == 0
    assert time.monotonic() - began >= 5.9


def test_one_thread_alone(native, server, tmp_path):
    process = server()
    tid = sorted(map(int, os.listdir(f"/proc/{process.pid}/task")))[-1]
    path, _ = attach(tmp_path, "-t", tid, "--duration", "1", "-F", "2000")
    assert read(path).tids == {tid}


def test_the_file_is_complete_after_an_interrupt(native, server, tmp_path):
    process = server()
    recorder = recorder_of(process, tmp_path / "x")
    recorder.send_signal(signal.SIGINT)
    _, said = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, said
    assert read(tmp_path / "x").count > 10


def test_a_killed_recorder_leaves_the_process_alone(native, server, tmp_path):
    process = server()
    recorder = recorder_of(process, tmp_path / "x")
    recorder.kill()
    recorder.communicate()
    out, _ = process.communicate(b"end", timeout=60)
    assert process.returncode == 0 and out == b"end\n"


@pytest.mark.parametrize(("target", "reason"), [
    ("1", "init"), ("{self}", "its parent"), ("999999999", "no such process"),
])
def test_refusals(native, tmp_path, target, reason):
    _, said = attach(tmp_path, "-p", target.format(self=os.getpid()), "--duration", "1", check=2)
    assert reason in said and len(said.splitlines()) <= 2


def test_a_stopped_process_is_refused(native, server, tmp_path):
    process = server()
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.2)
    _, said = attach(tmp_path, "-p", process.pid, "--duration", "1", check=2)
    assert f"kill -CONT {process.pid}" in said
    process.send_signal(signal.SIGCONT)


def test_a_traced_process_is_refused(native, server, tmp_path):
    need(shutil.which("strace"), "no strace")
    process = server()
    tracer = subprocess.Popen(["strace", "-qq", "-o", "/dev/null", "-p", str(process.pid)],
                              stderr=subprocess.DEVNULL)
    time.sleep(1)
    _, said = attach(tmp_path, "-p", process.pid, "--duration", "1", check=2)
    assert "is traced by process" in said
    tracer.terminate()
    tracer.wait()
