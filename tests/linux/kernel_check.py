"""Branches of a guest's kernel against the code in its memory: the kernel patches its image."""

from __future__ import annotations

import capstone
from capstone import x86

from pylbr.embed.machine import Machine

#: __START_KERNEL_map: where physical address 0 of the kernel's image appears.
MAPPED = 0xFFFFFFFF80000000


class KernelCode:
    """The kernel's instructions, as they lie in a machine's memory."""

    def __init__(self, machine: Machine) -> None:
        self._uc, self._memory = machine.uc, machine.memory
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._decoder.detail = True

    def _at(self, address: int) -> capstone.CsInsn | None:
        at = address - MAPPED
        if not 0 <= at < self._memory - 15:
            return None
        return next(self._decoder.disasm(bytes(self._uc.mem_read(at, 15)), address, 1), None)

    def kind(self, source: int) -> str:
        """"call", "indirect call", "ret", "cond", "jmp", "indirect jmp", "far", or what it is."""
        found = self._at(source)
        if found is None:
            return "nothing"
        name = found.mnemonic
        if name.startswith(("iret", "sysret", "sysexit")):
            return "far"
        if found.group(x86.X86_GRP_RET):
            return "ret"
        direct = bool(found.operands) and found.operands[0].type == x86.X86_OP_IMM
        if found.group(x86.X86_GRP_CALL):
            return "call" if direct else "indirect call"
        if name.endswith("jmp"):
            return "jmp" if direct else "indirect jmp"
        return "cond" if found.group(x86.X86_GRP_JUMP) else name

    def wrong(self, source: int, target: int) -> str:
        """Why the kernel has no such branch; empty if it has."""
        kind = self.kind(source)
        if kind in ("call", "cond", "jmp"):
            goes = self._at(source).operands[0].imm & (1 << 64) - 1
            return "" if goes == target else f"{kind} goes to {goes:#x}"
        return "" if kind in ("far", "ret", "indirect call", "indirect jmp") else f"{kind} is none"

    def connected(self, start: int, end: int) -> bool:
        """Straight code leads from `start` to the branch at `end`, or first to the user's code."""
        at = start
        while at != end:
            found, kind = self._at(at), self.kind(at)
            if found is None or kind in ("jmp", "ret", "far", "indirect jmp"):
                return kind == "far"
            at += found.size
        return True
