"""Recorded stacks against single steps of the same program, taken from outside by ptrace.

`shapes` makes the same branches in each round, so every stack has to be a piece of what a few
rounds of single steps show, and the program has to compute what it computes alone.
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from pylbr.trace.modules import elf_modules
from tests.record.conftest import need, symbols
from tests.record.native.conftest import PROGRAMS
from tests.record.native.stacks import read
from tests.record.oracle import Code

pytestmark = [pytest.mark.peer, pytest.mark.slow]
STEPPER = Path(__file__).resolve().parents[2] / "peers" / "step.c"
ROUNDS = "1000000"


def compiled(target, *sources):
    subprocess.run(["gcc", "-O1", "-static", "-no-pie", "-o", target, *sources], check=True,
                   timeout=120)
    return target


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("shapes") / "shapes",
                    PROGRAMS / "shapes.c", PROGRAMS / "shapes.S")


@pytest.fixture(scope="module")
def branches(shapes, tmp_path_factory):
    """(from, to, class) of the taken branches of three rounds and of the C library around them."""
    folder = tmp_path_factory.mktemp("steps")
    stepper, steps = compiled(folder / "step", STEPPER), folder / "rips"
    done = subprocess.run([stepper, steps, shapes, "3"], capture_output=True, timeout=120)
    need(done.returncode == 0, "ptrace is not allowed here")
    code, found = Code(elf_modules(shapes)), []
    rips = np.fromfile(steps, "<u8").tolist()
    for at, then in zip(rips, rips[1:], strict=False):
        length, branch = code.at(at)
        if branch is None:
            continue
        name, direct = branch[0].name, branch[1]
        if name == "SYSCALL" or (then == at + length and (
            name == "COND" or (name == "NEAR_REL_CALL" and direct == then)
        )):  # not taken, or a call to the next instruction, which is no branch
            continue
        found.append((at, then, name))
    return found


def pieces(branches, length):
    """Every piece of a sequence of edges, oldest first."""
    edges = [(at, then) for at, then, _ in branches]
    return {tuple(edges[i:i + length]) for i in range(len(edges) - length + 1)}


@pytest.mark.parametrize(("words", "names"), [
    ("any,u", None), ("any_call,u", {"NEAR_REL_CALL", "NEAR_IND_CALL"}),
    ("any_ret,u", {"NEAR_RET"}), ("cond,u", {"COND"}),
    ("ind_jmp,ind_call,u", {"NEAR_IND_JMP", "NEAR_IND_CALL"}),
])
def test_every_stack_is_a_piece_of_the_single_steps(native_record, shapes, branches, words, names):
    alone = subprocess.run([shapes, ROUNDS], capture_output=True, check=True, timeout=60)
    path, result = native_record(shapes, ROUNDS, options=("-F", "20000", "-j", words))
    assert result.stdout == alone.stdout
    known = [branch for branch in branches if names is None or branch[2] in names]
    stacks = [tuple(stack[::-1]) for found in read(path).stacks.values() for stack in found]
    by_length = {length: pieces(known, length) for length in set(map(len, stacks))}
    wrong = [stack for stack in stacks if stack not in by_length[len(stack)]]
    assert not wrong, [(hex(a), hex(b)) for a, b in wrong[0]]
    assert len(stacks) > 100 and sum(len(stack) == 32 for stack in stacks) > 0.9 * len(stacks)
    # Windows begin anywhere, so they have seen what there is to see.
    place = symbols(shapes)
    body = {(at, then) for at, then, _ in known if place["shapes"] <= at < place["crossing"] + 16}
    seen = {edge for stack in stacks for edge in stack}
    assert len(seen & body) > 0.95 * len(body) > 0
