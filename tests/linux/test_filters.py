"""Linux's branch filters on our LBRs: what each yields, and what it must not contain."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np
import pytest

from tests.linux.branch_check import Code
from tests.linux.kernel_check import KernelCode
from tests.linux.programs import build

pytestmark = pytest.mark.peer

# Numbers of branch_sample_type (perf_event_open(2)).
USER, KERNEL, ANY, ANY_CALL, ANY_RETURN, IND_CALL, COND, IND_JUMP, CALL = (
    1, 2, 8, 0x10, 0x20, 0x40, 0x400, 0x1000, 0x2000)
_CALLS = {"call", "indirect call"}
#: What each yields of user code; a filter of several yields all that one of them does.
KINDS = {
    ANY: {*_CALLS, "ret", "cond", "jmp", "indirect jmp"}, ANY_CALL: _CALLS, ANY_RETURN: {"ret"},
    IND_CALL: {"indirect call"}, COND: {"cond"}, IND_JUMP: {"indirect jmp"}, CALL: {"call"},
}
FILTERS = (ANY, ANY_CALL, ANY_RETURN, IND_CALL, COND, IND_JUMP, CALL, ANY_RETURN | COND,
           IND_CALL | IND_JUMP, CALL | COND, ANY_CALL | ANY_RETURN | COND)


class Recordings:
    """Stacks by filter, and the code of program and kernel."""

    def __init__(self, linux, folder, model=None):
        program = build("filters", folder)
        asked = [USER | f for f in FILTERS] + [ANY | KERNEL, ANY | KERNEL | USER,
                                               ANY_CALL | KERNEL]
        result, printed, machine = linux.run(
            f"./filters {' '.join(map(hex, asked))} > out", {"filters": program})
        assert (result.ending.kind, result.ending.code) == ("exit", 0), printed
        words = np.frombuffer(result.files["out"], "<u8").tolist()
        self.stacks = {number: [] for number in asked}
        at = 0
        while at < len(words):
            number, count = words[at:at + 2]
            self.stacks[number].append([tuple(words[n:n + 2]) for n in range(
                at + 2, at + 2 + 3 * count, 3)])
            at += 2 + 3 * count
        self.code, kernel = Code(program), KernelCode(machine)
        self.kernel_wrong = lru_cache(None)(kernel.wrong)
        self.kernel_kind = lru_cache(None)(kernel.kind)
        self.kernel_connected = lru_cache(None)(kernel.connected)


@pytest.fixture(scope="module")
def recordings(linux, tmp_path_factory):
    return Recordings(linux, tmp_path_factory.mktemp("filters"))


@pytest.mark.parametrize("number", FILTERS, ids=hex)
def test_a_filter_of_user_branches(recordings, number):
    """Each entry is a branch of the program, of a kind that was asked for, each kind is there, and
    none comes from or goes to the kernel."""
    stacks = recordings.stacks[USER | number]
    entries = [entry for stack in stacks for entry in stack]
    assert len(stacks) > 20 and not any(a >> 63 or b >> 63 for a, b in entries)
    assert [(hex(a), recordings.code.wrong(a, b)) for a, b in entries
            if recordings.code.wrong(a, b)] == []
    expected = set().union(*(kinds for bit, kinds in KINDS.items() if bit & number))
    assert set(Counter(recordings.code.kind(a) for a, _ in entries)) == expected
    if not number & (ANY | ANY_CALL | ANY_RETURN):
        # Those take far branches, too, which the kernel leaves out afterwards.
        # Here the facility filters, not the kernel: stacks are full but for the first ones.
        assert sum(len(stack) == 32 for stack in stacks) > 0.5 * len(stacks)


def test_kernel_branches(recordings):
    """Each entry is a branch of the kernel's code in memory, joined by straight code."""
    stacks = recordings.stacks[ANY | KERNEL]
    entries = [entry for stack in stacks for entry in stack]
    assert len(entries) > 1000
    assert [(hex(a), hex(b), recordings.kernel_wrong(a, b)) for a, b in entries
            if recordings.kernel_wrong(a, b)] == []
    assert {"call", "ret", "cond", "jmp"} <= {recordings.kernel_kind(a) for a, _ in entries}
    apart = [(hex(older[1]), hex(newer[0])) for stack in stacks
             for newer, older in zip(stack, stack[1:], strict=False)
             if older[1] >> 63 and not recordings.kernel_connected(older[1], newer[0])]
    assert apart == []


def test_calls_of_the_kernel(recordings):
    entries = [e for stack in recordings.stacks[ANY_CALL | KERNEL] for e in stack]
    assert len(entries) > 1000
    assert {recordings.kernel_kind(a) for a, _ in entries} <= _CALLS


def test_both_sides(recordings):
    """With both privilege levels a stack leads through the system call and back."""
    entries = [e for stack in recordings.stacks[ANY | KERNEL | USER] for e in stack]
    assert any(not a >> 63 and b >> 63 for a, b in entries), "no entry into the kernel"
    assert any(a >> 63 and not b >> 63 for a, b in entries), "no return from the kernel"
    wrong = [(hex(a), hex(b)) for a, b in entries
             if (recordings.kernel_wrong if a >> 63 else recordings.code.wrong)(a, b)]
    assert wrong == []
