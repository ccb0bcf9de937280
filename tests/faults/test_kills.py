"""Ten kills; ``python -m tests.faults.kills`` makes a thousand."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.runs import RUNS

ROOT = Path(__file__).resolve().parents[2]
#: Judges one run that `body` replaces, in a process of its own: it adopts whom a killed run leaves.
PROGRAM = """
import os, subprocess, sys, time
from pathlib import Path
from tests.faults import kills
from tests.faults.runs import Run

def body():
    {body}

kills.HANG = {patience}
judge = kills.Kills(Path("."))
judge.clear()
judge._child = lambda run, before, after: (os.chdir(judge.folder / "work"), body())
print(*judge.kill(Run(("convert",), "o"), 1.5, b"half and more"), sep="|")
judge.close()
"""


def judged(body: str, patience: int = 60) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body, patience=patience)], cwd=ROOT,
        capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow  # some thirty calls of the command: ten seconds
def test_kills_leave_nothing():
    words = ["convert to parquet", "merge --resume", "merge --jobs", "run --save"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.kills", "--kills", "20",
         *(word for name in words for word in ("--run", name))], cwd=ROOT, capture_output=True,
        text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"(\d+) kills, 0 findings", done.stdout)[1]) >= 10


def test_a_half_file_is_a_finding():
    """Of a command that writes under the final name at once."""
    assert judged("Path('o').write_bytes(b'half'); time.sleep(60)") == (
        "True|4 bytes under the final name")


def test_an_old_file_is_none():
    assert judged("time.sleep(60)") == "True|"


def test_who_lives_on_is_a_finding():
    found = judged("subprocess.Popen(['sleep', '60']); time.sleep(60)", patience=1)
    assert found.startswith("True|lives on: [b'sleep")


def test_a_recorded_process_that_stands_still_is_a_finding():
    assert judged("os.kill(judge.target.pid, 19); time.sleep(60)") == (
        "True|the process that was recorded stands still")


@pytest.mark.slow  # two seconds
def test_processes_of_a_merge_end_with_it(tmp_path):
    """A pool's worker holds both ends of the pipe in which it waits."""
    program = ("import os, signal\n"
               "from concurrent.futures import wait\n"
               "from argparse import Namespace\n"
               "from pylbr.cli.workers import workers\n"
               "with workers(Namespace(jobs=2, dask=None), 2) as found:\n"
               "    print([found.executor.submit(os.getpid).result() for _ in range(2)][0],\n"
               "          flush=True)\n"
               "    os.kill(os.getpid(), signal.SIGKILL)\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == -9
    end = time.monotonic() + 60
    while Path(f"/proc/{done.stdout.strip()}").exists():
        assert time.monotonic() < end, "the worker lives on"
        time.sleep(0.05)


def test_every_killed_run_is_known():
    from tests.faults.kills import KILLED

    assert set(KILLED) <= set(RUNS)
