"""An unmodified Linux on the machine, and its own perf with our LBRs."""

from __future__ import annotations

import re

import pytest

from pylbr.cli import main
from pylbr.embed.machine import MIB, Ending, Machine
from pylbr.linux.boot import boot
from pylbr.linux.booted import COMMAND_LINE
from pylbr.linux.kernel import load
from tests.linux.branch_check import Code, stacks

pytestmark = pytest.mark.peer

#: perf reads /proc/kallsyms whole; these tests need no names of the kernel.
NO_SYMBOLS = "mount -o bind /dev/null /proc/kallsyms; "


def test_the_kernel_finds_the_lbrs(linux):
    found = re.search("Performance Events: (.*)", linux.console)[1]
    assert "XSAVE Architectural LBR" in found and "32-deep LBR" in found
    assert "Sapphire Rapids events" in found and "Intel PMU driver" in found
    assert not re.search("WARN|BUG|Oops|unchecked MSR", linux.console)


@pytest.mark.parametrize(("model", "expected"), [
    ("architectural", r"XSAVE Architectural LBR, .*generic architected perfmon, .*32-deep LBR"),
    ("alder-lake-p", "XSAVE Architectural LBR, .*32-deep LBR"),
    ("haswell", "Haswell events, 16-deep LBR"),
    ("goldmont", "Goldmont events, 32-deep LBR"),
])
def test_the_kernel_finds_the_lbrs_of_other_processors(kernel, model, expected):
    """As far as its line about the PMU, which is a sixth of the way."""
    shown = bytearray()

    def console(data):
        shown.extend(data)
        if b"Performance Events" in shown and data == b"\n" and shown.rindex(
                b"Performance Events") > shown.rindex(b"\n", 0, -1):
            machine.stop(Ending("exit", 0, "seen"))

    machine = Machine(model, memory=256 * MIB, console=console)
    boot(machine, load(kernel), b"", COMMAND_LINE)
    assert machine.run(400_000_000).kind == "exit", shown[-2000:]
    assert re.search("Performance Events: .*" + expected, shown.decode()), shown[-300:]


def test_perf_records_what_the_program_did(linux, work, tmp_path):
    """Every entry is a branch of the program, and neighbours are joined by straight code."""
    command = NO_SYMBOLS + (
        "perf record -q -BN -b -e branches:u -c 1009 ./work 20000 && "
        "perf stat -x, -e branches:u,instructions:u ./work 20000 2>&1; "
        "perf stat -x, -e branches:u,instructions:u ./work 21000 2>&1")
    result, printed, machine = linux.run(command, {"work": work})
    assert (result.ending.kind, result.ending.code) == ("exit", 0), printed
    assert machine.link.recorder.unexplained == 0
    data = tmp_path / "perf.data"
    data.write_bytes(result.files["perf.data"])
    code, recorded = Code(work), stacks(data)
    wrong = [(hex(a), hex(b), code.wrong(a, b)) for stack in recorded for a, b in stack
             if code.wrong(a, b)]
    assert not wrong
    apart = [(hex(older[1]), hex(newer[0])) for stack in recorded
             for newer, older in zip(stack, stack[1:], strict=False)
             if code.at[older[0]][0] != "syscall" and not code.connected(older[1], newer[0])]
    assert not apart
    counts = [int(n) for n in re.findall(r"^(\d+),,", printed, re.M)]
    branches, instructions = counts[2] - counts[0], counts[3] - counts[1]
    # A round is 14 or 15 instructions; the call, the return, the loop's branch, one or two others.
    assert 4000 <= branches <= 5000 and 12000 <= instructions <= 17000
    assert abs(len(recorded) - counts[0] / 1009) <= 2
    assert all(len(stack) == 32 for stack in recorded[3:])


def test_two_runs_are_identical(linux, work):
    """The clock, the interrupts and the random numbers come from the machine."""
    command = NO_SYMBOLS + "perf record -q -BN -b -e branches:u -c 5003 ./work; dmesg | tail -n 3"
    first, second = (linux.run(command, {"work": work}) for _ in range(2))
    assert first[0].files["perf.data"] == second[0].files["perf.data"]
    assert first[1] == second[1] and first[2].clock == second[2].clock


def test_files_and_exit_codes(linux):
    """In under their paths, out if written, the exit code of the command."""
    result, printed, _ = linux.run(
        "cat folder/in.txt; mkdir -p out; seq 3 > out/three; date +%Y; exit 7",
        {"folder/in.txt": b"from the host\n"})
    assert (result.ending.kind, result.ending.code) == ("exit", 7)
    assert printed == "from the host\n2026\n" and result.files == {"out/three": b"1\n2\n3\n"}


def test_a_panic_ends_the_run(linux):
    result, _, machine = linux.run("echo c > /proc/sysrq-trigger")
    assert result.ending.kind == "panic" and "Kernel panic" in result.ending.reason


def test_a_guest_that_loops(linux):
    result, _, _ = linux.run("while true; do true; done", limit=20_000_000)
    assert result.ending.kind == "limit"


@pytest.mark.parametrize(("contents", "message"), [
    (b"text\n" * 1000, "neither a bzImage nor an ELF executable"),
    (b"", "neither a bzImage nor an ELF executable"),
    (b"\x7fELF" + bytes(200), "no ELF file, or a damaged one"),
])
def test_no_kernel(tmp_path, capsys, contents, message):
    path = tmp_path / "kernel"
    path.write_bytes(contents)
    assert main(["run", "--kernel", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_damaged_kernels(kernel, tmp_path, capsys):
    """Truncated, an old protocol, and a payload that does not unpack: one line each."""
    data = kernel.read_bytes()
    old, packed = bytearray(data), bytearray(data)
    old[0x206:0x208] = b"\x04\x02"
    packed[len(data) // 2:len(data) // 2 + 4096] = bytes(4096)
    for name, contents, message in (
            ("short", data[:100_000], "ends before its payload"),
            ("old", bytes(old), "32-bit kernel"), ("packed", bytes(packed), "unpack")):
        path = tmp_path / name
        path.write_bytes(contents)
        assert main(["run", "--kernel", str(path)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_what_does_not_fit(kernel, tmp_path, capsys):
    initrd = tmp_path / "initrd"
    initrd.write_bytes(bytes(200 * MIB))
    for options, message in (
            (["--memory", "32"], "more memory"),
            (["--memory", "200", "--initrd", str(initrd)], "more memory"),
            (["--append", "x" * 5000], "command line"),
            (["--memory", "4096"], "memory")):
        assert main(["run", "--kernel", str(kernel), *options]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
