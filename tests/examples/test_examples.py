"""The worked examples, built and run against the installed package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest

from pylbr.perf.data_reader import PerfData
from pylbr.perf.stacks import Samples
from tests.conftest import ROOT, Installed
from tests.core.library import prefix
from tests.once import needs

pytestmark = pytest.mark.slow
#: A QEMU of another version, as .ci/other-qemu unpacks it.
OTHER = os.environ.get("PYLBR_OTHER_QEMU") or os.path.expanduser(
    "~/.cache/pylbr-other-qemu/trixie/qemu-system-x86_64")
EXAMPLES = ROOT / "examples"


def build(source: Path, target: Path, installed: Installed, *flags: str) -> Path:
    """Compile a program that embeds Python, warnings being errors."""
    library = sysconfig.get_config_var("LIBDIR")
    compiler = "g++" if source.suffix == ".cpp" else "gcc"
    command = [
        compiler, "-O2", "-Wall", "-Wextra", "-Werror", *flags, str(source), "-o", str(target),
        f"-I{installed.include}", f"-I{sysconfig.get_path('include')}", f"-L{library}",
        f"-Wl,-rpath,{library}", f"-lpython{sysconfig.get_config_var('LDVERSION')}",
    ]
    subprocess.run(command, check=True, timeout=120)
    return target


def run(program: Path, installed: Installed, *arguments: str) -> str:
    return subprocess.run(
        [str(program), *arguments], env=installed.environment, check=True, capture_output=True,
        text=True, timeout=120,
    ).stdout


def fib_branches() -> list[tuple[int, int, int]]:
    """(from, to, BR_TYPE) of fib(10) as the C example runs it, oldest first; an own model."""
    branches: list[tuple[int, int, int]] = []

    def go(source: int, target: int, kind: int) -> None:
        branches.append((0x401000 + 4 * source, 0x401000 + 4 * target, kind))

    def fib(n: int, back: int) -> None:
        if n == 0:
            return go(4, back, 5)
        go(3, 5, 0)
        if n == 1:
            return go(8, back, 5)
        go(6, 9, 0)
        go(10, 3, 4)
        fib(n - 1, 11)
        go(13, 3, 4)
        fib(n - 2, 14)
        return go(14, back, 5)

    go(1, 3, 4)
    fib(10, 2)
    return branches


def test_c(tmp_path: Path) -> None:
    program = tmp_path / "emulator"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", str(EXAMPLES / "c/emulator.c"),
                    f"-I{prefix() / 'include'}", str(prefix() / "lib/liblbrcore.a"),
                    "-o", str(program)], check=True, timeout=120)
    out = subprocess.run([str(program)], check=True, capture_output=True, text=True,
                         timeout=60).stdout.splitlines()
    assert out[0] == "fib(10) = 55"
    expected = [
        f"{i:2} {source:#x} -> {target:#x} type {kind}"
        for i, (source, target, kind) in enumerate(reversed(fib_branches()[-32:]))
    ]
    assert [line.rsplit(" cycles ", 1)[0] for line in out[1:]] == expected
    timed = subprocess.run([str(program), "--time", "1000"], check=True, capture_output=True,
                           text=True, timeout=60).stdout
    assert re.fullmatch(r"call \S+ ns per branch\ninline \S+ ns per branch\n", timed)


def test_cpp(installed: Installed, tmp_path: Path) -> None:
    program = build(
        EXAMPLES / "cpp" / "snapshot.cpp", tmp_path / "snapshot", installed, "-std=c++17")
    assert run(program, installed).splitlines() == [
        "before 3, after a return 2",
        "#GP: IA32_LBR_CTL: reserved bits",
        "newest 0x401010",
    ]


def test_cython(installed: Installed, tmp_path: Path) -> None:
    for name in ("emulator.pyx", "setup.py"):
        shutil.copy(EXAMPLES / "cython" / name, tmp_path)
    installed.python("setup.py", "-q", "build_ext", "--inplace", cwd=tmp_path)
    out = installed.python("-c", """
import emulator, lbrcore
facility = lbrcore.LbrState(lbrcore.LbrConfig())
facility.ctl = 0x7F0007
last = emulator.walk(facility, 1000)
records = facility.records()
assert last == emulator.walk_unrecorded(1000)[0] == records["to"][0]
assert (records["to"][1:] == records["from"][:-1]).all()
print(lbrcore.__file__, len(records))
""", cwd=tmp_path)
    path, count = out.split()
    assert Path(path).is_relative_to(installed.site)
    assert count == "32"


def test_ctypes(installed: Installed) -> None:
    out = installed.python(str(EXAMPLES / "ctypes" / "facility.py")).splitlines()
    assert out == [
        f"{i} {0x401090 - 16 * i:#x} -> 0x402000 type 4" for i in range(8)
    ]


GUEST = """
    .globl _start
_start:
    mov $3, %ebx
1:  call 3f
2:  dec %ebx
    jnz 1b
    lea 5f(%rip), %rax
    jmp *%rax
5:  mov $60, %eax
    xor %edi, %edi
    syscall
3:  test $1, %bl
    jz 4f
    nop
4:  ret
"""
# Newest first: from, to, BR_TYPE; offsets in GUEST.
GUEST_BRANCHES = [
    (0x15, 0x17, 1), (0x26, 0xA, 5), (0x5, 0x20, 4), (0xC, 0x5, 0), (0x26, 0xA, 5),
    (0x23, 0x26, 0), (0x5, 0x20, 4), (0xC, 0x5, 0), (0x26, 0xA, 5), (0x5, 0x20, 4),
]


@pytest.fixture
def qemu_plugin(tmp_path: Path) -> list[str]:
    """Command line that runs GUEST under the plugin, but for the plugin's options."""
    needs("qemu-x86_64")
    plugin = tmp_path / "lbr_plugin.so"
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden",
         *(str(EXAMPLES / "qemu_plugin" / name) for name in ("lbr_plugin.c", "samples.c")),
         f"-I{prefix() / 'include'}",
         str(prefix() / "lib/liblbrcore.a"), "-o", str(plugin)], check=True, timeout=120)
    (tmp_path / "guest.S").write_text(GUEST)
    subprocess.run(["gcc", "-nostdlib", "-static", "-Wl,-Ttext=0x401000", "-o", "guest",
                    "guest.S"], cwd=tmp_path, check=True, timeout=60)
    return ["qemu-x86_64", "-plugin", str(plugin), str(tmp_path / "guest")]


def lbrs(command: list[str], options: str = "") -> list[tuple[int, ...]]:
    command = [*command[:2], command[2] + options, *command[3:]]
    result = subprocess.run(command, check=True, timeout=120, capture_output=True, text=True)
    lines = [line.split() for line in result.stderr.splitlines()]
    return [(int(line[1], 16) - 0x401000, int(line[3], 16) - 0x401000, int(line[5]))
            for line in lines]


@pytest.mark.peer
def test_qemu_plugin(qemu_plugin: list[str]) -> None:
    assert "libpython" not in subprocess.run(
        ["ldd", qemu_plugin[2]], check=True, capture_output=True, text=True, timeout=60).stdout
    assert lbrs(qemu_plugin) == GUEST_BRANCHES
    calls = [branch for branch in GUEST_BRANCHES if branch[2] == 4]
    assert lbrs(qemu_plugin, ",ctl=0x80007") == calls
    assert lbrs(qemu_plugin, ",ctl=0x38000d") == []  # every call has returned
    for options, message in ((",ctl=0x80", "IA32_LBR_CTL: reserved bits"),
                             (",model=i386", "i386: no model has that name"),
                             (",out=/missing/x", "/missing/x: the file could not be written")):
        refused = subprocess.run(
            [*qemu_plugin[:2], qemu_plugin[2] + options, qemu_plugin[3]],
            capture_output=True, text=True, timeout=120)
        assert refused.returncode == 1 and f"lbr_plugin: {message}" in refused.stderr.replace(
            "sapphire-rapids: ", "")


@pytest.mark.peer
@pytest.mark.parametrize("qemu", ["qemu-system-x86_64", OTHER])
def test_qemu_plugin_in_a_system(qemu: str, qemu_plugin: list[str], tmp_path: Path) -> None:
    """Two processors and the firmware, in this QEMU and in one with a newer plugin interface."""
    needs(qemu)  # .ci/other-qemu unpacks the newer one
    out, part = tmp_path / "perf.data", tmp_path / "perf.data.part"
    process = subprocess.Popen(
        [qemu, "-display", "none", "-net", "none", "-smp", "2", "-plugin",
         f"{qemu_plugin[2]},out={out},period=5000"], stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None and not (
                part.exists() and part.stat().st_size > 40_000):
            time.sleep(0.05)
        process.terminate()  # QEMU ends in good order, and the plugin with it
        said = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert f"samples in {out}" in said
    samples = [record for record in PerfData(out) if isinstance(record, Samples)]
    assert sum(len(each) for each in samples) > 40
    assert max(len(each.entries) / len(each) for each in samples) > 25


@pytest.mark.peer
def test_qemu_plugin_writes_what_perf_reads(qemu_plugin: list[str], tmp_path: Path) -> None:
    """A program of two threads; perf finds its functions and its branch stacks."""
    (tmp_path / "fib.c").write_text("""
        #include <pthread.h>
        __attribute__((noinline)) int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
        static void *run(void *n) { return (void *)(long)fib((int)(long)n); }
        int main(void) {
            pthread_t other;
            pthread_create(&other, 0, run, (void *)21L);
            run((void *)21L);
            return pthread_join(other, 0);
        }""")
    subprocess.run(["gcc", "-O1", "-static", "-pthread", "fib.c", "-o", "fib"], cwd=tmp_path,
                   check=True, timeout=60)
    subprocess.run([*qemu_plugin[:2], f"{qemu_plugin[2]},out={tmp_path}/perf.data,period=400",
                    str(tmp_path / "fib")], check=True, timeout=300, capture_output=True)
    needs("perf")
    out = subprocess.run(["perf", "script", "-i", "perf.data", "-F", "tid,ip,sym,brstack"],
                         cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120)
    lines = [line for line in out.stdout.splitlines() if line.split()[2:3] == ["fib"]]
    assert len(lines) > 50 and {line.split()[0] for line in lines} >= {"1", "2"}
    assert all(len(line.split("0x")) > 32 for line in lines[5:])  # full stacks
    assert sum("/RET" in line and "/CALL" in line for line in lines) > 0.9 * len(lines)


#: What stands between an emulator or a language and the library.
GLUE = ("c/processor.c", "c/unicorn.c", "cpp/cpu.hpp", "cpp/lbr.hpp", "go/main.go",
        "ctypes/facility.py", "qemu_plugin/lbr_plugin.c", "qemu_plugin/samples.c",
        "bochs/instrument.cc")


@pytest.mark.parametrize("name", GLUE)
def test_glue_is_short(name: str) -> None:
    """Under 100 lines of code each, comments aside."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", (EXAMPLES / name).read_text(), flags=re.S)
    assert 20 < sum(bool(line.strip()) for line in text.splitlines()) < 100
