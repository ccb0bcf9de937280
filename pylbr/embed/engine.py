"""What a logical processor needs of Unicorn beyond the binding's own interface.

Hooks that are machine code, guest-virtual memory, and three facts that no register of the
binding shows: the privilege level as the engine enforces it, the error code of an exception,
and whether INT n raised it.  These lie in the engine's saved context; where, is found out
once by an engine of our own that is put into known states.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from unicorn import (
    UC_ARCH_X86,
    UC_CTL_IO_WRITE,
    UC_CTL_TLB_FLUSH,
    UC_HOOK_EDGE_GENERATED,
    UC_HOOK_INTR,
    UC_HOOK_MEM_WRITE_PROT,
    UC_MODE_64,
    UC_PROT_EXEC,
    UC_PROT_READ,
    UC_PROT_WRITE,
    Uc,
    UcError,
)
from unicorn import unicorn_py3 as _binding
from unicorn import x86_const as reg

from pylbr.embed.code_pages import CodePages
from pylbr.errors import UnsupportedFeature

__all__ = ["Engine", "GuestFault", "InternalState"]

PAGE = 0x1000
PAGE_FAULT = 14
#: QEMU's HF_ flags: CPL 1:0, IRQs held back for one instruction 3, code of 32 bits 4,
#: protected mode 7, long mode 14, code of 64 bits 15.
_CPL, _INHIBIT, _CS32, _LMA, _CS64 = 3, 1 << 3, 1 << 4, 1 << 14, 1 << 15
_PF_WRITE, _PF_USER = 2, 4
_NONE, _PROTECTION = -1, 13


class GuestFault(Exception):
    """An exception that the guest's instruction raises.

    Attributes
    ----------
    vector : int
    error_code : int or None
        None for vectors that push none.
    address : int or None
        CR2, of page faults.
    """

    def __init__(
        self, vector: int, error_code: int | None = None, address: int | None = None
    ) -> None:
        self.vector, self.error_code, self.address = vector, error_code, address
        super().__init__(f"exception {vector}")


@dataclass(frozen=True)
class InternalState:
    """State of the engine that its registers do not show."""

    flags: int
    error_code: int
    software: bool

    @property
    def cpl(self) -> int:
        """Privilege level."""
        return self.flags & _CPL

    @property
    def inhibited(self) -> bool:
        """Interrupts are held back for one instruction, as after STI."""
        return bool(self.flags & _INHIBIT)

    @property
    def bits(self) -> int:
        """Size of code: 64, 32 or 16."""
        if self.flags & _LMA and self.flags & _CS64:
            return 64
        return 32 if self.flags & _CS32 else 16


_GDT = (0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF)


@lru_cache(maxsize=1)
def _layout() -> tuple[int, int, int]:
    """Offsets in a saved context: flags, error code with INT n's mark after it, exception.

    The last is that of the exception that QEMU believes to be still in delivery: its own
    delivery, which Unicorn leaves out, would clear it, and the next one becomes a double fault.

    Raises
    ------
    UnsupportedFeature
        This build of Unicorn does not show them where they can be recognised.
    """
    seen: list[bytes] = []

    def fault(selector: int) -> bytes:
        uc = Uc(UC_ARCH_X86, UC_MODE_64)
        uc.mem_map(0, PAGE)
        uc.mem_write(0, struct.pack("<3Q", *_GDT))
        uc.reg_write(reg.UC_X86_REG_GDTR, (0, 0, 0x17, 0))
        uc.reg_write(reg.UC_X86_REG_CS, 8)
        uc.reg_write(reg.UC_X86_REG_SS, 16)
        seen.append(bytes(uc.context_save()))
        uc.mem_write(0x100, struct.pack("<BI", 0xB8, selector) + b"\x8e\xd8")  # MOV DS, EAX

        def take(uc: Uc, vector: int, data: object) -> None:
            seen.append(bytes(uc.context_save()))
            uc.emu_stop()

        uc.hook_add(UC_HOOK_INTR, take)
        uc.emu_start(0x100, 0x200)
        return seen[-1]

    first, second = fault(0x1238), fault(0x2480)
    codes = [
        at for at in range(0x400, len(first) - 8, 4)
        if struct.unpack_from("<i", first, at)[0] == 0x1238
        and struct.unpack_from("<i", second, at)[0] == 0x2480
    ]
    known = _CPL | _CS32 | 1 << 5 | 1 << 7 | _LMA | _CS64
    flags = [
        at for at in range(0x80, 0x200, 4)
        if all(struct.unpack_from("<I", context, at)[0] & known == known & ~_CPL
               for context in seen)
    ]
    pending = [
        at for at in range(0x400, len(first) - 8, 4)
        if struct.unpack_from("<i", seen[0], at)[0] == _NONE
        and struct.unpack_from("<i", first, at)[0] == _PROTECTION
    ]
    if len(codes) != 1 or len(flags) != 1 or len(pending) != 1:
        raise UnsupportedFeature("this build of Unicorn hides its privilege level; use 2.1.4")
    return flags[0], codes[0], pending[0]


class Engine:
    """An x86 Unicorn engine.

    Parameters
    ----------
    uc : Uc
    """

    def __init__(self, uc: Uc) -> None:
        self.uc = uc
        # An own handle on the library: the argument types of the binding's stay untouched.
        library = ctypes.CDLL(_binding.unicorn.uclib._name)
        self._add, self._delete = library.uc_hook_add, library.uc_hook_del
        self._translate = library.uc_vmem_translate
        self._translate.argtypes = [
            ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.POINTER(ctypes.c_uint64)]
        self._handle = ctypes.c_void_p(self._address(uc._uch))
        self._flags, self._error_code, self._pending = _layout()
        self._context = uc.context_save()
        self._save, self._saved = library.uc_context_save, self._context.context
        self._saved_at = self._address(self._saved)
        self.handle: int = self._handle.value or 0
        self.register_read: int = self._address(library.uc_reg_read)
        self.register_write: int = self._address(library.uc_reg_write)
        self._read_register = library.uc_reg_read
        self._memory_functions = (
            self._address(library.uc_vmem_translate), self._address(library.uc_hook_add),
            self._address(library.uc_hook_del), self._address(library.uc_ctl))
        self._read_virtual = library.uc_vmem_read
        self._read_virtual.argtypes = [
            ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
        self._code_context = uc.context_save()
        #: As `BlockRecorder` takes them.
        self.code = (
            self._address(library.uc_vmem_read), self._address(library.uc_context_save),
            self._address(self._code_context.context), self._flags)

    @staticmethod
    def _address(pointer: Any) -> int:
        return ctypes.cast(pointer, ctypes.c_void_p).value or 0

    # Hooks

    def hook(self, kind: int, function: int, last: int, begin: int = 1, end: int = 0,
             instruction: int = 0) -> int:
        """Hook machine code: `function` with the last argument `last`; returns a handle.

        `instruction`: of UC_HOOK_INSN, its number.
        """
        handle = ctypes.c_size_t()
        status = self._add(
            self._handle, ctypes.byref(handle), ctypes.c_int(kind), ctypes.c_void_p(function),
            ctypes.c_void_p(last), ctypes.c_uint64(begin), ctypes.c_uint64(end),
            ctypes.c_int(instruction),
        )
        if status:
            raise UnsupportedFeature(f"Unicorn refuses a hook of kind {kind:#x}: error {status}")
        return handle.value

    def code_pages(self, memory: int) -> CodePages:
        """Watch the code that is translated from now on, of `memory` bytes from address 0."""
        pages = CodePages(self.handle, memory, self._memory_functions, UC_HOOK_MEM_WRITE_PROT,
                          UC_PROT_EXEC, UC_CTL_TLB_FLUSH | UC_CTL_IO_WRITE << 30)
        self.hook(UC_HOOK_EDGE_GENERATED, *pages.hook)
        return pages

    def enter(self, pages: CodePages, address: int) -> None:
        """The engine is about to run from `address`."""
        register = self._cr2()
        if not pages.enter(address):
            self._not_the_guest(register)

    def unhook(self, handle: int) -> None:
        """Take a hook of `hook` away."""
        self._delete(self._handle, ctypes.c_size_t(handle))

    # State that no register shows

    def internal_state(self) -> InternalState:
        """The state that belongs to the registers, as of now."""
        self._save(self._handle, self._saved)
        flags = ctypes.c_uint32.from_address(self._saved_at + self._flags).value
        error_code, software = (ctypes.c_uint32 * 2).from_address(
            self._saved_at + self._error_code)
        return InternalState(flags, error_code, bool(software))

    def set_cpl(self, cpl: int) -> None:
        """Change the privilege level; CS and SS are the caller's to load."""
        self._poke(self._flags, lambda flags: flags & ~_CPL | cpl)

    def taken(self) -> None:
        """The exception that the engine raised is taken: it is no longer in delivery."""
        self._poke(self._pending, lambda pending: _NONE & 0xFFFFFFFF)

    def _poke(self, offset: int, change: Callable[[int], int]) -> None:
        self.uc.context_update(self._context)
        place = ctypes.c_uint32.from_address(self._address(self._context.context) + offset)
        place.value = change(place.value)
        self.uc.context_restore(self._context)

    # Guest-virtual memory

    def translate(self, address: int, write: bool = False) -> int:
        """Physical address.

        Raises
        ------
        GuestFault
            Page fault, or #GP for an address that is not canonical.
        """
        if self.internal_state().bits == 64 and not -(1 << 56) <= _signed(address) < 1 << 56:
            raise GuestFault(13, 0)
        physical, register = ctypes.c_uint64(), self._cr2()
        if self._translate(self._handle, address, UC_PROT_WRITE if write else UC_PROT_READ,
                           ctypes.byref(physical)):
            self._not_the_guest(register)
            code = (_PF_WRITE if write else 0) | (_PF_USER if self.internal_state().cpl == 3 else 0)
            raise GuestFault(PAGE_FAULT, code, address)
        return physical.value

    def _cr2(self) -> int:
        register = ctypes.c_uint64()
        self._read_register(self._handle, reg.UC_X86_REG_CR2, ctypes.byref(register))
        return register.value

    def _not_the_guest(self, register: int) -> None:
        """An access from outside has failed; the engine believes that it was the guest's."""
        self.uc.reg_write(reg.UC_X86_REG_CR2, register)
        self.taken()

    def _pieces(self, address: int, size: int, write: bool) -> list[tuple[int, int]]:
        pieces = []
        while size:
            length = min(size, PAGE - address % PAGE)
            pieces.append((self.translate(address, write), length))
            address, size = address + length & (1 << 64) - 1, size - length
        return pieces

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a guest-virtual address; ones where there is no memory.

        Raises
        ------
        GuestFault
            As `translate`.
        """
        if 0 < size <= PAGE - address % PAGE:
            buffer, register = ctypes.create_string_buffer(size), self._cr2()
            if not self._read_virtual(self._handle, address, UC_PROT_READ, buffer, size):
                return buffer.raw
            self._not_the_guest(register)
        return b"".join(  # over pages, where no memory is, or a fault
            self._read(physical, length)
            for physical, length in self._pieces(address, size, False)
        )

    def _read(self, physical: int, length: int) -> bytes:
        try:
            return bytes(self.uc.mem_read(physical, length))
        except UcError:
            return b"\xff" * length

    def write(self, address: int, data: bytes | bytearray) -> None:
        """Write at a guest-virtual address, all of it or nothing; lost where no memory is."""
        at = 0
        for physical, length in self._pieces(address, len(data), True):
            with suppress(UcError):
                self.uc.mem_write(physical, bytes(data[at:at + length]))
            at += length


def _signed(address: int) -> int:
    return address - (1 << 64) if address >> 63 else address
