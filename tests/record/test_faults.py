"""Programs that end badly, machines that lack something, and pylbr killed half-way."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lbrcore import BranchClass as C
from pylbr import trace
from pylbr.cli import main
from pylbr.record import qemu as qemu_module
from pylbr.record import toolchain
from tests.record import oracle
from tests.record.conftest import ROOT, need, symbols

pytestmark = pytest.mark.peer


@pytest.fixture
def faults(build):
    return build("faults.c")


def said(run):
    return run.result.stderr.decode()


def samples_in(path):
    """Stacks in a perf.data file."""
    from pylbr.perf.stacks import Samples

    with trace.open_stacks(path) as stacks:
        return sum(len(record) for record in stacks if isinstance(record, Samples))


@pytest.mark.parametrize(("how", "number"), [("crash", 11), ("kill", 9), ("abort", 6)])
@pytest.mark.parametrize("full", [True, False])
def test_program_that_dies(faults, pylbr_record, how, number, full):
    """What was recorded until then is a valid file; the exit code is that of its death."""
    options = () if full else ("-c", "101")
    run = pylbr_record(faults, how, full=full, options=options, check=128 + number)
    if full:
        assert run.classes()[C.COND] >= 20000
    else:
        assert samples_in(run.path) > 300


def test_thousand_children(faults, pylbr_record):
    run = pylbr_record(faults, "children")
    assert len(set(run.branches()["task"].tolist())) == 1001
    assert said(run).count("\n") == 1


def test_threads_in_children_of_a_threaded_process(build, pylbr_record):
    """What QEMU by itself aborts at."""
    program = build("forks.c", "-pthread", "-no-pie")
    run = pylbr_record(program, "4")
    assert run.result.stdout == b"0 failed\n" and said(run).count("\n") == 1
    report = oracle.check(run.path)
    assert report.wrong == []
    branches = run.branches()
    assert len(set(branches["task"].tolist())) == 1 + 3 + 4 * (1 + 3)
    work = symbols(program)["work"]
    assert (branches["to"] == work).sum() == 4 * 3


def test_qemu_that_cannot_be_repaired(build, qemu, tmp_path, monkeypatch, capfd):
    """The child is killed before QEMU hangs, and that is said; the file is valid."""
    plugin = tmp_path / "plugin.so"
    toolchain.compile_plugin(plugin, "-DRECORDER_LEAVES_QEMU_ALONE")
    monkeypatch.setattr(qemu_module, "tools", lambda target: replace(qemu, plugin=str(plugin)))
    program, out = str(build("forks.c", "-pthread", "-no-pie")), tmp_path / "x.data"
    assert main(["record", "-c", "101", "-o", str(out), "--", program, "2"]) == 0
    captured = capfd.readouterr()
    assert captured.out == "2 failed\n"
    assert captured.err.splitlines()[1:] == [
        f"pylbr record: {program} was killed: this QEMU would hang, for it cannot run threads in "
        "the child of a threaded process"]
    assert samples_in(out) > 100


def test_program_that_closes_everything(faults, pylbr_record):
    run = pylbr_record(faults, "close", check=7)
    counts = run.classes()
    assert counts[C.COND] >= 20000
    assert {task.name for task in run.metadata.tasks} == {"faults", "true"}


def test_statically_linked(build, pylbr_record):
    run = pylbr_record(build("faults.c", "-static", output="static"), "work", "1000")
    assert [m.path for m in run.metadata.modules if m.path.endswith("static")] if (
        run.branches()) else False


def privileged_copy(program, directory):
    need(os.geteuid() == 0, "making a foreign set-user-id file needs root")
    copy = directory / "privileged"
    shutil.copy(program, copy)
    os.chown(copy, 65534, 65534)
    copy.chmod(0o4755)
    return copy


def test_set_user_id(faults, pylbr_record, tmp_path):
    copy = privileged_copy(faults, tmp_path)
    run = pylbr_record(copy, check=126)
    assert "set-user-id programs lose their privilege" in said(run)
    assert not run.path.exists()


def test_set_user_id_program_executed_later(faults, pylbr_record, tmp_path):
    """It runs as it would have, unrecorded, and that is said."""
    copy = privileged_copy(faults, tmp_path)
    run = pylbr_record(faults, "exec", copy, "abort", check=134)
    assert f"{copy} ran unrecorded: set-user-id" in said(run)


def test_wrong_architecture(faults, pylbr_record, tmp_path):
    foreign = tmp_path / "foreign"
    data = bytearray(Path(faults).read_bytes())
    for bits, machine, words in (
        (2, 21, "a program for PowerPC; only x86-64, AArch64 and RISC-V can be recorded"),
        (1, 243, "a program for RISC-V, but not of 64 bits, little endian; only x86-64, "),
    ):
        data[4], data[18:20] = bits, machine.to_bytes(2, "little")
        foreign.write_bytes(data)
        foreign.chmod(0o755)
        assert words in said(pylbr_record(foreign, check=126))


@pytest.mark.parametrize(("command", "code", "message"), [
    (["/no/such/program"], 127, "no such file"),
    (["no-such-program"], 127, "not found in PATH"),
    (["/etc/passwd"], 126, "not an executable file"),
    (["/tmp"], 126, "not an executable file"),
])
def test_no_program(pylbr_record, command, code, message):
    run = pylbr_record(*command, check=code)
    assert message in said(run) and said(run).count("\n") == 1
    assert not run.path.exists()


def test_no_qemu(pylbr_record):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYLBR_QEMU": "/no/such/qemu"}
    run = pylbr_record("/bin/true", check=2, env=environment)
    assert "no /no/such/qemu found: install" in said(run) and said(run).count("\n") == 1


def test_qemu_without_plugins(pylbr_record, tmp_path):
    fake = tmp_path / "qemu-x86_64"
    fake.write_text("#!/bin/sh\necho usage: qemu-x86_64\n")
    fake.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYLBR_QEMU": str(fake)}
    run = pylbr_record("/bin/true", check=2, env=environment)
    assert "was built without TCG plugins" in said(run) and said(run).count("\n") == 1


def test_no_compiler(pylbr_record, tmp_path):
    qemu = shutil.which("qemu-x86_64")
    environment = {"PYTHONPATH": str(ROOT), "PYLBR_QEMU": qemu, "CC": "/no/such/cc",
                   "XDG_CACHE_HOME": str(tmp_path), "PATH": "/nowhere"}
    run = pylbr_record("/bin/true", check=2, env=environment)
    assert "no C compiler found" in said(run) and said(run).count("\n") == 1


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MB."""
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", where],
                             capture_output=True)
    need(mounted.returncode == 0, "mounting a small disk is not allowed here")
    yield where
    subprocess.run(["umount", where], check=True)


def recorded_on(disk, name, *arguments):
    """Standard error of a recording onto the disk, which is all that is left there."""
    result = subprocess.run(
        [sys.executable, "-m", "pylbr", "record", "-o", disk / name, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=100)
    assert result.returncode == 0
    assert name in os.listdir(disk) and len(os.listdir(disk)) <= 2
    return result.stderr.decode()


def test_full_disk(faults, qemu, disk):
    """The file contains what fitted on the disk."""
    message = recorded_on(disk, "x.data", "-c", "53", "--", faults, "work", "1000000")
    assert "No space left on device; the file holds what came before" in message
    count = samples_in(disk / "x.data")
    assert count > 1000 and f"[ pylbr record: {count:,} samples in" in message
    assert (disk / "x.data").stat().st_size > 1.5e6


@pytest.mark.parametrize("name", ["x.arrow", "x.parquet"])
def test_full_disk_and_every_branch(faults, qemu, disk, name):
    message = recorded_on(disk, name, "--full", "--", faults, "work", "100000")
    assert message.count("the disk is full; the file holds what came before") == 1
    with trace.open(disk / name) as source:
        assert sum(len(chunk) for chunk in source.chunks()) > 20_000


def test_program_that_fills_the_disk(faults, qemu, disk):
    message = recorded_on(disk, "x.data", "-c", "1009", "--", "/bin/sh", "-c",
                          f"{faults} work 20000; sleep 1; cat /dev/zero > {disk}/zeros; "
                          f"exec {faults} work 100000")
    assert "the file holds what came before" in message
    assert samples_in(disk / "x.data") > 50


def recorded_processes(pid):
    """Processes that map the memory of the recording by `pid`."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
        if f"wire=/proc/{pid}/fd/".encode() in words and int(entry) != pid:
            found.append(int(entry))
    return found


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.5, 0.7, 0.9, 1.2])
def test_killed_pylbr_leaves_nothing(faults, qemu, tmp_path, delay):
    """No process, whatever it has ignored or detached from; no shared memory."""
    before = set(os.listdir("/dev/shm"))

    def left():
        # Other tests run beside this one; what they use there goes away.
        return set(os.listdir("/dev/shm")) - before

    process = subprocess.Popen(
        [sys.executable, "-m", "pylbr", "record", "-o", tmp_path / "x", "--", faults, "stubborn"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL,
        start_new_session=True)
    time.sleep(delay)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while recorded_processes(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert recorded_processes(process.pid) == []
    deadline = time.monotonic() + 120
    while left() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left()
    assert not (tmp_path / "x").exists()


@pytest.fixture
def waiting(faults, qemu, tmp_path):
    """pylbr recording a program that waits, and the path of its file."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pylbr", "record", "-c", "11", "-o", tmp_path / "x.data", "--",
         faults, "wait"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process, tmp_path / "x.data"


def test_killed_launcher_costs_no_file(waiting):
    """As the kernel does when memory is short: what was recorded is kept, and it is said."""
    process, path = waiting
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    message = process.communicate(timeout=20)[1].decode()
    assert process.returncode == 128 + signal.SIGKILL
    assert message.splitlines()[1:] == [
        "pylbr record: the program's launcher was killed, and the program with it"]
    assert samples_in(path) > 10
    assert recorded_processes(process.pid) == []


def test_signals_reach_the_program(waiting):
    """SIGTERM is passed on; the file is complete afterwards."""
    process, path = waiting
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert samples_in(path) > 10


@pytest.mark.parametrize(("ignored", "number"), [(False, signal.SIGINT), (True, signal.SIGTERM)])
def test_interrupted_without_a_terminal(faults, qemu, tmp_path, ignored, number):
    """`kill -INT` of pylbr ends the program, also one in the background, which ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "pylbr", "record", "-c", "11", "-o", tmp_path / "x.data", "--",
             faults, "wait"],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
            start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert samples_in(tmp_path / "x.data") > 10


#: Some samples of a program that hardly does anything.
_OFTEN = ("-c", "997")


def test_what_outlives_the_recording_still_executes_programs(pylbr_record, tmp_path):
    said_later = tmp_path / "later"
    run = pylbr_record("/bin/sh", "-c", f"(sleep 2; /bin/echo one; exec /bin/echo two) "
                       f">{said_later} 2>&1 </dev/null &", full=False, options=_OFTEN)
    assert said(run).count("\n") == 1
    deadline = time.monotonic() + 20
    while said_later.read_text() != "one\ntwo\n" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert said_later.read_text() == "one\ntwo\n"


def test_program_of_another_user(pylbr_record):
    """It cannot open pylbr's memory: it runs unrecorded, and that is said."""
    need(os.geteuid() == 0 and shutil.which("setpriv"), "changing the user needs root")
    run = pylbr_record("/usr/bin/setpriv", "--reuid", "65534", "--clear-groups",
                       "/bin/sh", "-c", "id -u; exit 3", full=False, check=3)
    assert run.result.stdout == b"65534\n"
    assert "/bin/sh ran unrecorded: its process cannot reach the recorder" in said(run)


def test_works_in_a_pipe(pylbr_record):
    """Standard input and output are the program's own."""
    run = pylbr_record("/bin/cat", full=False, options=_OFTEN, input=b"through\n")
    assert run.result.stdout == b"through\n"


def test_open_files_are_passed_on(pylbr_record):
    """As a shell's `<(command)` needs it."""
    reader, writer = os.pipe()
    os.write(writer, b"through\n")
    os.close(writer)
    run = pylbr_record("/bin/cat", f"/proc/self/fd/{reader}", full=False, options=_OFTEN,
                       pass_fds=[reader])
    os.close(reader)
    assert run.result.stdout == b"through\n"


def test_script_and_name_in_path(pylbr_record, tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh -e\necho $0 $1; exit 9\n")
    script.chmod(0o755)
    run = pylbr_record("./script", "word", check=9)
    assert run.result.stdout == b"./script word\n"
