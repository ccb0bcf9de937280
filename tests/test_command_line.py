"""Every command with closed standard streams, full disks and signals."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import pylbr as pylbr_package
from pylbr.cli import COMMANDS
from tests.fuzz.targets import saved_machine

GZIP = str(Path(__file__).parent.parent / "examples" / "gzip.parquet")
#: Command -> words of a call that answers on standard output; None: it writes files alone.
ANSWERS = {
    "record": None, "replay": None, "convert": None, "optimize": None, "linux": None,
    "bench": ["--list"],
    "report": ["{stacks}"], "inspect": [GZIP], "merge": None, "doctor": ["{stacks}"],
    "run": ["{machine}", "--limit", "1000", "--report"],
    "verify": ["--ownership", "lease"], "selftest": ["--group", "msrs"],
    "arbitrate": ["--branches", "2000", "lease"],
    "msr": ["skylake"], "cpuid": ["skylake"],
}


def pylbr(*words: str, shell: str = "", **options):
    """Run a command with redirections of the shell."""
    environment = {name: value for name, value in os.environ.items()
                   if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {shell}', "sh", sys.executable, "-m", "pylbr", *words],
        capture_output=True, text=True, env=environment, timeout=120, check=False, **options)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    done = pylbr("replay", GZIP, "-c", "20000", "-o", str(folder / "stacks.perf.data"))
    assert done.returncode == 0, done.stderr
    (folder / "machine.vm").write_bytes(saved_machine()[0])
    return {"stacks": str(folder / "stacks.perf.data"), "machine": str(folder / "machine.vm")}


def words_of(command, files):
    return [command, *(word.format(**files) for word in ANSWERS[command] or ["--help"])]


def test_every_command_has_a_call():
    assert set(ANSWERS) == set(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("command", ANSWERS)
def test_closed_and_full_streams(command, files):
    words = words_of(command, files)
    whole = pylbr(*words)
    assert "usage:" not in whole.stderr
    for shell in ("2>&-", "2>/dev/full"):
        quiet = pylbr(*words, shell=shell)
        assert (quiet.returncode, quiet.stdout) == (whole.returncode, whole.stdout)
    if not whole.stdout:
        return
    for shell, why in ((">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")):
        lost = pylbr(*words, shell=shell)
        assert lost.returncode == 2 if whole.returncode == 0 else lost.returncode
        complaint = lost.stderr.replace(whole.stderr, "")
        assert complaint.count("\n") == 1 and complaint.endswith(f"cannot be written: {why}\n")
    assert pylbr(*words, shell=">&- 2>&-").returncode == (whole.returncode or 2)


@pytest.mark.slow
def test_files_are_whole_without_standard_streams(tmp_path):
    """No output file gets the number of a closed stream."""
    for name, shell in (("a", ""), ("b", "0<&- >&- 2>&-")):
        done = pylbr("convert", GZIP, "-o", str(tmp_path / f"{name}.arrow"), shell=shell)
        assert done.returncode == 0
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()


def heed():
    """As in a terminal's foreground, whatever runs the tests."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            found += map(int, (task / "children").read_text().split())
    return found


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert process.poll() is None and time.monotonic() < deadline, "never began"
        time.sleep(0.005)
    return found


def gone(pids):
    """Whether they end within a minute; a zombie has ended."""
    def lives(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    deadline = time.monotonic() + 60
    while any(map(lives, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(lives, pids))


def long_run(command, folder, files):
    """A call that takes minutes."""
    if command == "convert":
        source = folder / "t.csv"
        with source.open("w") as out:
            out.write("from,to,class\n" + "".join(
                f"{i:#x},{i * 7919:#x},COND\n" for i in range(400_000)))
        return ["convert", str(source), "-o", str(folder / "o.arrow")]
    if command == "replay":
        return ["replay", GZIP, "-c", "1", "-e", "instructions", "--engine", "architectural", "-o",
                str(folder / "o.perf.data")]
    if command == "run":
        return ["run", files["machine"], "--limit", str(10 ** 12), "--trace",
                str(folder / "o.arrow")]
    return ["verify", "lease", "kvm-legacy", "--guests", "2", "--depth", "2", "--jobs", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["convert", "replay", "run", "verify"])
def test_a_signal_leaves_nothing(command, number, files, tmp_path):
    words = long_run(command, tmp_path, files)
    before = set(tmp_path.iterdir())
    process = subprocess.Popen([sys.executable, "-m", "pylbr", *words], preexec_fn=heed,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONFAULTHANDLER": "1"})
    workers = []
    if command == "verify":
        workers = wait_for(lambda: len(found := children(process.pid)) >= 2 and found, process)
    else:
        wait_for(lambda: list(tmp_path.glob(".*.part")), process)
    process.send_signal(number)
    try:
        _, error = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # it writes where each of its threads is
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()  # one that does not end would fill the disk
        process.wait()
    assert process.returncode == 128 + number, error
    assert error.count("\n") == 1 and error.startswith(f"pylbr {command}: "), error
    assert set(tmp_path.iterdir()) == before
    assert gone(workers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_a_callback_swallows_comes_again(number):
    """ctypes ignores what is raised in a callback, after writing it to standard error."""
    program = f"""
import ctypes, signal, time
from pylbr.cli.process import ended_by_signals
callback = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal({int(number)}))
try:
    with ended_by_signals() as came:
        callback()
        time.sleep(60)
except KeyboardInterrupt:
    print("ended", came)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          timeout=50, preexec_fn=heed)
    came = "[]" if number == signal.SIGINT else f"[{int(number)}]"
    assert (done.stdout, done.stderr) == (f"ended {came}\n", "")


def test_a_signal_that_comes_while_a_decoder_is_made_ends_the_command():
    """capstone ignores what is raised while it looks for a module of its own."""
    program = """
import os, signal, sys
from pylbr.cli.process import ended_by_signals
from pylbr.x86.engine import decoder

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "capstone.ccapstone":
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Finder)
try:
    with ended_by_signals():
        decoder(8)
        print("lost")
except KeyboardInterrupt as error:
    print("ended", error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          timeout=50, preexec_fn=heed)
    assert (done.stdout, done.stderr) == ("ended SIGTERM\n", "")


@pytest.mark.slow
def test_an_ignored_hangup_stays_ignored(tmp_path):
    """As under nohup."""
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = subprocess.Popen(
        [sys.executable, "-m", "pylbr", "convert", GZIP, "-o", str(tmp_path / "o.csv")],
        preexec_fn=ignore)
    wait_for(lambda: list(tmp_path.glob(".*.part")), process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["o.csv"]


@pytest.mark.slow
def test_workers_die_with_a_killed_parent():
    process = subprocess.Popen(
        [sys.executable, "-m", "pylbr", "verify", "lease", "kvm-legacy", "--jobs", "2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers = wait_for(lambda: len(found := children(process.pid)) >= 2 and found, process)
    time.sleep(0.5)
    process.kill()
    process.wait()
    assert gone(workers)


@pytest.mark.slow
def test_a_killed_worker_is_one_line():
    process = subprocess.Popen(
        [sys.executable, "-m", "pylbr", "verify", "lease", "kvm-legacy", "--jobs", "2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    workers = wait_for(lambda: len(found := children(process.pid)) >= 2 and found, process)
    time.sleep(0.5)
    os.kill(workers[0], signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2 and error.count("\n") == 1 and "was killed" in error


def test_version_is_the_packages():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert pylbr_package.__version__ == project["project"]["version"]
    assert "__version__" in dir(pylbr_package) and not hasattr(pylbr_package, "__revision__")
    done = pylbr("--version")
    assert (done.returncode, done.stdout) == (0, f"pylbr {pylbr_package.__version__}\n")


@pytest.mark.parametrize("words, message", [
    (["run", "absent.elf"], "pylbr run: absent.elf: No such file or directory\n"),
    (["record", "-F", "fast", "--", "true"],
     "pylbr record: error: argument -F/--freq: fast: hertz, such as 2000, or max\n"),
])
def test_mistakes_are_told_in_words_of_the_command(words, message, tmp_path):
    done = pylbr(*words, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.endswith(message)


def test_without_a_command_the_first_steps_are_shown():
    done = pylbr()
    assert done.returncode == 2 and not done.stdout
    assert all(f"pylbr {word}" in done.stderr for word in ("record --", "report", "convert"))


def test_perf_data_is_what_is_looked_at(files, tmp_path):
    shutil.copy(files["stacks"], tmp_path / "perf.data")
    for command in ("report", "inspect"):
        named = pylbr(command, "perf.data", cwd=tmp_path)
        assert named.returncode == 0 and pylbr(command, cwd=tmp_path).stdout == named.stdout
    (tmp_path / "perf.data").unlink()
    assert "no file given" in pylbr("report", cwd=tmp_path).stderr


@pytest.mark.parametrize("command", ["msr", "cpuid"])
def test_a_processor_has_one_option(command):
    by_cpu = pylbr(command, "--cpu", "skylake")
    assert by_cpu.returncode == 0 and by_cpu.stdout
    assert pylbr(command, "--model", "skylake").stdout == by_cpu.stdout != pylbr(command).stdout
