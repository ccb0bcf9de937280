"""Modules of a trace out of ELF files."""

from __future__ import annotations

import os

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection

from pylbr.errors import TraceError
from pylbr.trace.metadata import Module

__all__ = ["elf_modules", "parse_module"]

_PF_X = 1
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
        with open(path, "rb") as file:
            elf = ELFFile(file)
            note = elf.get_section_by_name(".note.gnu.build-id")
            notes = list(note.iter_notes()) if isinstance(note, NoteSection) else []
            build_id = str(notes[0]["n_desc"]) if notes else ""
            segments = [
                segment.header for segment in elf.iter_segments()
                if segment.header.p_type == "PT_LOAD" and segment.header.p_flags & _PF_X
            ]
    except OSError as error:
        raise TraceError(path, f"cannot be read: {error.strerror}") from error
    except (ELFError, ValueError, KeyError, UnicodeDecodeError) as error:
        raise TraceError(path, f"is no ELF file: {error}") from error
    if not segments:
        raise TraceError(path, "has no executable segment")
    modules = []
    for segment in segments:
        before = segment.p_vaddr % _PAGE  # mapped by whole pages
        modules.append(Module(
            os.fspath(path), base + segment.p_vaddr - before, segment.p_filesz + before,
            segment.p_offset - before, build_id, pid,
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
