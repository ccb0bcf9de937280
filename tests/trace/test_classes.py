"""Classes of a trace's branches out of the files that were mapped."""

import sys

import numpy as np
import pytest

from lbrcore import BranchClass as C
from pylbr import trace
from pylbr.errors import TraceError
from pylbr.trace.classes import ClassFiller
from pylbr.trace.modules import elf_modules, parse_module

AT = 0x401000


@pytest.fixture
def program(tmp_path):
    """je +2 | nop | nop | call +0 | call -12 | ret | nop, at 0x401000."""
    path = tmp_path / "prog"
    path.write_bytes(bytes(0x1000) + bytes.fromhex("74029090e800000000e8f4ffffffc390"))
    return path


def test_filler(program):
    filler = ClassFiller((trace.Module(str(program), AT, 16, 0x1000),), "t")
    cases = [
        (AT, AT + 4, C.COND), (AT, AT + 2, C.NOT_TAKEN), (AT + 4, AT + 9, C.ZERO_CALL),
        (AT + 9, AT + 2, C.NEAR_REL_CALL), (AT + 14, AT + 1, C.NEAR_RET),
        (AT + 15, 0xffffffff81000000, C.INTERRUPT),    # no branch there
        (AT, 0xffffffff81000000, C.INTERRUPT),         # interrupted before the branch
    ]
    source, target, kinds = (np.array(column, np.uint64) for column in zip(*cases, strict=True))
    assert filler.classes(source, target).tolist() == kinds.tolist()


def test_filler_by_process(program, tmp_path):
    """Two processes have different files at one address."""
    other = tmp_path / "other"
    other.write_bytes(bytes.fromhex("c3"))
    filler = ClassFiller(
        (trace.Module(str(program), AT, 16, 0x1000, "", 7), trace.Module(str(other), AT, 1, 0, "",
                                                                       8)), "t",
        (trace.Task(70, 7), trace.Task(80, 8)),
    )
    source = np.full(2, AT, np.uint64)
    target = np.full(2, AT + 4, np.uint64)
    assert filler.classes(source, target, 0, np.array([70, 80])).tolist() == [C.COND, C.NEAR_RET]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (0x10, "branch 5 has no class, and at its FROM 0x10 no module is mapped; name the program"),
        (AT + 16, "no module is mapped"),
        (0x500000, "lies /no/such, which cannot be read; put the file back"),
        (0x600000, "holds no instruction; is it the file that ran"),
    ],
)
def test_filler_says_what_is_missing(program, address, message):
    modules = (
        trace.Module(str(program), AT, 16, 0x1000), trace.Module("/no/such", 0x500000, 16),
        trace.Module(str(program), 0x600000, 0x100, 0x100000),
    )
    filler = ClassFiller(modules, "t")
    with pytest.raises(TraceError, match=message):
        filler.classes(np.array([address], np.uint64), np.array([1], np.uint64), 5)


def test_modules_of_an_elf_file():
    modules = elf_modules(sys.executable)
    assert modules and all(module.size > 0 for module in modules)
    moved = parse_module(f"{sys.executable}@0x10000000")
    assert [b.start - a.start for a, b in zip(modules, moved, strict=True)] == \
        [0x10000000] * len(modules)
    with pytest.raises(TraceError, match="'zz' is no hexadecimal address"):
        parse_module(f"{sys.executable}@zz")
    with pytest.raises(TraceError, match="is no ELF file"):
        parse_module(__file__)


def test_a_trace_without_classes(program, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("from,to\n0x401000,0x401004\n0x401000,0x401002\n0x40100e,0x401004\n")
    modules = (trace.Module(str(program), AT, 16, 0x1000),)
    with trace.open(path, modules=modules) as source:
        assert source.columns == ("from", "to")
        (chunk,) = source.chunks()
        assert chunk.column("class").tolist() == [C.COND, C.NOT_TAKEN, C.NEAR_RET]
        assert chunk.branches["class"].tolist() == [C.COND, C.NOT_TAKEN, C.NEAR_RET]
