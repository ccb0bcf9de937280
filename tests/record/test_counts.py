"""Recorded branches equal those that the processor itself, valgrind and gcov count."""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from lbrcore import BranchClass as C
from tests.record.conftest import PROGRAMS, need, symbols

pytestmark = [pytest.mark.peer, pytest.mark.slow]
PEERS = Path(__file__).parents[1] / "peers"
BARE = ("-static", "-no-pie", "-nostdlib", "-ffreestanding", "-fno-stack-protector",
        "-fcf-protection=none")


def test_sequence_equals_single_steps_of_the_processor(pylbr_record, tmp_path):
    """Every instruction of a static program without a C library, one by one."""
    need(shutil.which("gcc"), "no gcc")
    stepper, program, out = tmp_path / "step", tmp_path / "workload", tmp_path / "rips"
    subprocess.run(["gcc", "-O2", "-o", stepper, PEERS / "step.c"], check=True)
    subprocess.run(["gcc", "-O2", *BARE, "-o", program, PEERS / "workload.c"], check=True)
    code = subprocess.run([stepper, out, program], timeout=120).returncode
    need(code == 0, "single-stepping is not allowed here")
    rips = np.fromfile(out, "<u8")
    branches = pylbr_record(program, check=None).branches()
    # The last system call ends the program: nothing follows it.
    branches = {name: values[:-1] if branches["class"][-1] == C.SYSCALL else values
                for name, values in branches.items()}
    # `instructions` place every branch in the sequence of single steps.
    user = branches["from"] < 1 << 63
    place = np.cumsum(branches["instructions"].astype(np.int64))[user] - 1
    assert (rips[place] == branches["from"][user]).all()
    arrived = branches["to"][user] < 1 << 63
    assert (rips[place[arrived] + 1] == branches["to"][user][arrived]).all()
    # And nothing is missing: what is no recorded branch goes straight on.
    other = np.setdiff1d(np.arange(place[-1]), place)
    assert (rips[other + 1] - rips[other] <= 15).all()
    assert len(rips) > 100_000 and len(place) > 10_000


def callgrind_jumps(path):
    """{address: (taken, executed)} of the conditional jumps in a callgrind file."""
    lines = path.read_text().splitlines()
    result = {}
    for line, following in zip(lines, lines[1:], strict=False):
        if line.startswith("jcnd="):
            taken, executed = map(int, line.split()[0][5:].split("/"))
            source = int(following.split()[0], 16)
            old = result.get(source, (0, 0))
            result[source] = (old[0] + taken, old[1] + executed)
    return result


@pytest.mark.parametrize("flags", [("-O1",), ("-O2",)])
def test_conditional_counts_equal_callgrind(build, pylbr_record, tmp_path, flags):
    need(shutil.which("valgrind"), "no valgrind")
    program = build("layout.c", *flags, "-no-pie", output=f"layout{flags[0]}")
    out = tmp_path / "callgrind"
    subprocess.run(
        ["valgrind", "--tool=callgrind", "--dump-instr=yes", "--collect-jumps=yes",
         "--compress-pos=no", "--compress-strings=no", f"--callgrind-out-file={out}",
         program, "20000"], check=True, capture_output=True, timeout=120)
    branches = pylbr_record(program, "20000").branches()
    taken = Counter(branches["from"][branches["class"] == C.COND].tolist())
    fell = Counter(branches["from"][branches["class"] == C.NOT_TAKEN].tolist())
    own = range(0x401000, 0x402000)
    expected = {a: n for a, n in callgrind_jumps(out).items() if a in own}
    assert len(expected) > 8
    assert {a: taken[a] for a in expected} == {a: n for a, (n, _) in expected.items()}
    # callgrind reports nothing of a jump's copy in another block that was never taken.
    for address, (_, executed) in expected.items():
        assert 0 <= taken[address] + fell[address] - executed <= 1


def lines_of(path):
    """{address: line} of the instructions at which a line begins, from DWARF."""
    with open(path, "rb") as stream:
        dwarf = ELFFile(stream).get_dwarf_info()
        return {
            entry.state.address: entry.state.line
            for unit in dwarf.iter_CUs()
            for entry in dwarf.line_program_for_CU(unit).get_entries()
            if entry.state is not None and not entry.state.end_sequence
        }


@pytest.mark.parametrize("name", ["layout.c", "sorting.c"])
def test_counts_equal_gcov(pylbr_record, tmp_path, name):
    """Both ways of each conditional branch of the source, and the calls of each function.

    gcov counts in the program itself, as it is recorded: one run, two counts."""
    need(shutil.which("gcov"), "no gcov")
    subprocess.run(["gcc", "-O0", "-g", "-no-pie", "--coverage", "-o", "counted",
                    PROGRAMS / name], check=True, cwd=tmp_path)
    run = pylbr_record(tmp_path / "counted", "5000")
    gcov = json.loads(subprocess.run(
        ["gcov", "--json-format", "--stdout", "-b", "counted-" + Path(name).stem],
        check=True, capture_output=True, cwd=tmp_path).stdout)
    branches, (file,) = run.branches(), gcov["files"]
    lines = lines_of(tmp_path / "counted")
    starts = np.array(sorted(lines))
    inside = (branches["from"] >= starts[0]) & (branches["from"] < starts[-1])
    ways = {}
    for cls in (C.COND, C.NOT_TAKEN):
        sources = branches["from"][inside & (branches["class"] == cls)]
        for source, count in zip(*np.unique(sources, return_counts=True), strict=True):
            line = lines[starts[np.searchsorted(starts, source, "right") - 1]]
            ways.setdefault(line, Counter())[source, cls] = int(count)
    expected = {
        line["line_number"]: sorted(b["count"] for b in line["branches"] if b["count"])
        for line in file["lines"] if any(b["count"] for b in line["branches"])}
    assert {line: sorted(counts.values()) for line, counts in ways.items()} == expected
    assert len(expected) > 5
    at = symbols(tmp_path / "counted")
    calls = {f["name"]: f["execution_count"] for f in file["functions"]}
    assert {f: int((branches["to"] == at[f]).sum()) for f in calls} == calls
    assert len(calls) >= 3
