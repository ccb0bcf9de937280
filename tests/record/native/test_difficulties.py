"""Programs that make recording from inside hard: output and exit code stay what they are."""

import os
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from tests.record.conftest import need
from tests.record.native.conftest import PROGRAMS, ROOT
from tests.record.native.stacks import complaints, read

pytestmark = [pytest.mark.peer, pytest.mark.slow]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Compile a program of this directory."""
    place = tmp_path_factory.mktemp("programs")

    def compiled(name, *flags):
        compiler = shutil.which("g++" if name.endswith(".cc") else "gcc")
        need(compiler, "no compiler")
        path = place / name.partition(".")[0]
        subprocess.run([compiler, "-O2", "-w", *flags, "-o", path, PROGRAMS / name, "-lpthread"],
                       check=True, timeout=120)
        return path

    return compiled


def same(native_record, *command, hertz=10_000):
    """The recording of a command that does what it does alone."""
    alone = subprocess.run(command, capture_output=True, timeout=120)
    options = ("-F", str(hertz), "--max-overhead", "100", "--burst", "2")
    path, result = native_record(*command, options=options, check=alone.returncode)
    assert result.stdout == alone.stdout
    return read(path), result.stderr.decode()


@pytest.mark.parametrize("name", ["faults.c", "throws.cc"])
def test_faults_are_seen_at_the_instruction_of_the_program(native_record, built, name):
    found, said = same(native_record, built(name, "-fnon-call-exceptions"), hertz=50_000)
    assert found.count > 20
    assert " fault" in said  # some lay in windows


#: Look for deaf threads all the time, and hold every one for deaf.
SUSPICIOUS = """\
import sys
from pylbr.cli import main
from pylbr.record.native import masked
masked._LOOK_SECONDS = masked._TICKS = 0
masked.Masked.heard = lambda *given: None
sys.exit(main(sys.argv[1:]))
"""


def test_a_thread_that_is_met_in_a_tick_is_not_taken_for_deaf(native, built, tmp_path):
    """Under load a thread may make no stack for long, and be met in a tick when it does."""
    program, path = built("faults.c", "-fnon-call-exceptions"), tmp_path / "out.data"
    alone = subprocess.run(program, capture_output=True, timeout=120, check=True)
    for _ in range(4):
        result = subprocess.run(
            [sys.executable, "-c", SUSPICIOUS, "record", "--engine", "native", "-F", "50000",
             "--max-overhead", "100", "-o", path, "--", program], capture_output=True, timeout=300,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
        assert (result.returncode, result.stdout) == (0, alone.stdout), result.stderr
        assert read(path).count > 20


def test_code_that_patches_itself_runs_as_patched(native_record, built):
    found, _ = same(native_record, built("patching.c"))
    assert found.count > 20


def test_restartable_sequences_are_restarted(native_record, built):
    found, said = same(native_record, built("sequences.c"))
    assert found.count > 100
    assert "code that may not be copied" in said
    edges, ranges, wrong = complaints(found)
    assert edges and not wrong


def test_handlers_see_the_program_alone(native_record, built):
    found, _ = same(native_record, built("signals.c", "-fno-omit-frame-pointer", "-rdynamic"))
    assert found.count > 200


def test_registers_are_the_programs(native_record, built):
    found, _ = same(native_record, built("registers.c"))
    assert found.count > 200


def test_signals_are_the_programs(native_record, built):
    found, _ = same(native_record, built("dispositions.c"))
    assert found.count > 200


def test_threads_that_block_every_signal_are_recorded(native_record, built):
    found, _ = same(native_record, built("masked.c"))
    assert len(found.tids) >= 3 and found.count > 300


def test_confined_programs_go_on_and_are_recorded(native_record, built):
    found, _ = same(native_record, built("confined.c"))
    assert found.count > 200


@pytest.mark.parametrize("flags", [(), ("-static",)], ids=["dynamic", "static"])
def test_threads_forks_and_executed_programs(native_record, built, flags):
    found, _ = same(native_record, built("families.c", *flags), hertz=2000)
    assert len(found.tids) > 10  # threads, and more than one process
    programs = Counter({task: len(stacks) for task, stacks in found.stacks.items()})
    assert sum(count > 5 for count in programs.values()) >= 4
    edges, ranges, wrong = complaints(found)
    assert edges and ranges and not wrong


def test_a_process_that_a_call_might_kill_is_left_alone(native_record, built):
    """It installs its filter before the recorder gets to it, or has been reached before."""
    program = built("filtered.c")
    alone = subprocess.run([program], capture_output=True, timeout=60, check=True)
    _, result = native_record("sh", "-c", f"{program}; echo $?", check=None)
    assert result.stdout == alone.stdout + b"0\n"


def test_valgrind_runs_its_program_and_is_left_alone(native_record):
    need(shutil.which("valgrind"), "no valgrind")
    _, result = native_record("valgrind", "-q", "/bin/echo", "unharmed",
                              check=None)
    assert result.stdout == b"unharmed\n"
    assert b"is not recorded: memcheck-amd64-linux serves the signals" in result.stderr
