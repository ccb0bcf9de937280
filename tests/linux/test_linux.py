"""An unmodified Linux on the machine, and its own perf with our LBRs."""

from __future__ import annotations

import gzip
import lzma
import re
import struct
from itertools import pairwise

import pytest
import zstandard

from pylbr.cli import main
from pylbr.embed.channel import Channel
from pylbr.embed.contention import Contention, read_script
from pylbr.embed.machine import MIB, Ending, Machine
from pylbr.embed.report import report
from pylbr.embed.savefile import restore
from pylbr.linux.boot import boot
from pylbr.linux.booted import COMMAND_LINE
from pylbr.linux.console import Console
from pylbr.linux.kallsyms import kernel_symbols, named
from pylbr.linux.kernel import load
from pylbr.linux.session import execute
from tests.linux.branch_check import Code, call_chains, stacks, starts
from tests.linux.kernel_check import MAPPED
from tests.peers.peer_tools import VERSIONS, perf2bolt

pytestmark = pytest.mark.peer

#: perf reads /proc/kallsyms whole; these tests need no names of the kernel.
NO_SYMBOLS = "mount -o bind /dev/null /proc/kallsyms; "


def test_the_kernel_finds_the_lbrs(linux):
    found = re.search("Performance Events: (.*)", linux.console)[1]
    assert "XSAVE Architectural LBR" in found and "32-deep LBR" in found
    assert "Sapphire Rapids events" in found and "Intel PMU driver" in found
    assert not re.search("WARN|BUG|Oops|unchecked MSR", linux.console)


_GENERIC = r"XSAVE Architectural LBR, .*generic architected perfmon, .*32-deep LBR"


@pytest.mark.parametrize(("model", "expected"), [
    ("architectural", _GENERIC),
    ("alder-lake-p", "XSAVE Architectural LBR, .*Alderlake.*32-deep LBR"),
    ("haswell", "Haswell events, 16-deep LBR"),
    ("goldmont", "Goldmont events, 32-deep LBR"),
    ("nehalem", "Nehalem events, 16-deep LBR"),
    ("knights-landing", "Knights Landing/Mill events, 8-deep LBR"),
])
def test_the_kernel_finds_the_lbrs_of_other_processors(kernel, model, expected):
    """As far as its line about the PMU, which is a sixth of the way; all the way, of more
    processors, in ``python -m tests.linux.matrix models``."""
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


RECORD = NO_SYMBOLS + "perf record -q -BN -b -e branches:u -c 1009 ./work; dmesg | tail -n 3"


@pytest.fixture(scope="module")
def recorded(linux, work):
    """The program recorded in a guest that has the processor to itself."""
    result, printed, machine = linux.run(RECORD, {"work": work})
    assert (result.ending.kind, result.ending.code) == ("exit", 0), printed
    assert machine.link.recorder.unexplained == 0
    return result.files["perf.data"], printed, machine.clock


def test_perf_records_what_the_program_did(recorded, work, tmp_path):
    """Every entry is a branch of the program, and neighbours are joined by straight code."""
    data = tmp_path / "perf.data"
    data.write_bytes(recorded[0])
    code, stacked = Code(work), stacks(data)
    wrong = [(hex(a), hex(b), code.wrong(a, b)) for stack in stacked for a, b in stack
             if code.wrong(a, b)]
    assert not wrong
    apart = [(hex(older[1]), hex(newer[0])) for stack in stacked
             for newer, older in zip(stack, stack[1:], strict=False)
             if code.at[older[0]][0] != "syscall" and not code.connected(older[1], newer[0])]
    assert not apart
    # Of 20,000 rounds with 4 or 5 branches, and what leads to main.
    assert 4 * 20000 / 1009 < len(stacked) < 5.5 * 20000 / 1009
    # perf leaves out what leads to the kernel, so that stacks around a system call are shorter.
    assert sum(len(stack) == 32 for stack in stacked) > 0.9 * len(stacked)


@pytest.mark.parametrize("version", VERSIONS)
def test_bolt_takes_what_perf_recorded(recorded, work, tmp_path, version):
    """No trace of it mismatches the program's code."""
    data = tmp_path / "perf.data"
    data.write_bytes(recorded[0])
    assert perf2bolt(version, data, work, tmp_path / "fdata") == 0
    calls = re.findall(r"^1 hot(?:/\S+)? \w+ 1 odd(?:/\S+)? 0 \d+ (\d+)$",
                       (tmp_path / "fdata").read_text(), re.M)
    odd = starts(work)["odd"]
    assert calls == [str(sum(to == odd for stack in stacks(data) for _, to in stack))]
    assert int(calls[0]) > 500


def test_call_graphs(linux, work, tmp_path):
    """Of code without frame pointers, through LBRs in call-stack mode: each chain begins at _start,
    and each of its entries is a call of the function that follows."""
    result, printed, _ = linux.run(
        NO_SYMBOLS + "perf record -q -BN --call-graph lbr -e branches:u -c 1009 ./work",
        {"work": work})
    assert (result.ending.kind, result.ending.code) == ("exit", 0), printed
    found, code = call_chains(result.files["perf.data"], work, tmp_path), Code(work)
    # As many as of branch stacks, for the same events.
    assert 4 * 20000 / 1009 < len(found) < 5.5 * 20000 / 1009
    wrong = []
    for chain in found:
        for (callee, start, _), (caller, _, name) in pairwise(chain):
            kind, target = code.at[caller]
            if kind != "call" or target not in (None, start):
                wrong.append((hex(callee), hex(start), hex(caller), name))
    assert not wrong
    names = [[name for _, _, name in chain] for chain in found]
    assert all(chain[-1] == "_start" for chain in names)
    inside = [chain for chain in names if "main" in chain]
    assert len(inside) > 0.9 * len(found)
    assert {tuple(chain[:chain.index("main")]) for chain in inside} == {("hot",), ("odd", "hot")}


def test_counts_are_exact(linux, work):
    """1,000 rounds more of a loop of two instructions are 1,000 branches and 2,000 instructions."""
    commands = [f"perf stat -x, -e branches:u,instructions:u ./work 10 {rounds} 2>&1"
                for rounds in (2000, 3000)]
    _, printed, _ = linux.run(
        NO_SYMBOLS + "echo 0 > /proc/sys/kernel/randomize_va_space; " + "; ".join(commands),
        {"work": work})
    counts = [int(n) for n in re.findall(r"^(\d+),,", printed, re.M)]
    assert (counts[2] - counts[0], counts[3] - counts[1]) == (1000, 2000), printed


def test_two_runs_are_identical(linux, work, recorded):
    """The clock, the interrupts and the random numbers come from the machine."""
    again, printed, machine = linux.run(RECORD, {"work": work})
    assert (again.files["perf.data"], printed, machine.clock) == recorded


@pytest.mark.parametrize(("policy", "same"), [
    ("lease", True), ("mediated", True), ("request", None)])
def test_a_host_that_samples_beside_the_guest(linux, work, recorded, tmp_path, policy, same):
    """The host opens an event, samples, closes it and migrates the vCPU: the guest reads no record
    of the host's, and under `lease` and `mediated` its perf.data is that of a run alone."""
    script = tmp_path / "script"
    script.write_text(f"policy {policy}\nat 1000 open pinned exclude-guest\n"
                      "every 200000 sample\nevery 3000000 close\n"
                      "every 3100000 open pinned exclude-guest\nevery 7000000 migrate\n")
    contention = Contention(read_script(script))
    result, _, _ = linux.run(RECORD, {"work": work}, contention=contention)
    assert (result.ending.kind, result.ending.code) == ("exit", 0)
    assert contention.samples > 300
    assert ", 0 host records read by the guest" in contention.summary()
    assert contention.breaches == 0
    if same:
        assert result.files["perf.data"] == recorded[0]


def test_files_and_exit_codes(linux):
    """In under their paths, out if written, the exit code of the command."""
    result, printed, _ = linux.run(
        "cat folder/in.txt; mkdir -p out; seq 3 > out/three; date +%Y; exit 7",
        {"folder/in.txt": b"from the host\n"})
    assert (result.ending.kind, result.ending.code) == ("exit", 7)
    assert printed == "from the host\n2026\n" and result.files == {"out/three": b"1\n2\n3\n"}


def test_a_shell_on_the_serial_console(linux):
    """Keys arrive by interrupt while the guest sleeps; it echoes them."""
    shown, lines = bytearray(), [b"echo $((6 * 7)) > ans", b"wer\n", b"tty; exit 5\n"]
    machine = restore(linux.saved, console=shown.extend)
    machine.input = lambda seconds: lines.pop(0) if seconds and lines else b""
    result = execute(machine, Channel(machine), "", {}, 1_000_000_000)
    assert (result.ending.kind, result.ending.code) == ("exit", 5), shown
    assert result.files == {"answer": b"42\n"} and not lines
    assert b"echo $((6 * 7)) > answer\r\n" in shown and b"/dev/ttyS0\r\n" in shown


def test_a_panic_ends_the_run(linux, guest):
    """The report names the kernel's functions, though the image has no symbol table."""
    result, _, machine = linux.run("echo c > /proc/sysrq-trigger")
    assert result.ending.kind == "panic" and "Kernel panic" in result.ending.reason
    machine.image = named(load(guest.kernel).image)
    text = report(machine, result.ending)
    assert re.search(r"rip 0xffffffff8[0-9a-f]+ <\w+(\+0x[0-9a-f]+)?>", text), text


def test_an_oops(linux, guest):
    """A function of the kernel jumps to 0, where nothing is.  Its own report cannot tell from
    where; the branch records of the exception do, though thousands of branches print it."""
    image = named(load(guest.kernel).image)
    console = Console()
    machine = restore(linux.saved, console=console)
    console.watch(machine)
    place, = (a for a, name in kernel_symbols(image) if name == "uptime_proc_show")
    machine.uc.mem_write(place - MAPPED, bytes.fromhex("31c0 ffe0"))  # xor eax, eax; jmp rax
    result = execute(machine, Channel(machine), NO_SYMBOLS + (
        "perf record -q -a -o /tmp/data -b -e branches:k -c 100003 cat /proc/uptime"), {},
        2_000_000_000)
    assert result.ending.kind == "panic", result
    assert any("RIP: 0010:0x0" in line for line in console.lines)
    machine.image = image
    text = report(machine, result.ending, console.fault)
    assert "the kernel's exception: 14 at 0x0\n" in text, text
    stack = text[text.index("branch records at the exception, newest first:"):].splitlines()
    assert stack[1] == f"  0  {place + 2:#x} <uptime_proc_show+0x2> -> 0x0  NEAR_IND_JMP", stack
    assert len(stack) == 1 + 32 and "<seq_read_iter+" in stack[5]


def test_the_kernels_own_symbols(linux, kernel):
    """As the guest lists them in /proc/kallsyms, but for those of each processor and of modules."""
    result, _, _ = linux.run("grep ' [tT] ' /proc/kallsyms | head -n 2000 > listed")
    listed = [line.split() for line in result.files["listed"].decode().splitlines()]
    symbols = set(kernel_symbols(load(kernel).image))
    assert len(symbols) > 50_000
    assert {(int(address, 16), name) for address, _, name in listed} <= symbols


def test_a_guest_that_loops(linux):
    result, _, _ = linux.run("while true; do true; done", limit=20_000_000)
    assert result.ending.kind == "limit"


@pytest.mark.parametrize(("contents", "message"), [
    (b"text\n" * 1000, "neither a bzImage nor an ELF executable"),
    (b"", "neither a bzImage nor an ELF executable"),
    (b"\x7fELF" + bytes(200), "no ELF file, or a damaged one"),
    (gzip.compress(bytes(5000)), "compressed (gzip), without a decompressor"),
    (lzma.compress(bytes(5000)), "compressed (XZ), without a decompressor"),
    (zstandard.compress(bytes(5000)), "compressed (zstd), without a decompressor"),
], ids=["text", "empty", "elf", "gzip", "xz", "zstd"])
def test_no_kernel(tmp_path, capsys, contents, message):
    path = tmp_path / "kernel"
    path.write_bytes(contents)
    assert main(["run", "--kernel", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_kernels_of_32_bits(kernel, tmp_path, capsys):
    """A bzImage of today without the 64-bit entry point, and an ELF executable for i386."""
    image = bytearray(kernel.read_bytes())
    image[0x236] &= ~1
    elf = struct.pack("<4s12B", b"\x7fELF", 1, 1, 1, *bytes(9)) + struct.pack(
        "<HHIIIIIHHHHHH", 2, 3, 1, 0x100000, 52, 0, 0, 52, 32, 1, 40, 0, 0) + struct.pack(
        "<8I", 1, 0, 0x100000, 0x100000, 84, 84, 5, 0x1000)
    for name, contents in (("bzImage", bytes(image)), ("vmlinux", elf)):
        path = tmp_path / name
        path.write_bytes(contents)
        assert main(["run", "--kernel", str(path)]) == 2
        error = capsys.readouterr().err
        assert re.search("32-bit|64-bit", error) and error.count("\n") == 1, error


def test_no_console(kernel, capsys):
    """One line says why nothing is printed; one with a console has none."""
    for append, said in (("quiet", True), ("console=ttyS0 quiet", False)):
        assert main(["run", "--kernel", str(kernel), "--append", append, "--limit", "1000"]) == 124
        error = capsys.readouterr().err
        assert ("no console=ttyS0 in --append" in error) == said


def test_a_kernel_that_panics(kernel, capsys):
    """The run ends there, with names that are the kernel's own."""
    assert main(["run", "--kernel", str(kernel), "--append", f"{COMMAND_LINE} mem=24M", "--memory",
                 "256"]) == 134
    shown = capsys.readouterr()
    assert "Kernel panic - not syncing: System is deadlocked on memory" in shown.out
    assert shown.err.startswith("panic: Kernel panic - not syncing: System is deadlocked on memory")
    assert re.search(r"^rip 0x[0-9a-f]+ <\w+", shown.err, re.M)


def test_a_guest_that_takes_too_long(kernel, capsys):
    """By the host's time, too."""
    assert main(["run", "--kernel", str(kernel), "--append", "console=ttyS0", "--seconds",
                 "0.2"]) == 124
    assert "no end after 0.2 seconds" in capsys.readouterr().err


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

