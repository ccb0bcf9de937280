"""Classes of branches out of instruction bytes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lbrcore import BranchClass as C
from pylbr.cpu import Processor, fred
from pylbr.trace.modules import elf_modules
from pylbr.x86 import Decoded, classify
from pylbr.x86.compiled_facts import facts_of
from pylbr.x86.facts import decode_block
from tests.manual import (
    CTL_LBREN,
    CTL_OS,
    CTL_OTHER_BRANCH,
    CTL_USR,
    IA32_LBR_CTL,
)
from tests.x86.decoder import constants, decode, decode_one

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
        ("f30f01ca", (C.IRET, 4, None)), ("f20f01ca", (C.IRET, 4, None)),   # ERETU, ERETS
        ("f3480f01ca", (C.IRET, 5, None)), ("0f01ca", (None, 3, None)),     # CLAC
        ("f30f01ec", (C.IRET, 4, None)),               # UIRET
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


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("code", ["f30f01ca", "f20f01ca", "f30f01ec"])
def test_returns_of_64_bit_mode_are_undefined_elsewhere(code, bits):
    assert classify(bytes.fromhex(code), AT, bits) is None


BR_TYPE_OTHER_BRANCH = 8
FORMS = [rep + prefix + rex + "0f01ca" for rep in ("f3", "f2")
         for prefix in ("", "2e", "65", "67") for rex in ("", "40", "48", "4f")]


@pytest.mark.parametrize("code", FORMS)
def test_every_decoder_has_the_class_that_fred_records(code):
    """ERETU and ERETS: the recorder's decoder, the readers', the blocks' and their twin."""
    cpu = Processor("arch-pebs-2025")
    cpu.wrmsr(IA32_LBR_CTL, CTL_LBREN | CTL_OS | CTL_USR | CTL_OTHER_BRANCH)
    (fred.eretu if code.startswith("f3") else fred.erets)(cpu, AT, AT + 64)
    [record] = [entry for entry in cpu.records() if entry["from"] == AT]
    own = C.IRET
    assert int(record["info"]) >> 56 & 15 == BR_TYPE_OTHER_BRANCH
    string, size = bytes.fromhex(code), len(code) // 2
    mine = decode_one(code)
    assert (mine["length"], mine["cls"]) == (size, own)
    assert classify(string, AT) == Decoded(own, size, None)
    assert decode_block(b"\x90" + string, AT).facts == facts_of(b"\x90" + string, AT)[0] == (
        2, AT + 1, own, None, 0, 0)


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


def every_opcode():
    """Every opcode of the one-byte and the 0F map with prefixes and ModRM values, (n, 16)."""
    prefixes = ["", "66", "f2", "f3", "48", "3e", "67", "f348"]
    modrms = [mod << 6 | reg << 3 | rm for mod in (0, 3) for reg in range(8) for rm in (0, 4)]
    strings = [
        bytes.fromhex(prefix) + escape + bytes([opcode, modrm])
        for prefix in prefixes for escape in (b"", b"\x0f") for opcode in range(256)
        for modrm in (*modrms, 0xF8, 0xEC, 0xCA)
    ]
    table = np.zeros((len(strings), 16), np.uint8)
    for row, string in zip(table, strings, strict=True):
        row[:len(string)] = list(string)
        row[len(string):12] = 0x10  # a displacement that leads nowhere near
    return table


def test_recorder_and_readers_agree_on_every_opcode():
    """decode.h is the recorder's, `classify` that of the readers and of the Unicorn link."""
    strings = every_opcode()
    found, checked = decode(strings), dict.fromkeys(C, 0)
    wrong = []
    for string, mine in zip(strings, found, strict=True):
        code = string.tobytes()[:15]
        other = classify(code, AT)
        if not mine["length"] or other is None:
            continue
        branch = None if mine["cls"] == constants()["X86_NO_BRANCH"] else C(mine["cls"])
        direct = branch in (C.COND, C.NEAR_REL_JMP, C.NEAR_REL_CALL, C.ZERO_CALL)
        target = AT + int(mine["length"]) + int(mine["displacement"]) if direct else None
        if (branch, mine["length"], target) != other:
            wrong.append((code.hex(" "), branch, mine["length"], other))
        elif branch is not None:
            checked[branch] += 1
    assert not wrong
    assert all(checked[branch] for branch in set(C) - {
        C.NOT_TAKEN, C.ZERO_CALL, C.INTERRUPT})


def test_a_refusal_is_no_branch_or_an_ambiguous_one():
    """What decode.h refuses and capstone decodes: no branch is among it but those with 66."""
    strings = every_opcode()
    for string, mine in zip(strings, decode(strings), strict=True):
        code = string.tobytes()[:15]
        if not mine["length"] and (other := classify(code, AT)) and other.branch is not None:
            assert mine["refusal"] == constants()["X86_AMBIGUOUS"], code.hex()
