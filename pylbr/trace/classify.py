"""Class of a branch out of its instruction's bytes.

Sources: SDM vol. 2 (encodings), vol. 3 section 20.1.3 (what each class holds); the tests
compare with objdump.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import capstone
import numpy as np
from capstone import x86

from lbrcore import BranchClass
from pylbr.errors import TraceError
from pylbr.trace.metadata import Module, Task

__all__ = ["ClassFiller", "Decoded", "classify"]

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
    engine = capstone.Cs(capstone.CS_ARCH_X86, mode)
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
    """
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


class ClassFiller:
    """Finds the classes of branches in the files that a trace says were mapped.

    Parameters
    ----------
    modules : sequence of Module
    path : object
        The trace, for messages.
    tasks : sequence of Task
        Which process a thread is of; only needed where processes differ in what they map.
    """

    def __init__(
        self, modules: Sequence[Module], path: object, tasks: Sequence[Task] = ()
    ) -> None:
        self._path = path
        self._modules = sorted(modules, key=lambda module: module.start)
        self._starts = [module.start for module in self._modules]
        self._longest = max((module.size for module in modules), default=0)
        self._pids = {task.tid: task.pid for task in tasks}
        self._many = len({module.pid for module in modules} - {None}) > 1
        self._known: dict[tuple[int, int | None], Decoded | None] = {}

    def classes(
        self, source: np.ndarray, target: np.ndarray, start: int = 0,
        task: np.ndarray | None = None,
    ) -> np.ndarray:
        """(n,) uint8 classes of branches from `source` to `target`.

        An instruction that is no branch, and a direct branch that did not go to its target,
        was left by an interrupt or exception.

        Parameters
        ----------
        start : int
            Index in the trace of the first, for messages.
        task : (n,) array, optional
            Thread ids.

        Raises
        ------
        TraceError
            No module covers an address, its file cannot be read, or it holds no code there.
        """
        if task is None or not self._many:
            return self._of_process(source, target, start, None)
        result = np.empty(len(source), np.uint8)
        for tid in np.unique(task).tolist():
            mine = np.flatnonzero(task == tid)
            pid = self._pids.get(tid, tid)
            result[mine] = self._of_process(source[mine], target[mine], start, pid)
        return result

    def _of_process(
        self, source: np.ndarray, target: np.ndarray, start: int, pid: int | None
    ) -> np.ndarray:
        addresses, inverse = np.unique(source, return_inverse=True)
        kinds = np.empty(len(addresses), np.uint8)
        lengths = np.zeros(len(addresses), np.uint64)
        targets = np.zeros(len(addresses), np.uint64)
        for i, address in enumerate(addresses.tolist()):
            key = address, pid
            if key not in self._known:
                self._known[key] = self._decode(address, pid)
            decoded = self._known[key]
            if decoded is None:
                index = start + int(np.argmax(source == address))
                raise TraceError(self._path, self._complaint(address, pid, index))
            kinds[i] = _INTERRUPTED if decoded.branch is None else decoded.branch
            lengths[i], targets[i] = decoded.length, decoded.target or 0
        result, after = kinds[inverse], source + lengths[inverse]
        direct, meant = targets[inverse] != 0, targets[inverse]
        fell = (result == BranchClass.COND) & (target == after) & (meant != after)
        result[fell] = BranchClass.NOT_TAKEN
        result[direct & (target != meant) & ~fell] = _INTERRUPTED
        return result

    def _module(self, address: int, pid: int | None) -> Module | None:
        """The module at `address`; of several the one of this process, else the latest."""
        found = None
        i = bisect_right(self._starts, address) - 1
        while i >= 0 and address - self._starts[i] < self._longest:
            module = self._modules[i]
            if address < module.start + module.size:
                if module.pid == pid or pid is None:
                    return module
                if module.pid is None:
                    found = found or module
            i -= 1
        return found

    def _decode(self, address: int, pid: int | None) -> Decoded | None:
        module = self._module(address, pid)
        code = None if module is None else self._read(module, address - module.start)
        return classify(code, address) if code else None

    def _read(self, module: Module, offset: int) -> bytes | None:
        """The bytes of one instruction; None if the file cannot be read."""
        size = min(_MAX_INSTRUCTION, module.size - offset)
        try:
            number = os.open(module.path, os.O_RDONLY)
        except (OSError, ValueError):  # a NUL in the path
            return None
        try:
            return os.pread(number, size, module.file_offset + offset)
        except (OSError, OverflowError):
            return None
        finally:
            os.close(number)

    def _complaint(self, address: int, pid: int | None, index: int) -> str:
        where = f"branch {index} has no class, and at its FROM {address:#x}"
        module = self._module(address, pid)
        if module is None:
            return f"{where} no module is mapped; name the program with --module FILE@ADDRESS"
        if not os.path.isfile(module.path):
            return f"{where} lies {module.path}, which cannot be read; put the file back"
        return f"{where} {module.path} holds no instruction; is it the file that ran?"


_INTERRUPTED = BranchClass.INTERRUPT
