"""Linux's 64-bit boot protocol on a machine.

Source: Linux, Documentation/arch/x86/boot.rst and zero-page.rst.
"""

from __future__ import annotations

import struct

from unicorn import x86_const as reg

from pylbr.embed import acpi
from pylbr.embed.image import ImageError
from pylbr.embed.machine import Machine
from pylbr.embed.start import FIRMWARE
from pylbr.errors import ConfigurationError
from pylbr.linux.kernel import Kernel

__all__ = ["boot"]

#: Below the first megabyte, where nothing else lies.
_PARAMETERS, _COMMAND_LINE = 0x10000, 0x20000
_HEADER = 0x1F1
_E820_COUNT, _E820, _RSDP = 0x1E8, 0x2D0, 0x70
_LOADER, _CODE32, _RAMDISK, _COMMAND = 0x210, 0x214, 0x218, 0x228
_UNKNOWN_LOADER = 0xFF
_RAM, _RESERVED = 1, 2
_BASE_MEMORY, _BIOS, _MIB = 0x9FC00, 0xE0000, 1 << 20
_PAGE = 0x1000


def boot(machine: Machine, kernel: Kernel, initrd: bytes = b"", command_line: str = "") -> None:
    """Put a kernel, its initrd and its parameters into memory and the processor at its entry.

    Raises
    ------
    ImageError
        The kernel does not fit.
    ConfigurationError
        The initrd does not fit, or the command line is too long.
    """
    top = machine.memory - FIRMWARE & ~(_MIB - 1)
    text = command_line.encode() + b"\0"
    if len(text) > kernel.command_line or b"\0" in text[:-1]:
        raise ConfigurationError(
            f"command line: more than {kernel.command_line} bytes, or a NUL in it")
    low = min(start for start, _, _ in kernel.image.segments)
    end = low + kernel.room
    if end > top:
        raise ImageError(kernel.image.path, f"it takes {end >> 20} MiB, the machine has "
                                            f"{machine.memory >> 20}: give it more memory")
    at = (min(top, kernel.initrd_end) - len(initrd)) & ~(_PAGE - 1)
    if initrd and at < end:
        raise ConfigurationError(
            f"initrd: {len(initrd) >> 20} MiB do not fit after the kernel into "
            f"{machine.memory >> 20} MiB: give the machine more memory")
    machine.load(kernel.image)
    uc = machine.uc
    for address, table in acpi.tables(machine.processors).items():
        uc.mem_write(address, table)
    if initrd:
        uc.mem_write(at, initrd)
    uc.mem_write(_COMMAND_LINE, text)
    uc.mem_write(_PARAMETERS, _parameters(kernel, top, (at, len(initrd)) if initrd else (0, 0)))
    uc.reg_write(reg.UC_X86_REG_RSI, _PARAMETERS)


def _parameters(kernel: Kernel, top: int, initrd: tuple[int, int]) -> bytes:
    """boot_params, the zero page."""
    page = bytearray(_PAGE)
    page[_HEADER:_HEADER + len(kernel.header)] = kernel.header
    page[_LOADER] = _UNKNOWN_LOADER
    struct.pack_into("<I", page, _CODE32, kernel.image.entry & ~(_PAGE - 1))
    struct.pack_into("<II", page, _RAMDISK, *initrd)
    struct.pack_into("<I", page, _COMMAND, _COMMAND_LINE)
    struct.pack_into("<Q", page, _RSDP, acpi.RSDP)
    areas = ((0, _BASE_MEMORY, _RAM), (_BIOS, _MIB - _BIOS, _RESERVED),
             (_MIB, top - _MIB, _RAM), (top, _MIB, _RESERVED))
    page[_E820_COUNT] = len(areas)
    for n, area in enumerate(areas):
        struct.pack_into("<QQI", page, _E820 + 20 * n, *area)
    return bytes(page)
