"""System calls made for a stopped thread in one go, beside the same made one by one."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from pylbr.record.native import ptrace
from pylbr.record.native.batch import Batch
from pylbr.record.native.ptrace import Tracee
from pylbr.record.recorded import record_program

MMAP, CLOSE, GETPID, GETPPID, DUP, RT_SIGACTION = 9, 3, 39, 110, 32, 13
COUNTS = """
import signal, sys
came = []
signal.signal(signal.SIGSTKFLT, lambda *_: came.append(1))
print("ready", flush=True)
sys.stdin.readline()
print(len(came))
"""
SPIN = """
import sys, threading
threads = [threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True)
           for _ in range(int(sys.argv[1]))]
[t.start() for t in threads]
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def started():
    """A Python program that has printed "ready" and reads a line."""
    running = []

    def start(*words):
        process = subprocess.Popen([sys.executable, "-c", *words], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        running.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def batch_in(tracee):
    return Batch(tracee, tracee.call(MMAP, 0, 4096, 7, 0x22, -1, 0))


def test_results_are_those_of_single_calls(native, started):
    process = started(COUNTS)
    with Tracee(process.pid) as tracee:
        tracee.interrupt()
        before, mask = bytes(tracee.registers()), tracee.swap_mask(0)
        tracee.swap_mask(mask)
        calls = [(GETPID,), (CLOSE, 999), (DUP, 0), (GETPPID,), (RT_SIGACTION, 99, 0, 0, 8)]
        found = batch_in(tracee).run(tracee, calls)
        assert bytes(tracee.registers()) == before and tracee.swap_mask(mask) == mask
        assert found[0] == tracee.call(GETPID) == process.pid
        assert found[1] == -errno.EBADF and found[4] == -errno.EINVAL
        assert tracee.call(DUP, 0) == found[2] + 1 and found[3] == os.getpid()
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            batch_in(tracee).checked(tracee, (GETPID,), (CLOSE, 999))
        with pytest.raises(OSError):
            batch_in(tracee).run(tracee, [(GETPID,)] * 61)
        # The read that it was in begins again: of a thread whose last stop is a batch's.
        batch_in(tracee).run(tracee, [(GETPID,)])
    assert process.communicate(b"\n", timeout=60)[0] == b"0\n"


def test_the_signal_at_its_end_is_not_taken_from_the_program(native, started):
    process = started(COUNTS)
    with Tracee(process.pid) as tracee:
        tracee.interrupt()
        batch = batch_in(tracee)
        os.kill(process.pid, signal.SIGSTKFLT)
        assert batch.run(tracee, [(GETPID,)]) == [process.pid]
    assert process.communicate(b"\n", timeout=60)[0] == b"1\n"


@pytest.mark.parametrize("threads", [1, 12])
def test_a_thread_runs_twice_while_a_process_stands_still(
    native, started, tmp_path, monkeypatch, threads
):
    """Of the calls that are made for it, one by one, each would be two stops."""
    counts, resume = [0], Tracee._resume

    def counted(self, how):
        counts[0] += 1
        resume(self, how)

    process = started(SPIN, str(threads))
    monkeypatch.setattr(ptrace.Tracee, "_resume", counted)
    monkeypatch.setattr(Tracee, "step_on", lambda self, seconds: (
        resume(self, ptrace._CONT), self.interrupt()))  # out of a window
    record_program([], tmp_path / "data", pid=process.pid, seconds=0.5, engine="native")
    # Attach: 2 + 6 of the first thread, leave: 7 + 2, and for each an alternate stack, set and
    # taken back.
    assert threads <= counts[0] <= 30 + 2 * (threads + 1)
