"""``pylbr record`` of AArch64 and RISC-V programs, beside QEMU's own log and the consumers."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pylbr.perf.data_reader import PerfData
from tests.peers.peer_tools import LLVM, checked, need, perf2bolt, profgen, run

pytestmark = [pytest.mark.peer, pytest.mark.slow]  # other programs, some seconds each

HERE = Path(__file__).parent
ROUNDS = 2000
#: No C library, so that all code is in functions that the tools know.
BARE = ["-O2", "-gdwarf-4", "-static", "-no-pie", "-nostdlib", "-ffreestanding",
        "-fno-stack-protector", "-fno-reorder-blocks-and-partition", "-Wl,--emit-relocs",
        "-Wl,--build-id", f"-DROUNDS={ROUNDS}"]


@dataclass(frozen=True)
class Machine:
    name: str
    qemu: str
    flags: tuple[str, ...]
    depths: tuple[int, int]

    def compiled(self, source, target, *flags):
        done = run(need(f"{self.name}-linux-gnu-gcc"), *flags, "-o", target, HERE / source)
        assert done.returncode == 0, done.stderr
        return target


MACHINES = {
    "aarch64": Machine("aarch64", "qemu-aarch64", (), (32, 64)),
    "riscv64": Machine("riscv64", "qemu-riscv64", (), (32, 256)),
}


@pytest.fixture(scope="module", params=MACHINES)
def machine(request):
    found = MACHINES[request.param]
    need(found.qemu)
    return found


@pytest.fixture(scope="module")
def program(machine, tmp_path_factory):
    place = tmp_path_factory.mktemp(machine.name)
    return machine.compiled("foreign.c", place / "foreign", *BARE, *machine.flags)


def pylbr(*words):
    return run(sys.executable, "-m", "pylbr", *words)


def record(program, out, *options):
    done = pylbr("record", *options, "-o", out, "--", program)
    assert "without an explanation" not in done.stderr and "missing" not in done.stderr
    return done


@pytest.fixture(scope="module")
def recorded(machine, program):
    out = program.with_suffix(".perf.data")
    done = record(program, out, "-c", "97")
    native = run(need(machine.qemu), program)
    assert done.returncode == native.returncode > 0, done.stderr
    return out


def stacks(path):
    """(IP, [(from, to), newest first]) of every sample."""
    with PerfData(path) as source:
        return [(int(part.ip[i]), [(int(r["from"]), int(r["to"])) for r in part.stack(i)])
                for part in source.samples() for i in range(len(part))]


def executed(machine, program, log):
    """Taken branches of a run, oldest first, as QEMU logs the instructions that it executes."""
    run(need(machine.qemu), "-singlestep", "-d", "exec,nochain", "-D", log, program)
    text = log.read_text()
    at = np.array([int(word, 16) for word in re.findall(r"/([0-9a-f]{16})/", text)], np.uint64)
    code = run(need(f"{machine.name}-linux-gnu-objdump"), "-d", program).stdout
    size = {int(address, 16): len(raw.replace(" ", "")) // 2 for address, raw in re.findall(
        r"^\s*([0-9a-f]+):\s+((?:[0-9a-f]{2,8} )+)", code, re.M)}
    lengths = np.array([size[int(address)] for address in at], np.uint64)
    taken = np.flatnonzero(at[1:] != (at + lengths)[:-1])
    return list(zip(at[taken].tolist(), at[taken + 1].tolist(), strict=True))


@pytest.mark.parametrize("which", [0, 1])
def test_stacks_are_what_qemu_executed(machine, program, tmp_path, which):
    """Every stack is a stretch of the run, in order, as deep as the architecture goes."""
    depth = machine.depths[which]
    out = tmp_path / "perf.data"
    record(program, out, "-c", "61", "--depth", str(depth))
    history = executed(machine, program, tmp_path / "log")
    places = {}
    for i, branch in enumerate(history):
        places.setdefault(branch, []).append(i)
    found = stacks(out)
    assert len(found) > 50
    before = 0
    for ip, stack in found:
        stretch = stack[::-1]
        end = next((i for i in places[stretch[-1]] if i >= before
                    and history[i + 1 - len(stretch):i + 1] == stretch), None)
        assert end is not None, f"no such stretch of the run ends at {ip:#x}"
        assert len(stack) == min(depth, end + 1)
        before = end
    assert max(len(stack) for _, stack in found) == depth


def test_perf_reads_the_file(machine, recorded):
    text = checked(need("perf"), "script", "-i", recorded, "-F", "ip,brstack")
    assert text.count("/RET") > 100 and text.count("/IND_CALL") > 100
    assert len(text.splitlines()) == len(stacks(recorded)) > 100
    head = checked("perf", "report", "-i", recorded, "--header-only")
    assert re.search(rf"arch : {machine.name}$", head, re.M)
    shown = checked("perf", "report", "-i", recorded, "--stdio", "-F",
                    "overhead,symbol_from,symbol_to")
    assert re.search(r"%\s+\[\.\] run\S*\s+\[\.\] next", shown)


def test_bolt_finds_no_mismatch(machine, program, recorded, tmp_path):
    for version in (16, 19, 22) if machine.name == "aarch64" else (19, 22):  # RISC-V: from 17 on
        out = tmp_path / f"fdata.{version}"
        assert perf2bolt(version, recorded, program, out) == 0, version
        text = out.read_text()
        assert len(re.findall(r"^1 run\S* [0-9a-f]+ 1 next\S* 0 \d+ \d+$", text, re.M)) == 1


def test_llvm_profgen_makes_a_profile(machine, program, recorded, tmp_path):
    out = tmp_path / "profile"
    warnings = profgen(19, program, out, perfdata=recorded)
    if machine.name == "riscv64":
        warnings = [line for line in warnings if "not on instruction boundary" not in line]
        assert unmarked_ends(program, recorded, tmp_path) == {"jal", "jr", "ret"}
    assert warnings == []
    assert re.search(r"^run:\d{3,}:", out.read_text(), re.M)


def unmarked_ends(program, recorded, tmp_path):
    """Instructions at the ends of the ranges that llvm-profgen refuses.  It wants a transfer
    there, and LLVM's tables of RISC-V mark these three neither as branch nor call nor return."""
    shown = run(LLVM[19] / "llvm-profgen", f"--perfdata={recorded}", f"--binary={program}",
                f"--output={tmp_path / 'again'}", "--format=text",
                "--show-detailed-warning").stderr  # fmt: skip
    ranges = re.findall(r"\[\s*(\w+),\s*(\w+)\]: Range is not on instruction boundary", shown)
    code = dict(re.findall(r"^\s+(\w+):\t[0-9a-f ]+\t(\S+)",
                           checked(need("riscv64-linux-gnu-objdump"), "-d", program), re.M))
    assert len(ranges) > 10 and all(start in code for start, _ in ranges)
    return {code[end] for _, end in ranges}


def test_our_own_report_names_functions(recorded):
    done = pylbr("report", recorded)
    assert done.returncode == 0, done.stderr
    assert "next" in done.stdout and "fib" in done.stdout


def test_filters(program, tmp_path):
    out = tmp_path / "perf.data"
    record(program, out, "-c", "97", "-j", "any_call,u")
    text = checked(need("perf"), "script", "-i", out, "-F", "brstack")
    kinds = set(re.findall(r"/(CALL|IND_CALL|RET|COND|UNCOND|IND)\b", text))
    assert kinds == {"CALL", "IND_CALL"}


@pytest.mark.parametrize("flags", [(), ("-static",)], ids=["dynamic", "static"])
def test_signals_threads_and_children(machine, tmp_path, flags):
    """No step without an explanation, and no branch that leads straight into a handler."""
    program = machine.compiled("signals.c", tmp_path / "signals", "-O2", "-g", *flags)
    out = tmp_path / "perf.data"
    done = record(program, out, "-c", "199")
    assert (done.returncode, done.stdout) == (0, "1 1\n"), done.stderr
    text = checked(need("perf"), "report", "-i", out, "--stdio", "-F", "overhead,symbol_to")
    assert "work" in text
    symbols = run(need(f"{machine.name}-linux-gnu-nm"), program).stdout
    handlers = {int(a, 16) & 0xFFFFFF for a in re.findall(r"^(\w+) \w on_(?:tick|fault)$", symbols,
                                                       re.M)}
    assert len(handlers) == 2
    found = stacks(out)
    assert len(found) > 1000
    entered = [to for _, stack in found for _, to in stack if to & 0xFFFFFF in handlers]
    assert not entered


def test_what_is_for_x86_alone_is_refused(program, tmp_path):
    for options, words in (
        (["--full"], "--full: only of x86-64 programs"),
        (["-c", "97", "--cycles"], "--cycles: only of x86-64"),
        (["-e", "cycles:u"], "-e cycles: only of x86-64"),
        (["--engine", "native"], "only x86-64 can be recorded by this engine"),
        (["--depth", "24"], "--depth 24: "),
    ):
        out = tmp_path / ("out.parquet" if options == ["--full"] else "perf.data")
        done = pylbr("record", *options, "-o", out, "--", program)
        assert done.returncode, options
        assert words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert not out.exists()


def test_without_its_qemu_the_message_says_what_to_do(machine, program, tmp_path, monkeypatch):
    variable = f"PYLBR_QEMU_{machine.name.upper()}"
    monkeypatch.setenv(variable, "no-such-qemu")
    done = pylbr("record", "-q", "-o", tmp_path / "out", "--", program)
    assert done.returncode and "no no-such-qemu found" in done.stderr
    assert f"point {variable} at one" in done.stderr
