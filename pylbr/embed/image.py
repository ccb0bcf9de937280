"""Kernel images: ELF as it is or with a multiboot header, read with distrust."""

from __future__ import annotations

import io
import struct
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from pylbr.errors import LbrError
from pylbr.files.elf import DAMAGE, ELFFile, defined_symbols, load_segments

__all__ = ["Image", "ImageError", "load", "read"]

_LARGEST = 1 << 30
_MULTIBOOT_MAGIC, _SEARCHED = 0x1BADB002, 8192
#: Features that a loader must refuse if it lacks them: bits 15:0 but page alignment, memory map
#: and video mode.
_REQUIRED = 0xFFF8
_MOST_SEGMENTS, _MOST_SYMBOLS = 1 << 8, 1 << 18


class ImageError(LbrError):
    """A file that is no kernel image that this machine can start."""

    def __init__(self, path: object, what: str) -> None:
        super().__init__(f"{path}: {what}")


@dataclass(frozen=True)
class Image:
    """A kernel image.

    Attributes
    ----------
    path : str
    entry : int
        Physical address.
    multiboot : bool
        Starts in 32-bit protected mode; else in long mode.
    segments : tuple of (physical address, size in memory, contents)
    symbols : tuple of (address, name), ascending
    long_mode : bool
        An ELF file of x86-64.
    offset : int
        From physical addresses to those of the symbols.
    """

    path: str
    entry: int
    multiboot: bool
    segments: tuple[tuple[int, int, bytes], ...]
    symbols: tuple[tuple[int, str], ...]
    long_mode: bool = True
    offset: int = 0

    def name(self, address: int) -> str:
        """``symbol+offset`` of an address in a segment, or of its higher half, or ""."""
        i = bisect_right(self.symbols, (address, "\U0010ffff")) - 1
        inside = address - self.offset
        if i < 0 or not any(s <= inside < s + size for s, size, _ in self.segments):
            return ""
        start, name = self.symbols[i]
        return name if start == address else f"{name}+{address - start:#x}"


def load(path: str | Path) -> Image:
    """Read an image.

    Raises
    ------
    ImageError
        No x86 ELF executable, damaged, or one that asks for what this machine lacks.
    OSError
    """
    if Path(path).stat().st_size > _LARGEST:
        raise ImageError(path, f"larger than {_LARGEST >> 20} MiB: no kernel image")
    return read(path, Path(path).read_bytes())


def read(path: str | Path, data: bytes) -> Image:
    """As `load`, of the contents of a file called `path`."""
    try:
        return _read(str(path), ELFFile(io.BytesIO(data)), data[:_SEARCHED])
    except DAMAGE as error:
        what = f"no ELF file, or a damaged one ({type(error).__name__}: {error})"
        raise ImageError(path, what) from None


def _read(path: str, elf: ELFFile, head: bytes) -> Image:
    header = elf.header
    if header["e_machine"] not in ("EM_X86_64", "EM_386") or not elf.little_endian:
        raise ImageError(path, f"an image for {header['e_machine']}, not for x86")
    if header["e_type"] != "ET_EXEC":
        raise ImageError(
            path, f"of type {header['e_type']}: link it as an executable at a fixed address "
            "(-static -no-pie)")
    if header["e_phnum"] > _MOST_SEGMENTS:
        raise ImageError(path, f"{header['e_phnum']} segments: damaged")
    multiboot = _multiboot(path, head)
    if not multiboot and header["e_machine"] == "EM_386":
        raise ImageError(path, "32-bit code without a multiboot header: it has no known "
                               "entry state")
    segments, entry = [], header["e_entry"]
    for segment, contents in load_segments(elf):
        if segment["p_memsz"]:
            segments.append((segment["p_paddr"], segment["p_memsz"], contents))
        if segment["p_vaddr"] <= header["e_entry"] < segment["p_vaddr"] + segment["p_memsz"]:
            entry = header["e_entry"] - segment["p_vaddr"] + segment["p_paddr"]
    if not any(start <= entry < start + size for start, size, _ in segments):
        raise ImageError(path, f"its entry point {entry:#x} lies in no segment")
    return Image(path, entry, multiboot, tuple(segments), _symbols(elf),
                 header["e_machine"] == "EM_X86_64")


def _multiboot(path: str, head: bytes) -> bool:
    """The image has a multiboot header (Multiboot specification 0.6.96, 3.1)."""
    for at in range(0, len(head) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", head, at)
        if magic == _MULTIBOOT_MAGIC and magic + flags + checksum & 0xFFFFFFFF == 0:
            if flags & _REQUIRED:
                raise ImageError(path, f"its multiboot header asks for {flags & _REQUIRED:#x}")
            return True
    return False


def _symbols(elf: ELFFile) -> tuple[tuple[int, str], ...]:
    found = (
        (symbol["st_value"], symbol.name) for symbol in defined_symbols(elf, _MOST_SYMBOLS)
        if symbol.name and symbol["st_shndx"] != "SHN_ABS"
        and symbol["st_info"]["type"] not in ("STT_FILE", "STT_SECTION"))
    return tuple(sorted(found))
