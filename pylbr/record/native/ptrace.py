"""A stopped thread of another process: its registers, and system calls made in its name."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import struct
import time
from collections.abc import Iterable
from typing import Final

from pylbr.errors import CommandError

__all__ = ["Registers", "Tracee", "TraceeGone", "settle"]

_CONT, _GETREGS, _SETREGS, _DETACH, _SYSCALL = 7, 12, 13, 17, 24
_SEIZE, _INTERRUPT, _GETSIGMASK, _SETSIGMASK = 0x4206, 0x4207, 0x420A, 0x420B
_PEEKSIGINFO: Final = 0x4209
_TRACESYSGOOD, _TRACEEXEC = 1, 0x10
_EVENT_EXEC, _EVENT_STOP = 4, 128
_WALL: Final = 0x40000000
_POLL: Final = 0.0002
_SYSCALL_STOP: Final = signal.SIGTRAP | 0x80
_SYSCALL_BYTES: Final = b"\x0f\x05"
#: Calls that a stop ends with EINTR though no handler runs (signal(7)): nothing is done by then.
#: epoll_wait and its kind, semop, sigtimedwait, io_getevents, io_uring_enter; sockets' with a
#: time-out (SO_RCVTIMEO, SO_SNDTIMEO).
_BROKEN_BY_STOPS: Final = frozenset(
    (232, 281, 441, 65, 220, 128, 208, 333, 426, 0, 1, 19, 20, 43, 44, 45, 46, 47, 288)
)
_INFO_SIZE: Final = 128  # siginfo_t
_AT_ENTRY, _AT_BASE, _AT_VDSO, _AT_FRAME = 9, 7, 33, 51

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


class TraceeGone(Exception):
    """The thread has ended."""


class Registers(ctypes.Structure):
    """``struct user_regs_struct``."""

    _fields_ = [
        (name, ctypes.c_uint64) for name in (
            "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx",
            "rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base",
            "gs_base", "ds", "es", "fs", "gs",
        )
    ]  # fmt: skip


def _ptrace(request: int, tid: int, address: int = 0, data: object = 0) -> int:
    result = int(_libc.ptrace(request, tid, address, data))
    if result < 0:
        number = ctypes.get_errno()
        if number == errno.ESRCH:
            raise TraceeGone
        raise OSError(number, os.strerror(number))
    return result


class Tracee:
    """A thread that this process traces; use it in a ``with``, which lets it go.

    Parameters
    ----------
    tid : int

    Raises
    ------
    OSError
        It may not be traced.
    TraceeGone
    """

    def __init__(self, tid: int) -> None:
        self.tid = tid
        self._signal = 0
        self._call_at = 0
        self._stopped = False
        _ptrace(_SEIZE, tid, 0, _TRACESYSGOOD | _TRACEEXEC)

    def interrupt(self) -> None:
        """Stop it where it is."""
        self.ask()
        self.wait_for_stop()

    def ask(self) -> None:
        """Ask it to stop; if it stands, at its next way into user mode."""
        _ptrace(_INTERRUPT, self.tid)
        if self._stopped:
            self._resume(_CONT)

    def wait_for_stop(self) -> None:
        """Wait until it stands where it was asked to.

        Another stop, as at the end of execve, makes the kernel forget that it was asked.
        """
        while (self._wait() >> 16) != _EVENT_STOP:
            self.ask()
        self._begin_again()

    def _begin_again(self) -> None:
        """Undo what the stop itself has done to a system call that sleeps: the kernel restarts
        most of them, some it ends with EINTR.  One that a signal has ended stays ended."""
        registers = self.registers()
        number, result = (ctypes.c_int64(n).value for n in (registers.orig_rax, registers.rax))
        if result != -errno.EINTR or number not in _BROKEN_BY_STOPS or self._is_signalled():
            return
        at = registers.rip - len(_SYSCALL_BYTES)
        if self.read(at, len(_SYSCALL_BYTES)) == _SYSCALL_BYTES:
            registers.rip, registers.rax, registers.orig_rax = at, number, 2**64 - 1
            self.set_registers(registers)

    def _is_signalled(self) -> bool:
        """Whether a signal waits that it does not block."""
        with open(f"/proc/{self.tid}/status") as file:
            lines = (line.partition(":") for line in file if line.startswith(("Sig", "ShdPnd")))
            sets = {name: int(words, 16) for name, _, words in lines if name != "SigQ"}
        return bool((sets["SigPnd"] | sets["ShdPnd"]) & ~sets["SigBlk"])

    def pending(self) -> list[bytes]:
        """``siginfo_t`` of the signals that are sent to it alone and not yet delivered."""
        infos = ctypes.create_string_buffer(32 * _INFO_SIZE)
        request = ctypes.create_string_buffer(struct.pack("<QIi", 0, 0, 32))
        count = _ptrace(_PEEKSIGINFO, self.tid, ctypes.addressof(request), ctypes.addressof(infos))
        return [infos.raw[at : at + _INFO_SIZE] for at in range(0, count * _INFO_SIZE, _INFO_SIZE)]

    def run_to_exec(self) -> bool:
        """Wait until it executes a program; False: it has ended without."""
        try:
            while self._wait() >> 16 != _EVENT_EXEC:
                self._resume(_CONT)
            # To the end of execve: only then are the registers what they will be.
            self._resume(_SYSCALL)
            while os.WSTOPSIG(self._wait()) != _SYSCALL_STOP:
                self._resume(_SYSCALL)
        except TraceeGone:
            return False
        return True

    def run_to(self, address: int, seconds: float) -> None:
        """Let it run until it executes the instruction there, or for some time.

        Raises
        ------
        TraceeGone
        """
        before = self.read(address, 1)
        self.write(address, b"\xcc")
        deadline = time.monotonic() + seconds
        while True:
            self._resume(_CONT)
            if not self._stops_before(deadline):
                self.interrupt()
                break
            status = self._wait()
            registers = self.registers()
            if os.WSTOPSIG(status) == signal.SIGTRAP and registers.rip == address + 1:
                self._signal = 0
                registers.rip = address
                self.set_registers(registers)
                break
        self.write(address, before)

    def _stops_before(self, deadline: float) -> bool:
        flags = os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT | _WALL
        while os.waitid(os.P_PID, self.tid, flags) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
        return True

    def _wait(self) -> int:
        _, status = os.waitpid(self.tid, _WALL)
        if not os.WIFSTOPPED(status):
            raise TraceeGone
        self._stopped = True
        number = os.WSTOPSIG(status)
        # Delivered when it continues, unless ptrace itself has made it.
        self._signal = number if not status >> 16 and number != _SYSCALL_STOP else 0
        return status

    def _resume(self, how: int) -> None:
        self._stopped = False
        _ptrace(how, self.tid, 0, self._signal)
        self._signal = 0

    def go_on(self) -> None:
        """Let it run."""
        self._resume(_CONT)

    def wait_for_signal(self, number: int, address: int) -> None:
        """Wait until it stops at an address for a signal, which it does not get then."""
        while True:
            status = self._wait()
            if (not status >> 16 and os.WSTOPSIG(status) == number
                    and self.registers().rip == address):
                break
            self._resume(_CONT)
        self._signal = 0

    @property
    def stopped(self) -> bool:
        """Whether it waits for its tracer."""
        return self._stopped

    def step_on(self, seconds: float) -> None:
        """Let it run for a moment, and stop it again."""
        self._resume(_CONT)
        time.sleep(seconds)
        self.interrupt()

    def registers(self) -> Registers:
        result = Registers()
        _ptrace(_GETREGS, self.tid, 0, ctypes.addressof(result))
        return result

    def set_registers(self, registers: Registers) -> None:
        _ptrace(_SETREGS, self.tid, 0, ctypes.addressof(registers))

    def swap_mask(self, mask: int) -> int:
        """Set the mask of blocked signals; returns the one before."""
        before = ctypes.c_uint64()
        _ptrace(_GETSIGMASK, self.tid, 8, ctypes.addressof(before))
        after = ctypes.c_uint64(mask)
        _ptrace(_SETSIGMASK, self.tid, 8, ctypes.addressof(after))
        return before.value

    def read(self, address: int, size: int) -> bytes:
        """Memory, up to where none is mapped.

        Raises
        ------
        OSError
            Nothing is mapped at `address`.
        """
        data = b""
        with open(f"/proc/{self.tid}/mem", "rb", buffering=0) as memory:
            while len(data) < size:
                try:
                    more = os.pread(memory.fileno(), size - len(data), address + len(data))
                except OSError:
                    if not data:
                        raise
                    break
                if not more:
                    break
                data += more
        return data

    def write(self, address: int, data: bytes) -> None:
        """Write memory, even where the program may not."""
        with open(f"/proc/{self.tid}/mem", "r+b", buffering=0) as memory:
            done = 0
            while done < len(data):
                count = os.pwrite(memory.fileno(), data[done:], address + done)
                if not count:
                    raise OSError(errno.EFAULT, f"{address:#x}: not writable")
                done += count

    def auxiliary(self) -> dict[int, int]:
        """Its auxiliary vector."""
        with open(f"/proc/{self.tid}/auxv", "rb") as file:
            words = file.read()
        pairs = struct.iter_unpack("<QQ", words[: len(words) // 16 * 16])
        return {int(key): int(value) for key, value in pairs}

    @property
    def entry(self) -> int:
        """Address of the program's first instruction."""
        return self.auxiliary()[_AT_ENTRY]

    @property
    def loader(self) -> int:
        """Address of its dynamic loader; 0 if it has none."""
        return self.auxiliary().get(_AT_BASE, 0)

    @property
    def frame_size(self) -> int:
        """Largest signal frame, bytes."""
        return self.auxiliary().get(_AT_FRAME, 8192)

    def call(self, number: int, *arguments: int) -> int:
        """Make a system call in its name; it has to be stopped.

        Raises
        ------
        OSError
            The call fails.
        """
        saved = self.registers()
        registers = Registers.from_buffer_copy(saved)
        registers.rip = self._call_instruction()
        registers.rax = number
        registers.orig_rax = 2**64 - 1
        for name, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), arguments, strict=False):
            setattr(registers, name, value % 2**64)
        self.set_registers(registers)
        for _ in range(2):  # its beginning, its end
            self._resume(_SYSCALL)
            while os.WSTOPSIG(self._wait()) != _SYSCALL_STOP:
                self._resume(_SYSCALL)
        result = ctypes.c_int64(self.registers().rax).value
        self.set_registers(saved)
        if -4096 < result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def _call_instruction(self) -> int:
        """Address of a SYSCALL: in the vDSO, else in any of its code."""
        if not self._call_at:
            with open(f"/proc/{self.tid}/maps") as file:
                lines = sorted(file.readlines(), key=lambda line: "[vdso]" not in line)
            for line in lines:
                words = line.split()
                if "x" not in words[1] or "[vsyscall]" in line:
                    continue
                start, end = (int(word, 16) for word in words[0].split("-"))
                at = self.read(start, end - start).find(_SYSCALL_BYTES)
                if at >= 0:
                    self._call_at = start + at
                    break
            else:
                raise CommandError(f"process {self.tid}: no SYSCALL instruction in its code")
        return self._call_at

    def detach(self) -> None:
        """Let it continue as if nothing had been."""
        if self._stopped:
            self._stopped = False
            _ptrace(_DETACH, self.tid, 0, self._signal)

    def __enter__(self) -> Tracee:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(TraceeGone, OSError):
            self.detach()


def settle(threads: Iterable[tuple[Tracee, Registers]]) -> None:
    """Let threads stop where the kernel restarts interrupted system calls, with these registers.

    All are asked before any is waited for: each has to get a processor.
    """
    asked = list(threads)
    for tracee, _ in asked:
        tracee.ask()
    for tracee, registers in asked:
        tracee.wait_for_stop()
        tracee.set_registers(registers)
