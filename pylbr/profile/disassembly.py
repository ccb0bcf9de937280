"""Instructions of a stretch of code as text, and where its branches lead."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import capstone as cs

from pylbr.errors import UnsupportedFeature

__all__ = ["SYNTAXES", "Instruction", "disassemble"]

#: As objdump's -M has them.
SYNTAXES: Final = ("att", "intel")
_MACHINES: Final = {
    "EM_X86_64": (cs.CS_ARCH_X86, cs.CS_MODE_64),
    "EM_AARCH64": (cs.CS_ARCH_AARCH64 if hasattr(cs, "CS_ARCH_AARCH64") else cs.CS_ARCH_ARM64,
                   cs.CS_MODE_ARM),
    "EM_RISCV": (cs.CS_ARCH_RISCV, cs.CS_MODE_RISCV64 | cs.CS_MODE_RISCVC),
}
#: Instructions that the next one never follows.
_ENDS: Final = frozenset({"jmp", "ljmp", "b", "br", "j", "jr", "c.j", "c.jr", "ret", "retq", "lret",
                          "hlt", "ud2", "iretq"})


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes
    ----------
    address, size : int
        Of ``(bad)``, bytes that are no instruction.
    text : str
    target : int or None
        Of a direct branch.
    branches : bool
        It may leave for another than the next instruction and is no call.
    ends : bool
        The next one is never reached from it.
    """

    address: int
    size: int
    text: str
    target: int | None = None
    branches: bool = False
    ends: bool = False


@cache
def _decoder(machine: str, syntax: str) -> Any:
    if machine not in _MACHINES:
        raise UnsupportedFeature(f"no disassembler for {machine.removeprefix('EM_')}")
    decoder = cs.Cs(*_MACHINES[machine])
    decoder.detail = decoder.skipdata = True
    if machine == "EM_X86_64" and syntax == "att":
        decoder.syntax = cs.CS_OPT_SYNTAX_ATT
    return decoder


def disassemble(code: bytes, address: int, machine: str = "EM_X86_64",
                syntax: str = "att") -> list[Instruction]:
    """Every instruction of some code, one after another.

    Parameters
    ----------
    code : bytes
    address : int
        Where it begins.
    machine : str
        As `pylbr.files.elf.ElfImage.machine`.
    syntax : str
        One of `SYNTAXES`, of x86.

    Raises
    ------
    UnsupportedFeature
        There is no disassembler for the machine.
    """
    return [_instruction(one, machine == "EM_RISCV")
            for one in _decoder(machine, syntax).disasm(code, address)]


def _instruction(one: Any, relative: bool) -> Instruction:
    """What capstone has decoded; `relative`: it gives targets as distances."""
    if not one.id:
        return Instruction(one.address, one.size, "(bad)")
    jump, call = one.group(cs.CS_GRP_JUMP), one.group(cs.CS_GRP_CALL)
    leaves = jump or one.group(cs.CS_GRP_RET) or one.group(cs.CS_GRP_IRET)
    target = None
    if jump or call or one.group(cs.CS_GRP_BRANCH_RELATIVE):
        # The last operand of AArch64's CBZ and TBZ, too.
        immediate = [o.imm for o in one.operands if o.type == cs.CS_OP_IMM]
        if immediate:
            target = immediate[-1] + (one.address if relative else 0) & (1 << 64) - 1
    text = f"{one.mnemonic} {one.op_str}".rstrip()
    return Instruction(one.address, one.size, text, target, bool(leaves and not call),
                       one.mnemonic in _ENDS)
