"""Class of a branch out of its instruction's bytes.

Sources: SDM vol. 2 (encodings), vol. 3 section 20.1.3 (what each class contains).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import capstone
from capstone import x86

from lbrcore import BranchClass
from pylbr.x86.engine import decoder

__all__ = ["Decoded", "classify"]

_MAX_INSTRUCTION = 15
_SYSTEM = {
    x86.X86_INS_SYSCALL: BranchClass.SYSCALL, x86.X86_INS_SYSENTER: BranchClass.SYSCALL,
    x86.X86_INS_SYSRET: BranchClass.SYSRET, x86.X86_INS_SYSEXIT: BranchClass.SYSRET,
    x86.X86_INS_SYSRETQ: BranchClass.SYSRET, x86.X86_INS_SYSEXITQ: BranchClass.SYSRET,
    x86.X86_INS_IRET: BranchClass.IRET, x86.X86_INS_IRETD: BranchClass.IRET,
    x86.X86_INS_IRETQ: BranchClass.IRET,
    x86.X86_INS_INT: BranchClass.SOFT_INT, x86.X86_INS_INT3: BranchClass.SOFT_INT,
    x86.X86_INS_INTO: BranchClass.SOFT_INT, x86.X86_INS_INT1: BranchClass.EXCEPTION,
    x86.X86_INS_LJMP: BranchClass.FAR_BRANCH, x86.X86_INS_LCALL: BranchClass.FAR_BRANCH,
    x86.X86_INS_RETF: BranchClass.FAR_BRANCH, x86.X86_INS_RETFQ: BranchClass.FAR_BRANCH,
    x86.X86_INS_RSM: BranchClass.FAR_BRANCH,
    x86.X86_INS_XABORT: BranchClass.TSX_ABORT,
}
_CONDITIONAL = {
    x86.X86_INS_LOOP, x86.X86_INS_LOOPE, x86.X86_INS_LOOPNE, x86.X86_INS_JCXZ,
    x86.X86_INS_JECXZ, x86.X86_INS_JRCXZ,
}

#: 0F 01 with that prefix and ModRM, in 64-bit mode, which capstone has as CLAC or not at all:
#: ERETU and ERETS (`pylbr.arch.choices.FRED_IS_OTHER_BRANCH`), UIRET.
_EVENT_RETURNS = frozenset({(0xF3, 0xCA), (0xF2, 0xCA), (0xF3, 0xEC)})
_REPEATS = frozenset({0xF2, 0xF3})
_IGNORED = frozenset({0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67})


class Decoded(NamedTuple):
    """A branch instruction.

    `branch` is None for an instruction that is no branch; `target` is None unless the
    branch is direct.
    """

    branch: BranchClass | None
    length: int
    target: int | None


@lru_cache(maxsize=4)
def _disassembler(bits: int) -> capstone.Cs:
    mode = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}[bits]
    engine = decoder(mode)
    engine.detail = True
    return engine


def classify(code: bytes, address: int, bits: int = 64) -> Decoded | None:
    """Decode the instruction at the head of `code`.

    Parameters
    ----------
    code : bytes
        At least the instruction; 15 bytes are always enough.
    address : int
        Linear address of its first byte.
    bits : {64, 32, 16}

    Returns
    -------
    Decoded or None
        None if the bytes are no instruction.

    Notes
    -----
    A conditional branch is COND whether taken or not, and a near relative CALL to the next
    instruction is ZERO_CALL: the facility records no branch for it (SDM vol. 3, 20.1.3).
    ERETU and ERETS are decoded whatever the processor has: one without FRED raises #UD, so that
    no branch leaves from there.
    """
    if length := _event_return(code[:_MAX_INSTRUCTION], bits):
        return Decoded(BranchClass.IRET, length, None) if bits == 64 else None
    found = next(_disassembler(bits).disasm(code[:_MAX_INSTRUCTION], address, 1), None)
    if found is None:
        return None
    branch, target = _SYSTEM.get(found.id), None
    if found.opcode[0] == 0xFF and found.modrm >> 3 & 7 in (3, 5):
        branch = BranchClass.FAR_BRANCH  # through memory; capstone has no name for all sizes
    if branch is None and (direct := _near(found)):
        branch, target = direct
        if branch == BranchClass.NEAR_REL_CALL and target == address + found.size:
            branch = BranchClass.ZERO_CALL
    return Decoded(branch, found.size, target)


def _event_return(code: bytes, bits: int) -> int:
    """Length of ERETU, ERETS or UIRET at the head of `code`; 0: none of them."""
    at = 0
    repeats = set()
    while at < len(code) and (code[at] in _IGNORED or code[at] in _REPEATS):
        repeats |= {code[at]} & _REPEATS
        at += 1
    if bits == 64 and at < len(code) and code[at] & 0xF0 == 0x40:
        at += 1  # REX
    if len(repeats) != 1 or code[at:at + 2] != b"\x0f\x01":
        return 0
    return at + 3 if (*repeats, *code[at + 2:at + 3]) in _EVENT_RETURNS else 0


def _near(found: capstone.CsInsn) -> tuple[BranchClass, int | None] | None:
    """Class and direct target of a near branch."""
    if found.group(capstone.CS_GRP_RET):
        return BranchClass.NEAR_RET, None
    jump = found.group(capstone.CS_GRP_JUMP) or found.id in _CONDITIONAL
    call = found.group(capstone.CS_GRP_CALL)
    if not (jump or call) or found.id == x86.X86_INS_XBEGIN:  # which names where aborts go
        return None
    operand = found.operands[0] if found.operands else None
    if operand is None or operand.type != x86.X86_OP_IMM:
        return (BranchClass.NEAR_IND_CALL if call else BranchClass.NEAR_IND_JMP), None
    target = operand.imm & 0xFFFFFFFFFFFFFFFF
    if call:
        return BranchClass.NEAR_REL_CALL, target
    if found.id == x86.X86_INS_JMP:
        return BranchClass.NEAR_REL_JMP, target
    return BranchClass.COND, target
