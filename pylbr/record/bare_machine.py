"""Runs bare code on Unicorn, at the user's privilege, with a handful of system calls."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from unicorn import (
    UC_ARCH_X86,
    UC_ERR_INSN_INVALID,
    UC_HOOK_INSN,
    UC_HOOK_INTR,
    UC_HOOK_MEM_INVALID,
    UC_MEM_FETCH_PROT,
    UC_MEM_FETCH_UNMAPPED,
    UC_MEM_WRITE_PROT,
    UC_MEM_WRITE_UNMAPPED,
    UC_MODE_64,
    UC_PROT_EXEC,
    UC_PROT_READ,
    UC_PROT_WRITE,
    Uc,
    UcError,
)
from unicorn import x86_const as reg

from lbrcore import BRANCH_DTYPE, BranchClass
from pylbr.cpu import Processor
from pylbr.embed.engine import GuestFault
from pylbr.embed.machine import executable_model
from pylbr.embed.unicorn import attach
from pylbr.errors import CommandError
from pylbr.record.bare import IMPORTS, PAGE, Code
from pylbr.record.wire_numbers import KERNEL_ENTRY, KERNEL_EXIT

__all__ = ["BareMachine"]

_STACK_TOP: Final = 0x7FFFFFFFF000
_STACK: Final = 8 << 20
#: Where a function returns to, and what FS points at (the stack protector's canary).
_RETURN: Final = 0x7FFFFF000000 - PAGE
_TLS: Final = _RETURN - 2 * PAGE
_ARGUMENTS: Final = (reg.UC_X86_REG_RDI, reg.UC_X86_REG_RSI, reg.UC_X86_REG_RDX,
                     reg.UC_X86_REG_RCX, reg.UC_X86_REG_R8, reg.UC_X86_REG_R9)
# Linux's x86-64 system calls that are served, and AT_ entries of the auxiliary vector.
_READ, _WRITE, _EXIT, _EXIT_GROUP = 0, 1, 60, 231
_NULL, _PHDR, _PHENT, _PHNUM, _PAGESZ, _ENTRY, _RANDOM = 0, 3, 4, 5, 6, 9, 25
_AT_ONCE: Final = 1 << 20
#: Signal that Linux makes of an exception (arch/x86/kernel/traps.c).
_SIGNALS: Final = {0: signal.SIGFPE, 1: signal.SIGTRAP, 3: signal.SIGTRAP, 6: signal.SIGILL,
                   16: signal.SIGFPE, 17: signal.SIGBUS, 19: signal.SIGFPE}


class BareMachine:
    """Memory, registers and the few system calls of bare code.

    Parameters
    ----------
    code : Code
    arguments : sequence of str
        Of a program: argv from 1 on.  Of a function: integers (0x for hexadecimal), and text,
        which is put into memory and whose address is passed.
    branches : callable
        Takes all branches in order, arrays of BRANCH_DTYPE.

    Attributes
    ----------
    exit_code : int
        128 + N for what Linux would have made signal N of.
    remarks : list of str
        The result of a function, or what it has died of.
    """

    def __init__(
        self, code: Code, arguments: Sequence[str],
        branches: Callable[[npt.NDArray[np.void]], object],
    ) -> None:
        self._code, self._branches = code, branches
        self.exit_code = 0
        self.remarks: list[str] = []
        self._fault = ""
        self._ended = False
        self.uc = uc = Uc(UC_ARCH_X86, UC_MODE_64)
        uc.ctl_set_cpu_model(reg.UC_CPU_X86_ICELAKE_SERVER)
        self._map_code()
        uc.mem_map(_STACK_TOP - _STACK, _STACK, UC_PROT_READ | UC_PROT_WRITE)
        uc.mem_map(_TLS, 2 * PAGE, UC_PROT_READ | UC_PROT_WRITE)
        uc.mem_map(_RETURN, PAGE, UC_PROT_READ | UC_PROT_EXEC)
        uc.reg_write(reg.UC_X86_REG_FS_BASE, _TLS + PAGE)
        if code.function:
            self._prepare_call(arguments)
        else:
            self._prepare_start(arguments)
        self._link = attach(uc, Processor(executable_model("sapphire-rapids")), trace=branches)
        self._link.engine.set_cpl(3)
        self._link.recorder.cpl = 3
        uc.hook_add(UC_HOOK_INSN, self._syscall, None, 1, 0, reg.UC_X86_INS_SYSCALL)
        uc.hook_add(UC_HOOK_INTR, self._exception)
        uc.hook_add(UC_HOOK_MEM_INVALID, self._invalid_access)

    def run(self) -> None:
        """Run to the end: exit, return, a fault, or `stop`."""
        try:
            self.uc.emu_start(self._code.entry, _RETURN)
        except UcError as error:
            if error.errno == UC_ERR_INSN_INVALID:
                self._die(signal.SIGILL, "an instruction that this engine does not support")
            else:
                self._die(signal.SIGSEGV, self._fault or str(error))
        try:
            self._link.settle()
        except GuestFault as fault:
            self._die(_SIGNALS.get(fault.vector, signal.SIGSEGV), str(fault))
        self._link.recorder.drain()
        if not self._ended and self._code.function:
            value = int(self.uc.reg_read(reg.UC_X86_REG_RAX))
            signed = value - (value >> 63 << 64)
            self.remarks.append(f"{self._code.function} returned {signed} ({value:#x})")

    def stop(self, number: int) -> None:
        """End as by a signal from outside."""
        self._end(128 + number)

    # What is in memory at the start

    def _map_code(self) -> None:
        """Map whole pages; one that two segments share has the rights of both."""
        pages: dict[int, int] = {}
        for segment in self._code.segments:
            rights = (UC_PROT_EXEC if segment.flags & 1 else 0) | (
                UC_PROT_WRITE if segment.flags & 2 else 0) | UC_PROT_READ
            for page in range(segment.start // PAGE, -(-(segment.start + segment.size) // PAGE)):
                pages[page] = pages.get(page, 0) | rights
        runs: list[list[int]] = []  # first page, number of pages, rights
        for page, rights in sorted(pages.items()):
            if runs and page == sum(runs[-1][:2]) and rights == runs[-1][2]:
                runs[-1][1] += 1
            else:
                runs.append([page, 1, rights])
        for first, count, rights in runs:
            self.uc.mem_map(first * PAGE, count * PAGE, rights)
        for segment in self._code.segments:
            self.uc.mem_write(segment.start, bytes(segment.data))

    def _prepare_call(self, arguments: Sequence[str]) -> None:
        """A function's arguments as the psABI passes integers and pointers."""
        at, values = _STACK_TOP - 64, []
        for text in arguments:
            try:
                values.append(int(text, 0) & (1 << 64) - 1)
            except ValueError:
                data = os.fsencode(text) + b"\0"
                at = at - len(data) & ~15
                self._check_room(at)
                self.uc.mem_write(at, data)
                values.append(at)
        for register, value in zip(_ARGUMENTS, values, strict=False):
            self.uc.reg_write(register, value)
        rest = values[len(_ARGUMENTS):]
        at = (at - 8 * len(rest) & ~15) - 8  # 16-byte aligned before the return address
        self._check_room(at)
        self.uc.mem_write(at, struct.pack(f"<{len(rest) + 1}Q", _RETURN, *rest))
        self.uc.reg_write(reg.UC_X86_REG_RSP, at)

    def _prepare_start(self, arguments: Sequence[str]) -> None:
        """argc, argv, an empty environment and the auxiliary vector, as execve leaves them."""
        at = _STACK_TOP - 64
        random = at - 16
        self.uc.mem_write(random, secrets.token_bytes(16))
        at, pointers = random, []
        for text in (self._code.path, *arguments):
            data = os.fsencode(text) + b"\0"
            at -= len(data)
            self._check_room(at)
            self.uc.mem_write(at, data)
            pointers.append(at)
        address, count = self._code.headers
        vector = [_PHDR, address, _PHENT, 56, _PHNUM, count, _PAGESZ, PAGE,
                  _ENTRY, self._code.entry, _RANDOM, random, _NULL, 0]
        words = [len(pointers), *pointers, 0, 0, *vector]
        at = at - 8 * len(words) & ~15
        self._check_room(at)
        self.uc.mem_write(at, struct.pack(f"<{len(words)}Q", *words))
        self.uc.reg_write(reg.UC_X86_REG_RSP, at)

    def _check_room(self, at: int) -> None:
        if at < _STACK_TOP - _STACK // 4:  # as Linux limits them to a quarter of the stack
            raise CommandError("the arguments are longer than 2 MiB", 126)

    # What happens while it runs

    def _end(self, code: int) -> None:
        if not self._ended:
            self._ended, self.exit_code = True, code
        self.uc.emu_stop()

    def _die(self, number: int, why: str) -> None:
        if not self._ended:
            self._ended, self.exit_code = True, 128 + number
            name = self._code.function or os.path.basename(self._code.path)
            at = int(self.uc.reg_read(reg.UC_X86_REG_RIP))
            self.remarks.append(f"{name} died of {signal.Signals(number).name} at {at:#x}: {why}")

    def _invalid_access(
        self, uc: Uc, access: int, address: int, size: int, value: int, data: Any
    ) -> bool:
        number = (address - IMPORTS) // 16
        if address >= IMPORTS and number < len(self._code.imports):
            self._fault = (f"it calls {self._code.imports[number]}, which {self._code.path} only "
                           "imports")
        else:
            what = {UC_MEM_FETCH_UNMAPPED: "execution", UC_MEM_FETCH_PROT: "execution",
                    UC_MEM_WRITE_UNMAPPED: "a write", UC_MEM_WRITE_PROT: "a write"}
            self._fault = f"{what.get(access, 'a read')} at {address:#x}"
        return False

    def _exception(self, uc: Uc, vector: int, data: Any) -> None:
        if not self._ended:
            self._die(_SIGNALS.get(vector, signal.SIGSEGV), f"exception {vector}")
        uc.emu_stop()

    def _syscall(self, uc: Uc, data: Any) -> None:
        """Serve a call, and record the way into the kernel and back."""
        number = int(uc.reg_read(reg.UC_X86_REG_RAX))
        if number in (_EXIT, _EXIT_GROUP):
            self._end(int(uc.reg_read(reg.UC_X86_REG_RDI)) & 0xFF)
            return
        self._record_call()
        uc.reg_write(reg.UC_X86_REG_RAX, self._serve(number) & (1 << 64) - 1)

    def _record_call(self) -> None:
        recorder = self._link.recorder
        assert recorder.block is not None
        after = recorder.block[1]
        recorder.settle(after)
        instructions = recorder.take_instructions()
        recorder.drain()
        rows = np.zeros(2, BRANCH_DTYPE)
        rows["from"], rows["to"] = (after - 2, KERNEL_EXIT), (KERNEL_ENTRY, after)
        rows["class"] = BranchClass.SYSCALL, BranchClass.SYSRET
        rows["instructions"] = rows["cycles"] = instructions, 0
        rows["cpl_from"], rows["cpl_to"] = (3, 0), (0, 3)
        self._branches(rows)

    def _serve(self, number: int) -> int:
        if number not in (_READ, _WRITE):
            remark = f"system call {number} is not served by this engine; it returned ENOSYS"
            if remark not in self.remarks:
                self.remarks.append(remark)
            return -errno.ENOSYS
        descriptor, address, count = (
            int(self.uc.reg_read(r)) for r in
            (reg.UC_X86_REG_RDI, reg.UC_X86_REG_RSI, reg.UC_X86_REG_RDX))
        count = min(count, _AT_ONCE)
        if descriptor > 2:
            return -errno.EBADF
        try:
            if number == _WRITE:
                return os.write(descriptor, bytes(self.uc.mem_read(address, count)))
            data = os.read(descriptor, count)
            self.uc.mem_write(address, data)
            return len(data)
        except UcError:
            return -errno.EFAULT
        except BrokenPipeError:
            self._end(128 + signal.SIGPIPE)
            return -errno.EPIPE
        except OSError as error:
            return -(error.errno or errno.EIO)
