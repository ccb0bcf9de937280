"""Recorded branches equal those that the processor itself and valgrind count."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lbrcore import BranchClass as C
from tests.record.conftest import need

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
    # callgrind tells nothing of a jump's copy in another block that was never taken.
    for address, (_, executed) in expected.items():
        assert 0 <= taken[address] + fell[address] - executed <= 1
