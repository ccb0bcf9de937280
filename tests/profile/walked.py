"""A made-up run of a program: what a processor would record of it, and how often each
instruction was executed."""

from collections import Counter

import numpy as np

from lbrcore import BRANCH_DTYPE, BranchClass, BranchFlag
from pylbr.profile.disassembly import disassemble
from pylbr.trace import Module


def walk(image, functions, rounds):
    """(branches, executions by address) of `rounds` instructions from the first of `functions`.

    Conditional branches are taken at random; every RET is mispredicted.
    """
    code = {}
    for name in functions:
        start, size = image.functions()[name]
        code |= {one.address: one for one in disassemble(image.code(start, start + size), start)}
    begin = image.functions()[functions[0]][0]
    rows, executed, stack, random = [], Counter(), [], np.random.default_rng(3)
    at = begin
    for _ in range(rounds):
        one = code[at]
        after = one.address + one.size
        executed[at] += 1
        if one.text.startswith("ret"):
            to = stack.pop() if stack else begin
            rows.append((at, to, 3, 0, BranchClass.NEAR_RET, BranchFlag.MISPRED))
            at = to
        elif one.text.startswith("call") and one.target in code:
            stack.append(after)
            rows.append((at, one.target, 2, 0, BranchClass.NEAR_REL_CALL, 0))
            at = one.target
        elif one.branches and (one.text.startswith("jmp") or random.integers(2)):
            rows.append((at, one.target, 5, 0, BranchClass.COND, 0))
            at = one.target
        else:
            at = after
    table = np.zeros(len(rows), BRANCH_DTYPE)
    for i, row in enumerate(rows):
        table[i] = (*row, 3, 3, 0)
    return table, executed


def mapped(image, path, base):
    """The modules of a file that is loaded at `base`."""
    return tuple(Module(str(path), base + s.address, s.size, s.offset) for s in image.segments)
