"""What can go wrong around a native recording."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.record.conftest import ROOT, need
from tests.record.native.stacks import complaints, read
from tests.record.native.stress import counts_of
from tests.record.native.test_attach import attach
from tests.record.native.test_difficulties import built, same  # noqa: F401
from tests.record.test_faults import disk, recorded_on, samples_in  # noqa: F401

pytestmark = [pytest.mark.peer, pytest.mark.slow]
FAST = ("-F", "5000", "--max-overhead", "100")
LOOP = "i=0; while [ $i -lt {} ]; do i=$((i+1)); done; {}"


def test_signals_and_faults_at_random_points(native_record, built):  # noqa: F811
    """The whole of it is `python -m tests.record.native.stress`."""
    found, said = same(native_record, built("stress.c"), hertz=20_000)
    assert found.count > 500 and counts_of(said)["fault"] > 0


def test_a_fault_comes_natively_before_the_next_window_there(native_record, built):  # noqa: F811
    """However fast ticks come, the program gets on: one window at most is rolled back per fault."""
    options = ("-F", "100", "--max-overhead", "100", "--burst", "1")
    _, result = native_record(built("pelted.c"), "15000", options=options)
    assert result.stdout == b"2000\n"
    said = result.stderr.decode()
    assert 0 < counts_of(said)["fault"] <= 2000
    assert "before an instruction that has faulted" in said


def test_a_program_with_a_gs_of_its_own(native_record, built):  # noqa: F811
    found, _ = same(native_record, built("gs.c"))
    assert found.count > 50
    edges, ranges, wrong = complaints(found)
    assert edges and ranges and not wrong


def test_a_killed_program_leaves_a_whole_file(native_record):
    path, _ = native_record("dash", "-c", LOOP.format(150_000, "kill -9 $$"), options=FAST,
                            check=137)
    assert read(path).count > 20


def test_a_thread_of_a_killed_process(native_record, built):  # noqa: F811
    """Killed while its threads are in windows."""
    command = f"{built('stress.c')} 9000000000 & sleep 2; kill -9 $! && echo gone"
    path, result = native_record("sh", "-c", command, options=FAST)
    assert result.stdout == b"gone\n" and read(path).count > 20


def test_a_killed_recorder_leaves_no_process(native, tmp_path):
    mark = f"marked {os.getpid()} {time.monotonic_ns()}"
    recorder = subprocess.Popen(
        [sys.executable, "-m", "pylbr", "record", "--engine", "native", "-o", tmp_path / "data",
         "--", "sh", "-c", f"while :; do :; done # {mark}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    await_(lambda: marked(mark, recorder.pid))
    recorder.send_signal(signal.SIGKILL)
    recorder.wait()
    await_(lambda: not marked(mark, recorder.pid))


def marked(mark, *apart):
    """Processes whose command has the mark."""
    done = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
    return [line for line in done.splitlines()
            if mark in line and int(line.split()[0]) not in apart and "pylbr" not in line]


def await_(true):
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    assert true()


def test_a_small_address_space(native_record):
    """Set before the program begins: the recorder takes less room, or says that there is none."""
    script = f"ulimit -v 250000; exec dash -c '{LOOP.format(100000, 'echo $i')}'"
    _, result = native_record("bash", "-c", script, options=FAST, check=None)
    assert result.stdout == b"100000\n"


def test_a_full_disk(native, disk):  # noqa: F811
    (disk / "zeros").write_bytes(bytes(1_300_000))
    message = recorded_on(disk, "x.data", "--engine", "native", "-F", "20000", "--max-overhead",
                          "100", "--", "dash", "-c", LOOP.format(400_000, "true"))
    assert "No space left on device; the file holds what came before" in message
    assert samples_in(disk / "x.data") > 100


def test_a_program_for_another_architecture_is_not_attached_to(native, tmp_path):
    (tmp_path / "x.s").write_text(".globl _start\n_start: mov $29, %eax\nint $0x80\njmp _start\n")
    for command in (["as", "--32", "-o", "x.o", "x.s"],
                    ["ld", "-m", "elf_i386", "-o", "x", "x.o"]):
        need(subprocess.run(command, cwd=tmp_path).returncode == 0, "no linker for i386")
    try:
        process = subprocess.Popen([tmp_path / "x"])  # pause()
    except OSError:
        need(False, "no programs for i386 here")
    try:
        _, said = attach(tmp_path, "-p", process.pid, "--duration", "1", check=126)
        assert "only x86-64 can be recorded" in said
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
