"""Classes of branches out of instruction bytes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lbrcore import BranchClass as C
from pylbr import trace
from pylbr.errors import TraceError
from pylbr.trace.classify import ClassFiller, Decoded, classify
from pylbr.trace.modules import elf_modules, parse_module

AT = 0x401000


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("7405", (C.COND, 2, AT + 7)), ("0f8405000000", (C.COND, 6, AT + 11)),
        ("2e7405", (C.COND, 3, AT + 8)),               # branch hint
        ("3e0f8405000000", (C.COND, 7, AT + 12)),
        ("e2fe", (C.COND, 2, AT)), ("e1fe", (C.COND, 2, AT)), ("e0fe", (C.COND, 2, AT)),
        ("e3fe", (C.COND, 2, AT)), ("67e3fd", (C.COND, 3, AT)),
        ("eb10", (C.NEAR_REL_JMP, 2, AT + 0x12)), ("e900010000", (C.NEAR_REL_JMP, 5, AT + 0x105)),
        ("f2eb10", (C.NEAR_REL_JMP, 3, AT + 0x13)),    # BND
        ("ffe0", (C.NEAR_IND_JMP, 2, None)), ("3effe0", (C.NEAR_IND_JMP, 3, None)),  # notrack
        ("ff2510000000", (C.NEAR_IND_JMP, 6, None)), ("41ffe3", (C.NEAR_IND_JMP, 3, None)),
        ("e810000000", (C.NEAR_REL_CALL, 5, AT + 0x15)),
        ("e800000000", (C.ZERO_CALL, 5, AT + 5)), ("66e800000000", None),
        ("f2e800000000", (C.ZERO_CALL, 6, AT + 6)),
        ("ffd0", (C.NEAR_IND_CALL, 2, None)), ("ff1510000000", (C.NEAR_IND_CALL, 6, None)),
        ("c3", (C.NEAR_RET, 1, None)), ("f3c3", (C.NEAR_RET, 2, None)),
        ("f2c3", (C.NEAR_RET, 2, None)), ("c20800", (C.NEAR_RET, 3, None)),
        ("cb", (C.FAR_BRANCH, 1, None)), ("48cb", (C.FAR_BRANCH, 2, None)),
        ("ca0800", (C.FAR_BRANCH, 3, None)), ("ff28", (C.FAR_BRANCH, 2, None)),
        ("48ff28", (C.FAR_BRANCH, 3, None)), ("ff18", (C.FAR_BRANCH, 2, None)),
        ("48ff18", (C.FAR_BRANCH, 3, None)), ("0faa", (C.FAR_BRANCH, 2, None)),
        ("0f05", (C.SYSCALL, 2, None)), ("0f34", (C.SYSCALL, 2, None)),
        ("0f07", (C.SYSRET, 2, None)), ("480f07", (C.SYSRET, 3, None)),
        ("0f35", (C.SYSRET, 2, None)), ("480f35", (C.SYSRET, 3, None)),
        ("cf", (C.IRET, 1, None)), ("48cf", (C.IRET, 2, None)), ("66cf", (C.IRET, 2, None)),
        ("cd80", (C.SOFT_INT, 2, None)), ("cc", (C.SOFT_INT, 1, None)),
        ("f1", (C.EXCEPTION, 1, None)),                # INT1 raises #DB
        ("90", (None, 1, None)), ("f390", (None, 2, None)), ("4889e5", (None, 3, None)),
        ("c7f800000000", (None, 6, None)),             # XBEGIN jumps only when it aborts
        ("c6f800", (C.TSX_ABORT, 3, None)),
        ("0f01c1", (None, 3, None)),                   # VMCALL
        ("06", None), ("", None), ("0f", None),
    ],
)
def test_instructions(code, expected):
    if code == "66e800000000":
        # Intel ignores 66H on near branches in 64-bit mode, AMD and capstone do not: whatever
        # is decoded, it is a call.
        assert classify(bytes.fromhex(code), AT).branch in (C.ZERO_CALL, C.NEAR_REL_CALL)
        return
    decoded = classify(bytes.fromhex(code), AT)
    assert decoded == (None if expected is None else Decoded(*expected))


@pytest.mark.parametrize(
    ("code", "bits", "expected"),
    [
        ("ea000000000800", 32, C.FAR_BRANCH), ("9a000000000800", 32, C.FAR_BRANCH),
        ("ce", 32, C.SOFT_INT), ("e3fe", 32, C.COND), ("7405", 16, C.COND),
        ("e80000", 16, C.ZERO_CALL),
    ],
)
def test_other_modes(code, bits, expected):
    assert classify(bytes.fromhex(code), AT, bits).branch == expected


@pytest.mark.peer
@pytest.mark.slow
def test_against_objdump():
    """Every instruction of a large library, against another decoder."""
    if shutil.which("objdump") is None:
        assert os.environ.get("CI") != "true", "objdump is not installed"
        pytest.skip("objdump is not installed")
    library = next(
        (path for path in ("/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6")
         if os.path.exists(path)), None,
    )
    if library is None:
        pytest.skip("no libc.so.6 in the usual places")
    text = subprocess.run(
        ["objdump", "-d", "-w", "--no-show-raw-insn", "-j", ".text", library],
        capture_output=True, text=True, check=True,
    ).stdout
    (module, *_) = elf_modules(library)
    code = Path(library).read_bytes()
    checked = dict.fromkeys(C, 0)
    for match in re.finditer(
        r"^ *([0-9a-f]+):\t(?:(?:bnd|notrack|repz|data16|addr32|cs|ds|rex\.W) )*(\w+)(.*)",
        text, re.MULTILINE,
    ):
        mnemonic = match[2].removesuffix(",pt").removesuffix(",pn")
        expected = objdump_class(mnemonic, match[3].strip())
        if expected is None:
            continue
        address = int(match[1], 16)
        at = address - module.start + module.file_offset
        found = classify(code[at:at + 15], address)
        assert found is not None, match[0]
        assert (C.NEAR_REL_CALL if found.branch == C.ZERO_CALL else found.branch) == expected, \
            match[0]
        checked[expected] += 1
    assert checked[C.COND] > 20_000 and checked[C.NEAR_RET] > 1000 and checked[C.SYSCALL] > 100


def objdump_class(mnemonic, operand):
    if mnemonic.startswith("call"):
        return C.NEAR_IND_CALL if operand.startswith("*") else C.NEAR_REL_CALL
    if mnemonic.startswith("jmp"):
        return C.NEAR_IND_JMP if operand.startswith("*") else C.NEAR_REL_JMP
    if mnemonic.startswith("ret"):
        return C.NEAR_RET
    if mnemonic.startswith(("j", "loop")):
        return C.COND
    return {"syscall": C.SYSCALL, "int3": C.SOFT_INT, "hlt": None}.get(mnemonic)


# Filling a column ----------------------------------------------------------------------------


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
