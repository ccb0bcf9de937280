"""The decoder against iced-x86 and capstone; its results for single instructions."""

import os
from pathlib import Path

import numpy as np
import pytest

from pylbr import x86
from tests.x86 import encodings
from tests.x86.decoder import constants, decode, decode_one

try:
    import iced_x86

    from tests.x86 import opcode_table
except ImportError:
    if os.environ.get("CI") == "true":
        raise
    iced_x86 = None

needs_iced = pytest.mark.skipif(iced_x86 is None, reason="iced-x86 is missing")
C = constants()


def flags(*names):
    return sum(C[f"X86_{name}"] for name in names)


@needs_iced
def test_the_opcode_table_is_what_its_generator_prints():
    """``python -m tests.x86.opcode_table > pylbr/x86/opcodes.h`` renews it."""
    assert Path(x86.get_include(), "opcodes.h").read_text() == opcode_table.header() + "\n"


def iced_lengths(strings):
    """Lengths as iced-x86 has them, without and with MPX, whose opcodes are NOPs else."""
    lengths = np.zeros((2, len(strings)), np.uint8)
    code, instruction = strings.tobytes(), iced_x86.Instruction()
    for row, option in enumerate((iced_x86.DecoderOptions.NONE, iced_x86.DecoderOptions.MPX)):
        decoder = iced_x86.Decoder(64, code, option)
        for i in range(len(strings)):
            decoder.position = 16 * i
            decoder.decode_out(instruction)
            if instruction.code != iced_x86.Code.INVALID:
                lengths[row, i] = instruction.len
    return lengths


@needs_iced
@pytest.mark.parametrize("kind", encodings.KINDS, ids=lambda kind: kind.__name__)
def test_lengths_are_those_of_iced(kind):
    strings = kind(np.random.default_rng(1), 40_000)
    mine, (plain, mpx) = decode(strings)["length"], iced_lengths(strings)
    answered = mine != 0
    assert answered.sum() > 1000
    wrong = answered & (plain != 0) & (mine != plain)
    assert not [strings[i].tobytes().hex(" ") for i in np.flatnonzero(wrong)[:20]]
    alone = answered & (plain == 0) & (mpx == 0)
    assert alone.sum() < answered.sum() / 200  # #UD by the values of operands


@pytest.mark.parametrize("kind", [encodings.amd, encodings.apx], ids=lambda kind: kind.__name__)
def test_xop_3dnow_and_apx_are_refused(kind):
    found = decode(kind(np.random.default_rng(2), 20_000))
    assert not found["length"].any() and (found["refusal"] == C["X86_UNDEFINED"]).all()


@pytest.mark.parametrize("available", range(16))
def test_a_truncated_instruction_is_refused(available):
    strings = encodings.prefixed(np.random.default_rng(3), 5_000)
    whole, part = decode(strings), decode(strings, available)
    fits = (whole["length"] > 0) & (whole["length"] <= available)
    assert (part["length"] == np.where(fits, whole["length"], 0)).all()
    cut = whole["length"] > available
    assert (part["refusal"][cut] == C["X86_TRUNCATED"]).all()


@pytest.mark.parametrize("code, length, cls, displacement", [
    ("e8 10 00 00 00", 5, "NEAR_REL_CALL", 16),
    ("e8 00 00 00 00", 5, "ZERO_CALL", 0),
    ("66 66 48 e8 f0 ff ff ff", 8, "NEAR_REL_CALL", -16),  # call of __tls_get_addr
    ("e9 f0 ff ff ff", 5, "NEAR_REL_JMP", -16),
    ("eb fe", 2, "NEAR_REL_JMP", -2),
    ("75 7f", 2, "COND", 127),
    ("0f 8f 00 01 00 00", 6, "COND", 256),
    ("2e 0f 85 00 01 00 00", 7, "COND", 256),
    ("67 e3 80", 3, "COND", -128),
    ("c3", 1, "NEAR_RET", 0), ("f3 c3", 2, "NEAR_RET", 0), ("c2 08 00", 3, "NEAR_RET", 0),
    ("ff d0", 2, "NEAR_IND_CALL", 0), ("3e ff e0", 3, "NEAR_IND_JMP", 0),
    ("f2 ff 25 01 02 03 04", 7, "NEAR_IND_JMP", 0),
    ("48 ff 28", 3, "FAR_BRANCH", 0), ("ff 18", 2, "FAR_BRANCH", 0), ("cb", 1, "FAR_BRANCH", 0),
    ("0f 05", 2, "SYSCALL", 0), ("0f 34", 2, "SYSCALL", 0), ("48 0f 07", 3, "SYSRET", 0),
    ("cd 80", 2, "SOFT_INT", 0), ("cc", 1, "SOFT_INT", 0), ("f1", 1, "EXCEPTION", 0),
    ("48 cf", 2, "IRET", 0), ("f3 0f 01 ec", 4, "IRET", 0),
    ("f3 0f 01 ca", 4, "IRET", 0), ("f2 0f 01 ca", 4, "IRET", 0), ("c6 f8 01", 3, "TSX_ABORT", 0),
])
def test_branches(code, length, cls, displacement):
    found = decode_one(code)
    assert (found["length"], found["cls"]) == (length, C[f"LBR_{cls}"])
    assert found["displacement"] == displacement


@pytest.mark.parametrize("code, condition", [
    ("70 00", 0), ("0f 8c 00 00 00 00", 12), ("e0 00", C["X86_LOOPNE"]),
    ("e1 00", C["X86_LOOPE"]), ("e2 00", C["X86_LOOP"]), ("e3 00", C["X86_JRCXZ"]),
    ("eb 00", C["X86_UNCONDITIONAL"]),
])
def test_conditions(code, condition):
    assert decode_one(code)["condition"] == condition


@pytest.mark.parametrize("code, has", [
    ("65 48 8b 04 25 28 00 00 00", ["USES_GS"]), ("64 48 8b 04 25 28 00 00 00", ["USES_FS"]),
    ("0f 01 f8", ["USES_GS"]), ("f3 48 0f ae d8", ["USES_GS"]), ("f3 48 0f ae c0", ["USES_FS"]),
    ("8e e8", ["USES_GS"]), ("0f 31", ["RDTSC"]), ("0f 01 f9", ["RDTSC"]),
    ("0f 01 ef", ["PKRU"]), ("0f ae 28", ["PKRU"]), ("48 0f c7 1f", ["PKRU"]),
    ("f3 48 ab", ["STRING", "REP"]), ("a4", ["STRING"]), ("c7 f8 00 00 00 00", ["XBEGIN"]),
    ("0f 01 d5", ["XEND"]), ("f3 0f 1e fa", ["ENDBR"]), ("f3 48 0f 1e c8", ["SHADOW_STACK"]),
    ("48 89 e0", ["RSP_OPERAND"]), ("48 83 ec 08", ["RSP_OPERAND"]),
    ("48 94", ["RSP_OPERAND"]), ("49 94", []), ("48 8b 44 24 08", ["RSP_BASE"]),
    ("55", ["STACK"]), ("54", ["STACK", "RSP_OPERAND"]), ("d9 c0", ["X87"]),
    ("66 0f ef e4", ["VECTOR"]), ("c5 f8 77", ["VECTOR"]), ("f0 48 0f b1 11", ["LOCK"]),
    ("48 8d 05 00 00 00 00", ["RIP_RELATIVE"]), ("0f 0b", ["UNDEFINED_TRAP"]),
])
def test_flags(code, has):
    found = decode_one(code)
    assert found["length"] == len(bytes.fromhex(code)) and found["flags"] == flags(*has)


def test_operands():
    found = decode_one("43 8b 84 8b 00 01 00 00")  # mov eax, [r11 + 4 * r9 + 0x100]
    assert [found[n] for n in ("base", "index", "scale", "disp", "address_size")] == [
        11, 9, 4, 256, 8]
    found = decode_one("ff 25 f0 ff ff ff")
    assert (found["base"], found["disp"], found["rip_offset"]) == (C["X86_RIP"], -16, 2)
    assert decode_one("41 ff d3")["base"] == 11
    found = decode_one("c4 e2 e9 92 04 e1")  # vgatherdpd xmm0, [rcx + 8 * xmm4], xmm2
    assert (found["base"], found["index"], found["scale"]) == (1, 4, 8)


@pytest.mark.parametrize("code", [
    "66 e8 00 00 00 00", "66 0f 84 00 00 00 00", "66 48 0f 84 00 00 00 00", "66 eb 00", "66 c3",
    "66 c7 f8 00 00 00 00", "48 48 8b 00", "48 66 8b 00", "f2 f3 a4", "64 65 8b 00",
    "67 8b 05 00 00 00 00",
])
def test_what_processors_or_decoders_take_differently_is_refused(code):
    found = decode_one(code)
    assert (found["length"], found["refusal"]) == (0, C["X86_AMBIGUOUS"])
