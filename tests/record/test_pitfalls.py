"""What misleads a recorder that sees blocks only: signals, `rep`, cuts, odd branches, mappings."""

import numpy as np
import pytest

from lbrcore import BranchClass as C
from tests.record import oracle
from tests.record.conftest import symbols

pytestmark = pytest.mark.peer


def no_false_edge(run):
    report = oracle.check(run.path)
    assert report.wrong == []
    assert b"without an explanation" not in run.result.stderr


@pytest.fixture(scope="module")
def odd(build):
    return build("pitfalls.c", "-no-pie", "-static")


def edges_from(branches, address):
    """[(class, TO), ...] of the branches at an address, in order."""
    mine = branches["from"] == address
    return list(zip(branches["class"][mine].tolist(), branches["to"][mine].tolist(), strict=True))


def test_signals(build, pylbr_record):
    """(a) A signal is no branch to its handler, and takes none away."""
    run = pylbr_record(build("signals.c", "-no-pie"))
    alarms, faults, traps, users = map(int, run.result.stdout.split())
    counts = run.classes()
    # Signals that come while the program is in the kernel interrupt no user instruction.
    assert 1 <= counts[C.INTERRUPT] <= alarms
    assert counts[C.EXCEPTION] == faults == 20
    assert counts[C.SOFT_INT] == traps == 5
    assert users == 5
    no_false_edge(run)


def test_signals_change_no_count(build, pylbr_record):
    """The handler's own entry is reached once a signal, once by a call."""
    program = build("signals.c", "-no-pie")
    run = pylbr_record(program)
    alarms, faults = map(int, run.result.stdout.split()[:2])
    branches, names = run.branches(), symbols(program)
    at_handler = branches["class"][branches["to"] == names["on_alarm"]]
    assert (at_handler == C.IRET).sum() == alarms
    assert (at_handler != C.IRET).sum() <= 1  # the call, unless inlined
    assert (branches["to"] == names["on_fault"]).sum() == faults


def test_repeated_string_instructions(odd, pylbr_record):
    """(b) `rep` is one instruction and no branch."""
    run = pylbr_record(odd)
    here = symbols(odd)["rep_here"]
    branches = run.branches()
    assert edges_from(branches, here) == [] and not (branches["to"] == here).any()
    no_false_edge(run)


def test_blocks_cut_without_a_branch(odd, pylbr_record):
    """(c) 3,000 instructions in a row are one range."""
    run = pylbr_record(odd)
    assert 3000 <= run.branches()["instructions"].max() < 3300
    no_false_edge(run)


def test_branches_to_the_next_instruction(odd, pylbr_record):
    """(d) They count as what they are; a conditional one looks like one not taken."""
    at = symbols(odd)
    branches = pylbr_record(odd).branches()
    assert edges_from(branches, at["jmp_next"]) == [(C.NEAR_REL_JMP, at["call_next"])]
    assert edges_from(branches, at["call_next"]) == [(C.ZERO_CALL, at["call_next"] + 5)]
    assert edges_from(branches, at["ret_next"]) == [(C.NEAR_RET, at["ret_next"] + 1)]
    assert edges_from(branches, at["jmp_rdx"]) == [(C.NEAR_IND_JMP, at["jmp_rdx"] + 2)]
    assert edges_from(branches, at["jz_next"]) == [(C.NOT_TAKEN, at["jz_next"] + 2)]
    loop = at["loop_self"]
    assert edges_from(branches, loop) == [(C.COND, loop)] * 4 + [(C.NOT_TAKEN, loop + 2)]


def test_mappings(build, pylbr_record):
    """(f) Libraries opened late and code made at run time are mapped; (e) is full mode itself."""
    run = pylbr_record(build("mapped.c", "-fPIE", "-pie"))
    code, got, changed, cosine = run.result.stdout.split()
    assert (got, changed, cosine) == (b"7", b"9", b"0.878")
    branches = run.branches()
    modules = {m.path.rsplit("/", 1)[-1]: m for m in run.metadata.modules}
    assert {"mapped", "libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2", "anon"} <= set(modules)
    assert modules["mapped"].build_id and modules["libc.so.6"].build_id
    anon, start = modules["anon"], int(code, 16)
    assert anon.start <= start < anon.start + anon.size
    jump = start + 4
    assert edges_from(branches, jump) == [(C.COND, start + 2)] * 9 + [(C.NOT_TAKEN, jump + 2)]
    inside = (branches["from"] >= modules["libm.so.6"].start) & (
        branches["from"] < modules["libm.so.6"].start + modules["libm.so.6"].size)
    assert inside.any()
    no_false_edge(run)


def test_threads_have_streams_of_their_own(build, pylbr_record):
    """(g) Within a thread each branch starts where the one before has led."""
    run = pylbr_record(build("threads.c", "-pthread"))
    branches = run.branches()
    for tid in np.unique(branches["task"]):
        mine = branches["task"] == tid
        source, target = branches["from"][mine][1:], branches["to"][mine][:-1]
        user = target < 1 << 63
        assert (source[user] >= target[user]).all()
        assert (source[user] - target[user] < 1 << 15).all()
