"""Bare code and single functions on the Unicorn engine, beside QEMU and a disassembler."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BranchClass as C
from pylbr import trace
from pylbr.cli import main
from pylbr.errors import CommandError
from pylbr.perf.stacks import Samples
from pylbr.record.bare import IMPORTS, load
from pylbr.record.engine import engine, engines
from tests.record import oracle
from tests.record.conftest import ROOT, Run, need

PEERS = ROOT / "tests" / "peers"
BARE = ("-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector",
        "-fcf-protection=none")
#: XOR EAX, EAX; ADD RAX, RDI; DEC RDI; JNZ back; RET: the sum of 1 to n.
SUM = bytes.fromhex("31c04801f848ffcf75f8c3")


@pytest.fixture
def unicorn(tmp_path, capfdbinary):
    """``pylbr record --engine unicorn``, within this process."""
    pytest.importorskip("unicorn")

    def record(*arguments, full=True, options=(), check=0):
        path = tmp_path / ("out.arrow" if full else "out.data")
        code = main(["record", "--engine", "unicorn", *(["--full"] if full else []), *options,
                     "-o", str(path), "--", *map(str, arguments)])
        captured = capfdbinary.readouterr()
        assert code == check, captured.err
        return Run(path, subprocess.CompletedProcess(arguments, code, captured.out, captured.err))

    return record


@pytest.fixture(scope="module")
def functions(build):
    return build("functions.c", "-shared", "-fPIC", "-fstack-protector-all", output="functions.so")


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    """A static program without a C library."""
    program = tmp_path_factory.mktemp("bare") / "workload"
    subprocess.run(["gcc", *BARE, "-no-pie", "-o", program, PEERS / "workload.c"], check=True)
    return program


def said(run):
    return run.result.stderr.decode()


def stacks(path):
    with trace.open_stacks(path) as source:
        return [record for record in source if isinstance(record, Samples)]


@pytest.mark.parametrize(("call", "result"), [
    (("fib", "15"), "610 (0x262)"), (("through_table", "1", "0xa"), "55 (0x37)"),
    (("through_table", "0", "-3"), "-3 (0xfffffffffffffffd)"),
    (("length", "eleven char"), "11 (0xb)"),
    (("weighted", *"12345678"), "892 (0x37c)"), (("divides", "84", "-2"), "-42 "),
])
def test_function_of_a_library(functions, unicorn, call, result):
    run = unicorn(f"{functions}:{call[0]}", *call[1:])
    assert f"{call[0]} returned {result}" in said(run)
    report = oracle.check(run.path)
    assert report.wrong == [] and report.edges > 0


def test_every_call_and_return_is_there(functions, unicorn):
    """fib(n) makes 2 fib(n + 1) - 2 calls and one return more."""
    counts = unicorn(f"{functions}:fib", "20").classes()
    assert counts[C.NEAR_REL_CALL] == 2 * 10946 - 2
    assert counts[C.NEAR_RET] == 2 * 10946 - 1


def test_raw_code(unicorn, tmp_path):
    (tmp_path / "sum").write_bytes(SUM)
    run = unicorn(tmp_path / "sum", "100")
    assert "sum returned 5050 " in said(run)
    assert run.classes() == {C.COND: 99, C.NOT_TAKEN: 1, C.NEAR_RET: 1}


@pytest.mark.parametrize("flags", [("-no-pie",), ("-static-pie", "-fPIE")])
def test_static_program(pylbr_record_without_qemu, tmp_path, flags):
    """Arguments arrive, output and exit code go out, what it asks else of a kernel is refused."""
    source = tmp_path / "hello.c"
    source.write_text("""
        static long call(long n, long a, long b, long c) {
            long r;
            __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c)
                             : "rcx", "r11", "memory");
            return r;
        }
        __attribute__((used)) void begin(long *stack) {
            char text[8];
            char *word = (char *)stack[2];
            long got = call(0, 0, (long)text, 8);
            call(1, 1, (long)text, got);
            call(1, 2, (long)word, 3);
            call(60, stack[0] + (call(39, 0, 0, 0) == -38 ? 40 : 0), 0, 0);
        }
        __asm__(".globl _start\\n_start: mov %rsp, %rdi\\n call begin");
    """)
    program = tmp_path / "hello"
    subprocess.run(["gcc", *BARE, *flags, "-o", program, source], check=True)
    pytest.importorskip("unicorn")
    run = pylbr_record_without_qemu(program, "one", "two", options=("--engine", "unicorn"),
                                    input=b"stdin\n", check=43)
    assert run.result.stdout == b"stdin\n" and b"one" in run.result.stderr
    assert "system call 39 is not served" in said(run)
    counts = run.classes()
    assert counts[C.SYSCALL] == counts[C.SYSRET] == 4
    assert oracle.check(run.path).wrong == []


@pytest.mark.peer
def test_same_trace_as_qemu(workload, unicorn, pylbr_record, tmp_path):
    """Every branch of a program with all kinds of near branches, field by field."""
    columns = []
    for record in (unicorn, pylbr_record):
        run = record(workload, check=80)
        with trace.open(run.path) as source:
            columns.append([
                np.concatenate(parts) for parts in zip(*(
                    [np.asarray(chunk.column(name)) for name in (
                        "from", "to", "class", "instructions", "cpl_from", "cpl_to")]
                    for chunk in source.chunks()), strict=True)])
    for ours, qemus in zip(*columns, strict=True):
        assert ours.tobytes() == qemus.tobytes()
    assert len(columns[0][0]) > 30_000


@pytest.mark.parametrize("event", ["branches:u", "taken", "instructions:u", "cycles"])
def test_samples_are_windows_of_the_trace(workload, unicorn, event):
    """As many as there are periods, each the stack of the taken branches before it."""
    full = unicorn(workload, check=80).branches()
    sampled = unicorn(workload, full=False, options=("-e", event, "-c", "997"), check=80)
    user = full["from"] < 1 << 63
    total = {"branches:u": user.sum(), "taken": (user & (full["class"] != C.NOT_TAKEN)).sum()}.get(
        event, full["instructions"].sum())
    batches = stacks(sampled.path)
    assert sum(map(len, batches)) == total // 997
    recorded = (full["class"] != C.NOT_TAKEN) & user & (full["to"] < 1 << 63)
    haystack = np.stack([full["from"][recorded], full["to"][recorded]], axis=1).tobytes()
    times = np.concatenate([batch.time for batch in batches])
    assert (np.diff(times.astype(np.int64)) >= 0).all()
    for batch in batches:
        for i in range(len(batch)):
            stack = batch.stack(i)[::-1]
            needle = np.stack([stack["from"], stack["to"]], axis=1).tobytes()
            at = haystack.find(needle)
            while at % 16:
                at = haystack.find(needle, at + 1)
            assert at >= 0


@pytest.mark.peer
def test_consumers_take_its_samples(workload, unicorn):
    """The mappings come before the samples, so that addresses have names."""
    profgen = shutil.which("/usr/lib/llvm-16/bin/llvm-profgen")
    need(profgen and shutil.which("perf"), "no perf or llvm-profgen")
    run = unicorn(workload, full=False, options=("-e", "taken", "-c", "101"), check=80)
    named = subprocess.run(["perf", "script", "-i", run.path, "-F", "brstacksym"],
                           capture_output=True, text=True, check=True).stdout
    assert "next+0x" in named and "[unknown]" not in named
    said = subprocess.run([profgen, f"--perfdata={run.path}", f"--binary={workload}",
                           f"--output={run.path}.prof", "--format=text"],
                          capture_output=True, text=True)
    assert "mmap" not in said.stderr


def test_models_are_labelled(workload, unicorn):
    run = unicorn(workload, options=("--cycles", "--mispredicts", "tage"), check=80)
    with trace.open(run.path) as source:
        provenance = source.metadata.provenance
        flags = np.concatenate([chunk.column("flags") for chunk in source.chunks()])
    assert provenance["engine"] == "Unicorn"
    assert provenance["cycles"] == "model: one cycle per instruction"
    assert provenance["mispredicts"] == "model: tage" and flags.any()


@pytest.mark.parametrize(("call", "code", "message"), [
    (("reads", "5"), 139, "reads died of SIGSEGV at 0x5.*: a read at 0x5$"),
    (("writes", "0x555555555000"), 139, "a write at 0x555555555000$"),
    (("divides", "1", "0"), 136, "divides died of SIGFPE"),
    (("allocates", "1"), 139, "it calls malloc, which .*functions.so only imports$"),
])
def test_function_that_dies(functions, unicorn, call, code, message):
    """The file is there, and one line gives the reason."""
    run = unicorn(f"{functions}:{call[0]}", *call[1:], check=code)
    assert run.path.exists()
    line = said(run).splitlines()[-1]
    assert re.search(message, line), line


@pytest.mark.parametrize(("code", "number"), [
    ("f4", signal.SIGSEGV), ("0f30", signal.SIGSEGV), ("fa", signal.SIGSEGV),
    ("0f0b", signal.SIGILL), ("cc", signal.SIGTRAP), ("ffe7", signal.SIGSEGV),
])
def test_raw_code_has_no_privilege(unicorn, tmp_path, code, number):
    """HLT, WRMSR, CLI, UD2, INT3, a jump to nowhere."""
    (tmp_path / "code").write_bytes(bytes.fromhex(code))
    run = unicorn(tmp_path / "code", "0x1234000", check=128 + number)
    assert f"code died of {number.name} at 0x" in said(run)


@pytest.mark.parametrize(("what", "code", "message"), [
    ("{0}:fub", 127, "no function 'fub'; there is fib"), ("{0}", 126, "name a function of it"),
    ("{1}/none", 127, "no such file"), ("{1}/none:f", 127, "no such file"),
    ("{1}/empty", 126, "empty"), ("{1}", 127, "no such file"),
    ("{1}/text:f", 126, "is no ELF file, so it names no function"),
])
def test_nothing_to_run(functions, unicorn, tmp_path, what, code, message):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_bytes(b"text")
    run = unicorn(what.format(functions, tmp_path), check=code)
    assert message in said(run) and said(run).count("\n") == 1
    assert not run.path.exists()


def test_no_clock(functions, unicorn):
    run = unicorn(f"{functions}:fib", "1", full=False, options=("-F", "99"), check=2)
    assert "-F: engine unicorn has no clock" in said(run)


def test_signal_ends_it_and_keeps_the_file(tmp_path):
    pytest.importorskip("unicorn")
    (tmp_path / "loop").write_bytes(b"\xeb\xfe")
    process = subprocess.Popen(
        [sys.executable, "-m", "pylbr", "record", "--engine", "unicorn", "-o", tmp_path / "x.data",
         "--", tmp_path / "loop"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not any(
            path.stat().st_size > 1 << 15 for path in tmp_path.glob("*x.data*")):
        time.sleep(0.02)  # until it runs and samples have been written
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGTERM
    process.stderr.close()
    assert sum(map(len, stacks(tmp_path / "x.data"))) > 10


def test_without_unicorn(functions, tmp_path):
    """One line, which names what to install."""
    script = ("import sys; sys.modules['unicorn'] = None; from pylbr.cli import main; "
              "sys.exit(main(sys.argv[1:]))")
    result = subprocess.run(
        [sys.executable, "-c", script, "record", "--engine", "unicorn", "-o", tmp_path / "x", "--",
         f"{functions}:fib", "3"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == (
        "pylbr record: guests and emulated programs need unicorn: pip install 'pylbr[unicorn]'\n")
    assert not (tmp_path / "x").exists()


def test_other_packages_register_engines(tmp_path, monkeypatch):
    package = tmp_path / "abacus-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[pylbr.engines]\nabacus = abacus:Abacus\nbroken = abacus_missing:Engine\n")
    (tmp_path / "abacus.py").write_text("class Abacus:\n    name = 'beads'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert {"qemu", "unicorn", "abacus", "broken"} <= set(engines())
    assert engine("abacus").name == "beads"
    with pytest.raises(CommandError, match=r"engine 'broken' \(abacus_missing:Engine\): No module"):
        engine("broken")


def test_imports_have_addresses(functions):
    code = load(f"{functions}:fib")
    assert set(code.imports) == {"malloc", "__stack_chk_fail"} and code.function == "fib"
    assert any(IMPORTS.to_bytes(8, "little") in segment.data for segment in code.segments)


@settings(max_examples=30)
@given(data=st.data())
def test_damaged_files_are_refused(functions, tmp_path_factory, data):
    """Whatever is in it: a code to run or one error."""
    whole = bytearray(functions.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.one_of(st.integers(0, 0x400), st.integers(0, len(whole) - 1)))
        whole[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.so"
    path.write_bytes(whole[:data.draw(st.integers(1, len(whole)))])
    try:
        assert load(f"{path}:fib").segments
    except CommandError as error:
        assert str(path) in str(error)
