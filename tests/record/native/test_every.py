"""Every branch of a program, recorded natively."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from lbrcore import BranchClass
from pylbr import trace
from pylbr.cli import main
from pylbr.errors import UnsupportedFeature
from pylbr.record.native.full import expand_reference
from pylbr.record.native.full._expand import expand
from pylbr.record.native.full.memory import Memory, full_blob
from pylbr.record.parts import FULL
from pylbr.record.toolchain import built as built_part
from pylbr.record.wire_numbers import PAYLOAD
from tests.record.conftest import ROOT, need
from tests.record.native.test_blob import FOREIGN, WORDS, instructions
from tests.record.native.test_difficulties import built  # noqa: F401

pytestmark = pytest.mark.peer

#: Without a C library, and without protections that the compiler of one distribution adds.
BARE = ("-O1", "-static", "-nostdlib", "-no-pie", "-fno-pie", "-fcf-protection=none",
        "-fno-stack-protector")


def rows(path):
    with trace.open(path) as source:
        return np.concatenate([chunk.branches for chunk in source.chunks()])


def connected(found):
    """Whether each branch lies ahead of where the one before has arrived, and not far."""
    user = (found["cpl_from"][1:] == 3) & (found["cpl_to"][:-1] == 3)
    gap = (found["from"][1:] - found["to"][:-1])[user]
    return bool((gap <= 15 * found["instructions"][1:][user].astype(np.uint64)).all())


@pytest.fixture
def full(native, tmp_path):
    """The rows of a command that does what it does alone, and what pylbr said."""

    def record(*command, check=True):
        path = tmp_path / "out.lbrt"
        result = subprocess.run(
            [sys.executable, "-m", "pylbr", "record", "--engine", "native", "--full", "-o", path,
             "--", *command], capture_output=True, timeout=240, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)})
        if check:
            alone = subprocess.run(command, capture_output=True, timeout=120, cwd=tmp_path)
            code = alone.returncode if alone.returncode >= 0 else 128 - alone.returncode
            assert (result.stdout, result.returncode) == (alone.stdout, code), result.stderr
        return rows(path), result.stderr.decode()

    return record


# ---- against QEMU ----


@pytest.mark.parametrize("suffix", ["lbrt", "parquet"])
def test_rows_are_those_of_qemu(native, qemu, built, tmp_path, suffix):  # noqa: F811
    """All kinds of branches, faults, signals in handlers, traps: row for row."""
    program = built("every.c", *BARE)
    paths = [tmp_path / f"{engine}.{suffix}" for engine in ("native", "qemu")]
    for path in paths:
        assert main(["record", "--full", "-q", "--engine", path.stem, "-o", str(path), "--",
                     str(program)]) == 7
    ours, theirs = map(rows, paths)
    assert len(ours) > 9000
    assert set(ours["class"].tolist()) >= {
        BranchClass.COND, BranchClass.NOT_TAKEN, BranchClass.NEAR_IND_JMP, BranchClass.NEAR_REL_JMP,
        BranchClass.NEAR_IND_CALL, BranchClass.NEAR_REL_CALL, BranchClass.NEAR_RET,
        BranchClass.ZERO_CALL, BranchClass.SYSCALL, BranchClass.SYSRET, BranchClass.IRET,
        BranchClass.EXCEPTION, BranchClass.SOFT_INT}
    assert np.array_equal(ours, theirs)


def test_mispredicts_are_those_of_qemu(native, qemu, built, tmp_path):  # noqa: F811
    program = built("every.c", *BARE)
    paths = [tmp_path / f"{engine}.lbrt" for engine in ("native", "qemu")]
    for path in paths:
        assert main(["record", "--full", "-q", "--mispredicts", "tage", "--engine", path.stem, "-o",
                     str(path), "--", str(program)]) == 7
    ours, theirs = map(rows, paths)
    assert ours["flags"].any() and np.array_equal(ours, theirs)


# ---- programs that make it hard ----


@pytest.mark.slow
@pytest.mark.parametrize("name", ["faults.c", "registers.c", "throws.cc"])
def test_programs_do_what_they_do_alone(full, built, name):  # noqa: F811
    found, said = full(built(name, "-fnon-call-exceptions"))
    assert len(found) > 10_000 and connected(found)
    assert "the file ends" not in said and "without an explanation" not in said


@pytest.mark.slow
@pytest.mark.parametrize(("name", "why"), [
    ("patching.c", "its code can be written while it runs"),
    ("sequences.c", "it starts a thread"),
    ("waits.c", "it starts a thread"),
    ("confined.c", "it makes a system call that would shut the recorder out"),
])
def test_what_cannot_be_followed_goes_on_natively(full, built, name, why):  # noqa: F811
    """The rows up to there are right, and one line says why there are no more."""
    found, said = full(built(name))
    assert len(found) > 1000 and connected(found)
    assert len(re.findall(f"the file ends where {why} .*--engine qemu", said)) == 1


def test_signals_come_at_the_programs_own_addresses(full, build):
    found, said = full(build("signals.c", output="signals-dynamic"), check=False)
    classes = found["class"].tolist()
    assert BranchClass.INTERRUPT in classes and BranchClass.EXCEPTION in classes
    assert connected(found) and "without an explanation" not in said
    handled = np.flatnonzero(found["class"] == BranchClass.INTERRUPT)
    assert (found["class"][handled + 1] == BranchClass.IRET).all()


def test_sent_signals_of_faults_come_at_any_point(full, built):  # noqa: F811
    """SIGSEGV and SIGFPE are never blocked: they find copied code, or the recorder itself."""
    found, said = full(built("sent.c"))
    assert len(found) > 100_000 and connected(found)
    assert "the file ends" not in said and "without an explanation" not in said


def test_a_sent_fault_kills_a_program_without_a_handler(full):
    found, said = full("/bin/sh", "-c", "kill -SEGV $$; echo no")
    assert len(found) > 10_000 and connected(found) and "the file ends" not in said


@pytest.mark.slow
def test_system_calls_with_bad_pointers_are_the_kernels(full, built):  # noqa: F811
    """clone3 without arguments; rt_sigreturn without a frame, or with one that is not writable."""
    program = built("frames.c")
    for way in ((), ("die",)):
        found, said = full(program, *way)
        assert len(found) > 10_000 and connected(found)
        assert "the file ends" not in said and "without an explanation" not in said


def test_children_go_on_natively(full, tmp_path):
    found, said = full("/bin/sh", "-c", "echo $(echo a; echo b) | cat; ls / >/dev/null; exit 3")
    assert connected(found)
    assert re.search(r"\d processes that it has forked are not in the file: --engine qemu", said)


def test_another_program_ends_the_file(full):
    found, said = full("/bin/sh", "-c", "exec /bin/echo x")
    assert connected(found)
    assert "the file ends where it executes another program" in said


@pytest.mark.slow
@pytest.mark.parametrize("command", [
    ("gzip", "-c", "/bin/sh"), ("/usr/bin/perl", "-e", "print $_ ** 2 for 1..2000"),
    ("/usr/bin/python3", "-c", "import json, re, hashlib; print(hashlib.md5(b'x').hexdigest())"),
    ("sort", "/etc/services"), ("ls", "-lR", "/etc/ssl"),
])
def test_real_programs(full, command):
    need(os.path.exists(command[0]) or not command[0].startswith("/"), f"no {command[0]}")
    found, said = full(*command)
    assert len(found) > 50_000 and connected(found)
    assert "without an explanation" not in said


# ---- endings ----


def test_crash_and_kill_keep_what_ran(full, build):
    for how, least in (("crash", 20_000), ("kill", 20_000), ("abort", 20_000)):
        found, said = full(build("faults.c", output="faults-full"), how)
        assert len(found) > least and connected(found), how
        assert "the file ends" not in said


def test_terminated_from_outside(native, build, tmp_path):
    program = build("faults.c", output="faults-full")
    path = tmp_path / "a.lbrt"
    with subprocess.Popen(
        [sys.executable, "-m", "pylbr", "record", "--full", "-q", "--engine", "native", "-o",
         path, "--", program, "wait"], stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert len(rows(path)) > 1000


def test_size_is_limited(native, build, tmp_path, capfd):
    path = tmp_path / "a.lbrt"
    assert main(["record", "--full", "--engine", "native", "--max-size", "100K", "-o", str(path),
                 "--", str(build("faults.c", output="faults-full")), "work", "30000000"]) == 0
    assert path.stat().st_size <= 100 << 10
    assert "--max-size of 102,400 bytes is reached" in capfd.readouterr().err
    assert len(rows(path)) > 10_000


def test_cycles_are_refused(native, capsys):
    assert main(["record", "--full", "--cycles", "--engine", "native", "--", "true"]) == 2
    assert "the native engine has no model of cycles" in capsys.readouterr().err


# ---- parts ----

words = st.lists(st.one_of(st.integers(0, 12), st.integers(PAYLOAD, 2**32 - 1)), max_size=40)
ways = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 66)), max_size=12)


@given(words, ways)
def test_ways_expand_as_in_the_plain_twin(words, ways):
    data = np.array(words, np.uint32)
    table = np.array(ways, np.uint32).reshape(-1, 2)
    results = []
    for function in (expand, expand_reference.expand):
        try:
            results.append(function(data, table).tolist())
        except ValueError as error:
            results.append(str(error))
    assert results[0] == results[1]


@pytest.fixture(scope="module")
def blob():
    try:
        return built_part(FULL)
    except UnsupportedFeature as error:
        need(False, str(error))


def test_only_general_registers_are_used(blob):
    listed = instructions(blob)
    assert len(listed) > 1000
    assert not [text for text in listed if FOREIGN.search(text) or WORDS.match(text.split()[0])]


def test_nothing_is_relocated_or_imported(blob):
    with blob.open("rb") as file:
        elf = ELFFile(file)
        assert not [s.name for s in elf.iter_sections() if s["sh_type"] in ("SHT_RELA", "SHT_REL")]
        table = elf.get_section_by_name(".symtab")
        assert not [s.name for s in table.iter_symbols() if s.name and s["st_shndx"] == "SHN_UNDEF"]


@pytest.mark.parametrize("read, written", [(1, 0), (0, 1 << 63), (1 << 63, 1 << 62)])
def test_a_ring_that_the_program_has_written_over_is_refused(native, read, written):
    fd = os.memfd_create("memory")
    memory = Memory(fd, full_blob())
    try:
        memory._header["read"], memory._header["written"] = read, written
        with pytest.raises(ValueError, match="words wait in a ring"):
            memory.take(100)
    finally:
        memory.close()
        os.close(fd)
