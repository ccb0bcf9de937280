"""The state in which an image starts: multiboot's, or long mode with memory mapped one to one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import PurePath

from unicorn import Uc
from unicorn import x86_const as reg

from pylbr.embed.image import Image, ImageError

__all__ = ["COLUMNS", "FIRMWARE", "ROWS", "SCREEN", "prepare", "real_mode"]

#: At the top of memory: tables of ours, reported to the guest as reserved.
FIRMWARE = 0x10000
#: EGA text: characters and attributes, a byte each.
SCREEN, COLUMNS, ROWS = 0xB8000, 80, 25
_SCREEN_AT, _TEXT = 88, 2
#: What images look for in the BIOS data area: COM1, the segment after base memory, its KiB.
_BIOS_DATA = {0x400: 0x3F8, 0x40E: 0x9FC0, 0x413: 0x9FC00 >> 10}
#: Null, and flat segments: 64-bit code, data, user data, user 64-bit code, 32-bit code, data.
_GDT = (
    0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFF3000000FFFF, 0x00AFFB000000FFFF,
    0x00CF9B000000FFFF, 0x00CF93000000FFFF,
)
_CODE64, _DATA, _CODE32 = 0x08, 0x10, 0x28
_PE, _MP, _ET, _NE, _PG = 1, 1 << 1, 1 << 4, 1 << 5, 1 << 31
_PAE, _OSFXSR, _OSXMMEXCPT = 1 << 5, 1 << 9, 1 << 10
_PRESENT_USER, _LARGE = 7, 0x80
_EFER, _LME, _LMA = 0xC0000080, 1 << 8, 1 << 10
_LOADED = 0x2BADB002
_LONGEST_COMMAND, _MOST_MODULES = 2047, 32
#: MOV SS, CX.  Written from outside, the register keeps a stack of 16 bits.
_LOAD_SS = b"\x8e\xd1"
#: Null, 16-bit code and data, 32-bit code.
_GDT16 = (0, 0x008F9B000000FFFF, 0x000093000000FFFF, 0x00CF9B000000FFFF)
#: In 16-bit protected mode: MOV EAX, CR0; AND AL, 0FEH; MOV CR0, EAX; XOR AX, AX; MOV to DS, ES,
#: SS, FS, GS; JMP FAR to offset 0 of the segment that follows.
_TO_REAL_MODE = bytes.fromhex("0f20c0 24fe 0f22c0 31c0 8ed8 8ec0 8ed0 8ee0 8ee8 ea0000")
_TO_REAL_MODE_LENGTH = 10
_GENERAL = tuple(getattr(reg, f"UC_X86_REG_{name}") for name in (
    "RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP", *(f"R{n}" for n in range(8, 16))))
_SEGMENTS = (reg.UC_X86_REG_DS, reg.UC_X86_REG_ES, reg.UC_X86_REG_FS, reg.UC_X86_REG_GS)


def prepare(
    uc: Uc, image: Image, memory: int, arguments: str = "", modules: Sequence[bytes] = ()
) -> None:
    """Load `image` into `memory` bytes at 0 and set the registers, all but RIP.

    Raises
    ------
    ImageError
        A segment or module does not fit, or there are arguments or modules for an image that
        cannot be given any.
    """
    top = memory - FIRMWARE
    command = f"{PurePath(image.path).name} {arguments}".strip().encode("utf-8", "replace")
    if (arguments or modules) and not image.multiboot:
        raise ImageError(
            image.path, "arguments and modules reach an image with a multiboot header only")
    if len(modules) > _MOST_MODULES:
        raise ImageError(image.path, f"more than {_MOST_MODULES} modules")
    if len(command) > _LONGEST_COMMAND or b"\0" in command:
        raise ImageError(image.path, f"arguments: more than {_LONGEST_COMMAND} bytes, or a NUL")
    for address, word in _BIOS_DATA.items():
        uc.mem_write(address, struct.pack("<H", word))
    for start, size, contents in image.segments:
        if start + size > top:
            raise ImageError(
                image.path, f"a segment at {start:#x} of {size:#x} bytes does not fit below "
                f"{top:#x}; give the machine more memory")
        uc.mem_write(start, contents)
    uc.mem_write(top, struct.pack(f"<{len(_GDT)}Q", *_GDT))
    uc.reg_write(reg.UC_X86_REG_GDTR, (0, top, 8 * len(_GDT) - 1, 0))
    uc.reg_write(reg.UC_X86_REG_IDTR, (0, 0, 0, 0))
    if image.multiboot:
        places = _place_modules(uc, image, top, modules)
        _protected_mode(uc, top, memory, command, places)
    else:
        _long_mode(uc, top)
    uc.reg_write(reg.UC_X86_REG_RFLAGS, 2)


def _place_modules(
    uc: Uc, image: Image, top: int, modules: Sequence[bytes]
) -> list[tuple[int, int]]:
    """Put the modules below `top`, on pages of their own; where each begins and ends."""
    end, places = top, []
    floor = max(start + size for start, size, _ in image.segments)
    for contents in modules:
        end = (end - len(contents)) & ~0xFFF
        if end < floor:
            raise ImageError(
                image.path, "its modules do not fit after it; give the machine more memory")
        uc.mem_write(end, contents)
        places.append((end, end + len(contents)))
    return places


def real_mode(uc: Uc, memory: int, vector: int) -> None:
    """The state in which SIPI with `vector` starts a processor (SDM vol. 3, 9.4.4)."""
    table = memory - FIRMWARE + 0xE00
    _leave_long_mode(uc)
    uc.mem_write(table, struct.pack(f"<{len(_GDT16)}Q", *_GDT16))
    uc.reg_write(reg.UC_X86_REG_GDTR, (0, table, 8 * len(_GDT16) - 1, 0))
    uc.reg_write(reg.UC_X86_REG_CS, 0x18)
    for register in (reg.UC_X86_REG_SS, *_SEGMENTS):
        uc.reg_write(register, 0x10)
    uc.reg_write(reg.UC_X86_REG_RFLAGS, 2)
    # The guest's own way: written from outside, CS keeps its size, and in real mode its base.
    code = table + 0x40
    jump = struct.pack("<BIH", 0xEA, code + 7, 0x08)
    uc.mem_write(code, jump + _TO_REAL_MODE + struct.pack("<H", vector << 8))
    uc.emu_start(code, 0, count=1 + _TO_REAL_MODE_LENGTH)
    for register in _GENERAL:
        uc.reg_write(register, 0)
    for register in (reg.UC_X86_REG_GDTR, reg.UC_X86_REG_IDTR):
        uc.reg_write(register, (0, 0, 0xFFFF, 0))
    uc.reg_write(reg.UC_X86_REG_RFLAGS, 2)
    uc.reg_write(reg.UC_X86_REG_RIP, 0)


def _leave_long_mode(uc: Uc) -> None:
    """Into protected mode; the engine begins in long mode."""
    uc.reg_write(reg.UC_X86_REG_CR0, _PG | _ET | _PE)
    uc.reg_write(reg.UC_X86_REG_CR0, _ET | _PE)
    uc.msr_write(_EFER, 0)
    uc.reg_write(reg.UC_X86_REG_CR4, 0)


def _protected_mode(
    uc: Uc, top: int, memory: int, text: bytes, modules: list[tuple[int, int]]
) -> None:
    """As the Multiboot specification 0.6.96, 3.2 and 3.3, has it."""
    _leave_long_mode(uc)
    for register, selector in (
            (reg.UC_X86_REG_CS, _CODE32), (reg.UC_X86_REG_SS, _DATA),
            *((register, _DATA) for register in _SEGMENTS)):
        uc.reg_write(register, selector)
    uc.mem_write(top + 0xF0, _LOAD_SS)
    uc.reg_write(reg.UC_X86_REG_RCX, _DATA)
    uc.emu_start(top + 0xF0, top + 0xF0 + len(_LOAD_SS), count=1)
    name, entries, info, command = top + 0x100, top + 0x200, top + 0x300, top + 0x400
    uc.mem_write(command, text + b"\0")
    uc.mem_write(name, b"pylbr\0")
    areas = ((0, 0x9FC00, 1), (0x100000, top - 0x100000, 1), (top, memory - top, 2))
    table = b"".join(struct.pack("<IQQI", 20, *area) for area in areas)
    uc.mem_write(entries, table)
    listed = top + 0xC00
    uc.mem_write(listed, b"".join(
        struct.pack("<4I", start, end, command, 0) for start, end in modules))
    # Flags: memory 0, command line 2, modules 3, memory map 6, loader 9, frame buffer 12.
    head = struct.pack(
        "<4I3I4I2I3II", 0x124D, 0x9FC00 >> 10, (top - 0x100000) >> 10, 0, command,
        len(modules), listed,
        0, 0, 0, 0, len(table), entries, 0, 0, 0, name)
    uc.mem_write(info, head.ljust(_SCREEN_AT, b"\0") + struct.pack(
        "<QIIIBB", SCREEN, 2 * COLUMNS, COLUMNS, ROWS, 16, _TEXT).ljust(28, b"\0"))
    uc.reg_write(reg.UC_X86_REG_RAX, _LOADED)
    uc.reg_write(reg.UC_X86_REG_RBX, info)


def _long_mode(uc: Uc, top: int) -> None:
    """Four GiB mapped one to one, for all rings; the stack ends below our tables."""
    root, pointers, directories = top + 0x1000, top + 0x2000, top + 0x3000
    uc.mem_write(root, struct.pack("<Q", pointers | _PRESENT_USER))
    uc.mem_write(pointers, struct.pack(
        "<4Q", *(directories + 0x1000 * n | _PRESENT_USER for n in range(4))))
    uc.mem_write(directories, struct.pack(
        "<2048Q", *(n << 21 | _LARGE | _PRESENT_USER for n in range(2048))))
    uc.reg_write(reg.UC_X86_REG_CR3, root)
    uc.reg_write(reg.UC_X86_REG_CR4, _PAE | _OSFXSR | _OSXMMEXCPT)
    uc.reg_write(reg.UC_X86_REG_CR0, _PG | _PE | _MP | _ET | _NE)
    uc.msr_write(_EFER, _LME | _LMA)
    uc.reg_write(reg.UC_X86_REG_CS, _CODE64)
    for register in (reg.UC_X86_REG_SS, *_SEGMENTS):
        uc.reg_write(register, _DATA)
    uc.reg_write(reg.UC_X86_REG_RSP, top)
