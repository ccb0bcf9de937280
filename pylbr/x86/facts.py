"""Facts of a block of translated code: what it ends in, and how the emulator has to treat it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import capstone
from capstone import x86

from lbrcore import BranchClass
from pylbr.x86.classify import classify
from pylbr.x86.engine import decoder

__all__ = [
    "BLOCK_FLUSH", "BLOCK_REP", "BLOCK_STORE", "CONDITION_32BIT", "CONDITION_JRCXZ",
    "CONDITION_LOOP", "CONDITION_LOOPE", "CONDITION_LOOPNE", "Block", "BlockFacts",
    "decode_block",
]

#: Flags of a block; ``blocks.pxd`` explains them.
BLOCK_REP, BLOCK_FLUSH, BLOCK_STORE = 1, 2, 4
#: Conditions beyond the sixteen of Jcc: enum x86_condition of ``insn.h``.
CONDITION_LOOPNE, CONDITION_LOOPE, CONDITION_LOOP, CONDITION_JRCXZ = 16, 17, 18, 19
#: Added to them: the counter is ECX.
CONDITION_32BIT = 32

#: (instructions, address of the last one, class of its branch or None, target or None,
#: condition, flags of the block)
BlockFacts = tuple[int, int, int | None, int | None, int, int]

_COUNTED = {
    x86.X86_INS_LOOPNE: CONDITION_LOOPNE, x86.X86_INS_LOOPE: CONDITION_LOOPE,
    x86.X86_INS_LOOP: CONDITION_LOOP, x86.X86_INS_JRCXZ: CONDITION_JRCXZ,
    x86.X86_INS_JECXZ: CONDITION_JRCXZ | CONDITION_32BIT,
}
#: The code that an address holds may be another one after these: paging, INVLPG, INVPCID.
_REMAPS = frozenset({x86.X86_INS_INVLPG, x86.X86_INS_INVPCID})
#: MOVUPS and its kind, MOVAPS, MOVQ and MOVDQ to memory: capstone has them as reads.
_VECTOR_STORES = frozenset({0x11, 0x29, 0x7F})
_REPEAT = frozenset({x86.X86_PREFIX_REP, x86.X86_PREFIX_REPNE})
_ADDRESS_SIZE = 0x67


class Block(NamedTuple):
    """A decoded block.

    Attributes
    ----------
    facts : tuple
        As `pylbr.x86.blocks.BlockRecorder` takes them.
    mnemonics : tuple of (address, length, mnemonic)
        Its instructions, in order.
    """

    facts: BlockFacts
    mnemonics: tuple[tuple[int, int, str], ...]


@lru_cache(maxsize=3)
def _disassembler(bits: int) -> capstone.Cs:
    mode = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}[bits]
    engine = decoder(mode)
    engine.detail = True
    return engine


def decode_block(code: bytes, address: int, bits: int = 64) -> Block:
    """Decode the block `code` that starts at the linear address `address`.

    Notes
    -----
    Bytes at the end that are no instruction are left out: the emulator ends a block there,
    to raise #UD when it comes to them.
    """
    found = tuple(_disassembler(bits).disasm_lite(code, address))
    mnemonics = tuple((start, size, name) for start, size, name, _ in found)
    if not mnemonics:
        return Block((0, address, None, None, 0, 0), ())
    last, size, _ = mnemonics[-1]
    tail = code[last - address:last - address + size]
    decoded = classify(tail, last, bits)
    detail = next(_disassembler(bits).disasm(tail, last, 1))
    flags = _flags(detail)
    branch = decoded.branch if decoded else None
    if len(mnemonics) == 1 and branch is None and not flags and _stores(detail):
        flags = BLOCK_STORE
    condition = _condition(detail, tail) if branch == BranchClass.COND else 0
    target = decoded.target if decoded else None
    return Block((len(mnemonics), last, branch, target, condition, flags), mnemonics)


def _flags(last: capstone.CsInsn) -> int:
    if last.id in _REMAPS or last.id == x86.X86_INS_MOV and any(
        operand.type == x86.X86_OP_REG and _is_control(operand.reg)
        and operand.access & capstone.CS_AC_WRITE for operand in last.operands
    ):
        return BLOCK_FLUSH
    return BLOCK_REP if last.prefix[0] in _REPEAT and _is_string(last) else 0


def _is_control(register: int) -> bool:
    return x86.X86_REG_CR0 <= register <= x86.X86_REG_CR15


def _is_string(last: capstone.CsInsn) -> bool:
    """MOVS, CMPS, STOS, LODS, SCAS, INS, OUTS: the one-byte opcodes that REP repeats."""
    return last.opcode[1] == 0 and (
        last.opcode[0] in range(0x6C, 0x70) or last.opcode[0] in range(0xA4, 0xA8)
        or last.opcode[0] in range(0xAA, 0xB0)
    )


def _stores(instruction: capstone.CsInsn) -> bool:
    if instruction.id in (x86.X86_INS_PUSH, x86.X86_INS_PUSHFQ):
        return True
    vector = instruction.opcode[0] == 0x0F and instruction.opcode[1] in _VECTOR_STORES
    return any(operand.type == x86.X86_OP_MEM and (vector or operand.access & capstone.CS_AC_WRITE)
               for operand in instruction.operands)


def _condition(jump: capstone.CsInsn, code: bytes) -> int:
    counted = _COUNTED.get(jump.id)
    if counted is None:
        opcode = jump.opcode[1] if jump.opcode[0] == 0x0F else jump.opcode[0]
        return opcode & 0xF
    if counted < CONDITION_JRCXZ and _ADDRESS_SIZE in code[:-2]:
        return counted | CONDITION_32BIT
    return counted
