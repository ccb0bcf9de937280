"""The recorder's decoders of AArch64's and RISC-V's branches, beside capstone."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lbrcore import BranchClass
from tests.peers.peer_tools import need

capstone = pytest.importorskip("capstone")

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
NONE = 255
ADDRESS = 0x7F0000402000
CALL, JUMP = BranchClass.NEAR_REL_CALL, BranchClass.NEAR_REL_JMP
IND_CALL, IND_JUMP = BranchClass.NEAR_IND_CALL, BranchClass.NEAR_IND_JMP
RET, COND = BranchClass.NEAR_RET, BranchClass.COND

#: Of AArch64, by the mnemonic's first part.
ARM = {
    "b": JUMP, "bl": CALL, "cbz": COND, "cbnz": COND, "tbz": COND, "tbnz": COND,
    "br": IND_JUMP, "braa": IND_JUMP, "brab": IND_JUMP, "braaz": IND_JUMP, "brabz": IND_JUMP,
    "blr": IND_CALL, "blraa": IND_CALL, "blrab": IND_CALL, "blraaz": IND_CALL,
    "blrabz": IND_CALL, "ret": RET, "retaa": RET, "retab": RET,
    "svc": BranchClass.SYSCALL, "brk": BranchClass.SOFT_INT,
}
#: x1 and x5, which the specification's table of control transfers calls links.
LINKS = {"ra", "t0"}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    target = tmp_path_factory.mktemp("decode") / "decode"
    subprocess.run([need("gcc"), "-O1", "-Wall", "-Werror", f"-I{ROOT}/pylbr/record/plugin",
                    f"-I{ROOT}/lbrcore/include", "-o", target, HERE / "decode.c"], check=True)

    def decode(name, words):
        text = "".join(f"{ADDRESS:x} {word:x}\n" for word in words)
        out = subprocess.run([target, name], input=text, capture_output=True, text=True,
                             check=True).stdout
        return [(int(cls), int(to, 16)) for cls, to in (line.split() for line in out.split("\n")
                                                        if line)]

    return decode


def disassembler(arch, mode):
    engine = capstone.Cs(arch, mode)
    return lambda word, size: next(
        engine.disasm(int(word).to_bytes(4, "little")[:size], ADDRESS), None)


def test_aarch64(decoder):
    disassemble = disassembler(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    rng = np.random.default_rng(5)
    words = [int(w) for w in rng.integers(0, 1 << 32, 3000)]
    # The groups of branches, and what lies beside them.
    for top, bits in ((0x14000000, 26), (0x94000000, 26), (0x54000000, 24), (0x34000000, 25),
                      (0x36000000, 25), (0xB4000000, 25), (0xB6000000, 25), (0xD4000000, 24),
                      (0xD6000000, 25)):
        words += [top | int(w) for w in rng.integers(0, 1 << bits, 800)]
    words += [0xD4000001 | int(w) << 5 for w in rng.integers(0, 1 << 16, 20)]  # SVC
    words += [0xD4200000 | int(w) << 5 for w in rng.integers(0, 1 << 16, 20)]  # BRK
    for opc in range(16):  # branches to registers: op2 all ones, as most of theirs are
        words += [0xD61F0000 | opc << 21 | int(op3) << 10 | int(rn) << 5 | int(op4)
                  for op3, rn, op4 in zip(rng.integers(0, 5, 60), rng.choice([0, 30, 31], 60),
                                          rng.choice([0, 5, 31], 60), strict=True)]
    found = dict.fromkeys([*ARM.values(), NONE], 0)
    for word, (cls, to) in zip(words, decoder("aarch64", words), strict=True):
        judged = disassemble(word, 4)
        if judged is None:
            assert cls == NONE, hex(word)
            continue
        expected = ARM.get(judged.mnemonic, NONE)
        if judged.mnemonic.startswith(("b.", "bc.")):
            expected = COND
        assert cls == expected, f"{word:#x} {judged.mnemonic} {judged.op_str}"
        target = re.search(r"#(0x[0-9a-f]+)$", judged.op_str)
        assert to == (int(target[1], 16) if cls in (JUMP, CALL, COND) else 0), hex(word)
        found[expected] += 1
    assert min(found.values()) > 5, found


def riscv_class(judged):
    """Class of an instruction as capstone spells it, and the operand that is an offset."""
    name = judged.mnemonic.removeprefix("c.")
    operands = [part for part in re.split(r"[, ()]+", judged.op_str) if part]
    if name in ("j", "jal"):
        link = operands[0] if name == "jal" and len(operands) == 2 else "ra"
        return (CALL if name == "jal" and link in LINKS else JUMP), operands[-1]
    if re.fullmatch("b(eq|ne|lt|ge|ltu|geu|eqz|nez|lez|gez|ltz|gtz)", name):
        return COND, operands[-1]
    if name == "ret":
        return RET, None
    if name in ("jr", "jalr"):
        registers = [word for word in operands if not re.fullmatch(r"-?(0x)?[0-9a-f]+", word)
                     or word in ("a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7")]
        rd = "zero" if name == "jr" else registers[0] if len(registers) == 2 else "ra"
        rs = registers[-1]
        if rd not in LINKS:
            return (RET if rs in LINKS else IND_JUMP), None
        return (RET if rs in LINKS and rs != rd else IND_CALL), None
    return {"ecall": BranchClass.SYSCALL, "ebreak": BranchClass.SOFT_INT}.get(name, NONE), None


def test_riscv64(decoder):
    disassemble = disassembler(capstone.CS_ARCH_RISCV,
                               capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC)
    rng = np.random.default_rng(6)
    words = [0x73, 0x100073, 0x9002]
    words += [int(w) | 3 for w in rng.integers(0, 1 << 32, 3000)]
    for opcode in (0x6F, 0x67, 0x63):
        for link in (0, 1, 5, 7):
            words += [int(w) & ~0xFFF | link << 7 | opcode for w in rng.integers(0, 1 << 32, 300)]
    for rd in (0, 1, 5, 6):
        words += [rs << 15 | rd << 7 | 0x67 for rs in (1, 5, 6, 10)]
    short = [int(w) for w in rng.integers(0, 1 << 16, 3000) if w & 3 != 3]
    short += [0x8002 | linked << 12 | rs << 7 for linked in (0, 1) for rs in range(1, 32)]
    words += short
    found = dict.fromkeys([COND, CALL, JUMP, IND_CALL, IND_JUMP, RET, NONE], 0)
    for word, (cls, to) in zip(words, decoder("riscv64", words), strict=True):
        judged = disassemble(word, 4 if word & 3 == 3 else 2)
        if judged is None:
            # Not of RV64GC, or reserved.
            assert cls == NONE, hex(word)
            continue
        expected, offset = riscv_class(judged)
        assert cls == expected, f"{word:#x} {judged.mnemonic} {judged.op_str}"
        assert to == (ADDRESS + int(offset, 0) if offset else 0), f"{word:#x} {judged.op_str}"
        if expected in found:
            found[expected] += 1
    assert min(found.values()) > 5, found
