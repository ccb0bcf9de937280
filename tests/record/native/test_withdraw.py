"""Taking the recorder out of a program: whatever its threads do, it is as it was before."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from pylbr.record.native.inject import Injection
from pylbr.record.native.perf import SIGNAL
from pylbr.record.native.ptrace import Registers
from tests.record.native.conftest import PROGRAMS
from tests.record.native.test_attach import attach, recorder_of, visible

pytestmark = [pytest.mark.peer]
WITHOUT_A_TRACE = b"0 signals that none sent\n"


@pytest.fixture(scope="module")
def waits(tmp_path_factory):
    """waits.c, compiled."""
    path = tmp_path_factory.mktemp("waits") / "waits"
    subprocess.run(["gcc", "-O1", "-w", "-o", path, PROGRAMS / "waits.c", "-lpthread"], check=True)
    return path


def blocking(pid):
    """Threads that block the signal of the ticks."""
    return {tid for tid in os.listdir(f"/proc/{pid}/task")
            for line in Path(f"/proc/{pid}/task/{tid}/status").read_text().splitlines()
            if line.startswith("SigBlk") and int(line.split()[1], 16) & 1 << SIGNAL - 1}


def test_whatever_the_threads_do(native, waits, tmp_path):
    """They sleep in calls, work while ticks come at 10 kHz; one blocks all signals."""
    process = subprocess.Popen([waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        before, blocked = visible(process.pid), blocking(process.pid)
        assert blocked
        _, said = attach(tmp_path, "-p", process.pid, "--duration", "0.6", "-F", "10000",
                         "--max-overhead", "100")
        assert "stays" not in said
        assert visible(process.pid) == before
        assert blocking(process.pid) == blocked
        out, _ = process.communicate(b"", timeout=60)
        assert (out, process.returncode) == (WITHOUT_A_TRACE, 0)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGURG])
def test_a_handler_that_sleeps_returns(native, waits, tmp_path, number):
    """Its frame holds the alternate stack that the recorder has lent; on that runs SIGURG's."""
    process = subprocess.Popen([waits, str(int(number))], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    try:
        recorder = recorder_of(process, tmp_path / "x", 0.2)
        process.stdin.write(b"1")
        process.stdin.flush()
        assert process.stdout.readline() == b"asleep\n"
        recorder.send_signal(signal.SIGINT)
        _, said = recorder.communicate(timeout=60)
        assert (b"memory of the recorder stays mapped" in said) == (number == signal.SIGURG)
        assert b"stays in it" not in said
        process.communicate(b"2", timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_a_thread_between_two_replaced_instructions_executes_both():
    injection = Injection(None, 0, (0, 0, 0), None, patched=[0x1000, 0x2000])
    rips = [injection.moved(Registers(rip=at)).rip for at in (0x1000, 0x1FFF, 0x2005, 0x2007)]
    assert rips == [0x1000, 0x1FFF, 0x2000, 0x2007]
