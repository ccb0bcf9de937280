"""Modules of a trace out of ELF files."""

from __future__ import annotations

import os

from pylbr.errors import TraceError
from pylbr.files.elf import ElfImage
from pylbr.files.module import Module

__all__ = ["elf_modules", "parse_module"]

_PAGE = 0x1000


def elf_modules(
    path: str | os.PathLike[str], base: int = 0, pid: int | None = None
) -> tuple[Module, ...]:
    """The executable segments of an ELF file, as they lie in memory.

    Parameters
    ----------
    path : path-like
    base : int
        What the loader added to the file's addresses; 0 for a program that is not PIE.
    pid : int, optional

    Raises
    ------
    TraceError
        Not a readable ELF file, or without code.
    """
    try:
        image = ElfImage(path)
    except OSError as error:
        raise TraceError(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise TraceError(path, f"is no ELF file: {error}") from error
    segments = [segment for segment in image.segments if segment.executable]
    if not segments:
        raise TraceError(path, "has no executable segment")
    modules = []
    for segment in segments:
        before = segment.address % _PAGE  # mapped by whole pages
        modules.append(Module(
            os.path.abspath(path), base + segment.address - before, segment.size + before,
            segment.offset - before, image.build_id.hex(), pid,
        ))
    return tuple(modules)


def parse_module(text: str) -> tuple[Module, ...]:
    """``FILE`` or ``FILE@ADDRESS``, as the command line has it.

    Raises
    ------
    TraceError
        As `elf_modules`, or ADDRESS is no number.
    """
    path, at, address = text.rpartition("@")
    if not at or os.path.exists(text):
        return elf_modules(text)
    try:
        return elf_modules(path, int(address, 16))
    except ValueError:
        raise TraceError(path, f"{address!r} is no hexadecimal address") from None
