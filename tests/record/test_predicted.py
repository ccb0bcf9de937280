"""Mispredicts of samples: what a model makes of the stretches that the stacks show."""

import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrcore import ENTRY_DTYPE, BranchClass
from pylbr.cli import main
from pylbr.perf.batch import SampleBatch
from pylbr.perf.stacks import Mmap
from pylbr.record._passed import passed
from pylbr.record.predicted import PredictedOutput
from pylbr.x86 import classify
from tests.manual import INFO_MISPRED
from tests.peers.peer_tools import LLVM
from tests.peers.peer_tools import run as run_tool
from tests.record.conftest import need

JZ, NOP, RET = b"\x74\x00", b"\x90", b"\xc3"
COND, CALL, RETURN = BranchClass.COND, BranchClass.NEAR_REL_CALL, BranchClass.NEAR_RET
PIECES = [JZ, NOP, b"\x0f\x85\x10\x00\x00\x00", b"\x48\x89\xc8", b"\xe2\x05", b"\xe3\xf0",
          b"\xb8\x74\x75\x76\x77", b"\xc5\xf8\x77",
          b"\x62\xf1\x7c\x48\x28\xc1", b"\x0f\x1f\x40\x00"]


def twin(code, start):
    """The same by capstone, one instruction after another."""
    found, at = [], 0
    while at < len(code):
        insn = classify(code[at:], start + at)
        if insn is None:
            return []
        if insn.branch is BranchClass.COND:
            found.append(start + at)
        at += insn.length
    return found


@given(st.lists(st.sampled_from(PIECES)).map(b"".join), st.integers(0, 1 << 47))
def test_passed_equals_its_twin(code, start):
    assert passed(code, start) == twin(code, start)


@given(st.lists(st.sampled_from(PIECES), min_size=1).map(b"".join), st.data())
def test_code_that_is_cut_off_shows_no_more_than_there_is(code, data):
    size = data.draw(st.integers(0, len(code)))
    assert passed(code[:size], 0) in (twin(code[:size], 0), [])


class Kept:
    """An output that keeps what comes."""

    def __init__(self):
        self.remarks, self.batches, self.records, self.count = [], [], [], 0

    def record(self, record):
        self.records.append(record)

    def samples(self, batch):
        self.batches.append(batch)

    def __exit__(self, *_):
        pass


def batch_of(*stacks, tid=7, pid=7):
    """Stacks of (from, to, class), oldest first."""
    depth = max(map(len, stacks))
    entries = np.zeros((len(stacks), depth), ENTRY_DTYPE)
    classes = np.zeros((len(stacks), depth), "u1")
    for i, stack in enumerate(stacks):
        for k, (source, target, cls) in enumerate(reversed(stack)):
            entries[i, k] = source, target, 0
            classes[i, k] = cls
    return SampleBatch.build(np.zeros(len(stacks), "u8"), entries, nr=list(map(len, stacks)),
                             classes=classes, pid=pid, tid=tid, time=1, info_mask=0)


def missed(batch):
    return [[bool(info & INFO_MISPRED) for info in stack["info"][::-1].tolist()]
            for stack in batch.stacks()]


def test_fallen_through_branches_train_the_model(tmp_path):
    """Two branches in turn, taken and not: known from the code alone."""
    code = NOP * 16 + JZ + NOP * 14 + b"\xeb\xde"
    (tmp_path / "code").write_bytes(code.ljust(4096, NOP))
    kept = Kept()
    out = PredictedOutput(kept, "gshare")
    out.record(Mmap(7, 7, 0x1000, 0x1000, 0, str(tmp_path / "code")))
    jump, taken = (0x1020, 0x1000, BranchClass.NEAR_REL_JMP), (0x1010, 0x1012, COND)
    pattern = [jump, jump, jump, taken] * 8
    with out:
        out.samples(batch_of(*[pattern] * 30))
    (batch,) = kept.batches
    assert batch.info_mask == INFO_MISPRED
    assert not any(missed(batch)[-1])
    blind = PredictedOutput(Kept(), "gshare")  # no code: only what was taken
    blind.samples(batch_of(*[pattern] * 30))
    assert out._known[7, 0x1000, 0x1020] == [0x1010]
    assert blind._known[7, 0x1000, 0x1020] == []


def test_what_a_stack_cannot_tell_counts_as_predicted():
    """Returns to callers from before the stack, and branches seen for the first time."""
    call, back = (0x2000, 0x3000, CALL), (0x3010, 0x2005, RETURN)
    other, away = (0x3050, 0x9000, RETURN), (0x3010, 0x4000, RETURN)
    kept = Kept()
    out = PredictedOutput(kept, "tage")
    out.samples(batch_of([other, call, back, other], [other, call, away]))
    out.samples(batch_of([other, call, away, other]))
    assert missed(kept.batches[0]) == [[False] * 4, [False, False, True]]
    assert missed(kept.batches[1]) == [[False, False, True, False]]


def test_an_engine_that_tells_mispredicts_is_believed():
    kept = Kept()
    out = PredictedOutput(kept, "tage")
    batch = batch_of([(1, 2, COND)])
    object.__setattr__(batch, "info_mask", INFO_MISPRED)
    out.samples(batch)
    assert kept.batches[0] is batch


@pytest.mark.parametrize(("words", "reason"), [
    (["--mispredicts", "tage", "-j", "any_call"], "needs branches of every kind: -j any,u"),
    (["--full", "--depth", "8"], "pylbr replay --depth"),
])
def test_options_that_exclude_each_other(words, reason, capsys):
    assert main(["record", *words, "--", "/bin/true"]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.peer
@pytest.mark.parametrize("engine", [("qemu", "-c", "50021"),
                                    ("native", "-F", "20000", "--max-overhead", "100")],
                         ids=lambda words: words[0])
def test_bolt_gets_mispredicts_of_samples(engine, build, pylbr_record_without_qemu, tmp_path):
    """perf2bolt reads them, and complains no more that there are none."""
    tool = LLVM[19] / "perf2bolt"
    need(tool.exists() and shutil.which("perf"), "no perf2bolt")
    program = build("sorting.c", "-O2", "-Wl,--emit-relocs", output="sorting-relocs")
    counts = {}
    for model in ((), ("--mispredicts", "tage")):
        run = pylbr_record_without_qemu(program, "200000", full=False,
                                        options=("--engine", *engine, *model))
        done = run_tool(tool, "-p", run.path, "-o", tmp_path / "fdata", program)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / "fdata").read_text().split("\n")
        counts[bool(model)] = sum(int(line.split()[6]) for line in lines
                                  if len(line.split()) == 8)
        told = "misprediction" in done.stdout + done.stderr
        assert told == (not model), done.stdout + done.stderr
    assert counts[False] == 0 < counts[True]
    report = subprocess.run(["perf", "report", "-i", run.path, "--header-only"],
                            capture_output=True, text=True, check=True).stdout
    assert "mispredicts: model: tage" in report


@pytest.mark.peer
@pytest.mark.parametrize("engine", ["qemu", "native"])
@pytest.mark.parametrize("depth", [8, 24])
def test_depth(engine, depth, build, pylbr_record_without_qemu):
    from tests.record.native.stacks import read

    rate = ("-F", "5000", "--max-overhead", "100") if engine == "native" else ("-c", "5003")
    run = pylbr_record_without_qemu(build("sorting.c", "-O2"), "300000", full=False, options=(
        "--engine", engine, "--depth", str(depth), *rate))
    lengths = [len(stack) for stacks in read(run.path).stacks.values() for stack in stacks]
    assert max(lengths) == depth and sum(n == depth for n in lengths) > 0.9 * len(lengths)
