"""A BPF program inside the guest that takes a snapshot of the LBRs."""

import struct
from itertools import pairwise

import pytest

from tests.linux.branch_check import Code
from tests.linux.programs import build

pytestmark = pytest.mark.peer

#: PERF_BR_* of linux/perf_event.h.
TYPES = {"cond": 1, "jmp": 2, "indirect jmp": 3, "call": 4, "indirect call": 5, "ret": 6}


def test_a_bpf_program_sees_the_last_branches(linux, tmp_path):
    """32 branches before the system call that the program waits for, each with its type."""
    program = build("snapshot", tmp_path)
    result, printed, _ = linux.run("./snapshot > branches", {"snapshot": program})
    assert (result.ending.kind, result.ending.code) == ("exit", 0), printed
    found = list(struct.iter_unpack("<3Q", result.files["branches"]))
    assert len(found) == 32
    if not found[-1][0]:
        found.pop()  # a return from the kernel, whose address the filter hides
    code = Code(program)
    assert [why for source, target, _ in found if (why := code.wrong(source, target))] == []
    assert all(code.connected(before[1], after[0]) for after, before in pairwise(found))
    assert any(code.connected(found[0][1], at) for at, (name, _) in code.at.items()
               if name == "syscall")
    types = [flags >> 20 & 15 for _, _, flags in found]
    assert types == [TYPES[code.kind(source)] for source, _, _ in found]
    assert len(set(types)) > 2
