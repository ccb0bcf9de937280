"""Code that runs without an operating system: a static program, one function of an ELF file,
or raw bytes.  Files are read with distrust."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pylbr.errors import CommandError
from pylbr.files.elf import (
    DAMAGE,
    DynamicSegment,
    ELFFile,
    defined_symbols,
    load_segments,
)
from pylbr.record.program import check_elf

__all__ = ["Code", "IMPORTS", "PAGE", "Segment", "load"]

PAGE: Final = 0x1000
#: Where raw code and files that can lie anywhere are put; as Linux does with the latter.
RAW_BASE: Final = 0x400000
FREE_BASE: Final = 0x555555554000
#: Addresses of functions that a file only imports: nothing is there, and a jump shows which.
IMPORTS: Final = 0x7E0000000000
_LARGEST: Final = 1 << 30
_TOP: Final = 0x7F0000000000
# Of the x86-64 psABI, table 4.9.
_ABS64, _GLOB_DAT, _JUMP_SLOT, _RELATIVE = 1, 6, 7, 8


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of memory; `flags` as PF_X 1, PF_W 2, PF_R 4."""

    start: int
    size: int
    data: bytearray
    flags: int
    offset: int


@dataclass(frozen=True, slots=True)
class Code:
    """Code and where it lies.

    Attributes
    ----------
    path : str
    segments : tuple of Segment
    entry : int
        Of the program or function.
    function : str
        Its name; empty for a program.
    imports : tuple of str
        Symbol i is at ``IMPORTS + 16 * i``.
    headers : tuple of (address, count)
        The program headers in memory, for AT_PHDR.
    """

    path: str
    segments: tuple[Segment, ...]
    entry: int
    function: str = ""
    imports: tuple[str, ...] = ()
    headers: tuple[int, int] = (0, 0)


def load(name: str) -> Code:
    """What ``FILE`` or ``FILE:FUNCTION`` means.

    Raises
    ------
    CommandError
        No such file or function, or one that needs an operating system.
    """
    path, _, function = name.rpartition(":")
    if Path(name).is_file() or not path:
        path, function = name, ""
    if not Path(path).is_file():
        raise CommandError(f"{path}: no such file", 127)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", 126) from error
    if not data or len(data) > _LARGEST:
        raise CommandError(f"{path}: {'empty' if not data else 'larger than 1 GiB'}", 126)
    if not data.startswith(b"\x7fELF"):
        if function:
            raise CommandError(f"{name}: {path} is no ELF file, so it names no function", 126)
        return Code(path, (Segment(RAW_BASE, len(data), bytearray(data), 7, 0),), RAW_BASE,
                    Path(path).name)
    check_elf(path, data[:64])
    try:
        with open(path, "rb") as stream:
            return _Reader(path, ELFFile(stream)).code(function)
    except DAMAGE as error:
        raise CommandError(
            f"{path}: a damaged ELF file ({type(error).__name__}: {error})", 126) from None


class _Reader:
    """One ELF file, put where it belongs."""

    def __init__(self, path: str, elf: ELFFile) -> None:
        self._path, self._elf = path, elf
        if elf.header["e_type"] not in ("ET_EXEC", "ET_DYN"):
            raise CommandError(f"{path}: an object file; link it first (gcc -shared)", 126)
        self._base = FREE_BASE if elf.header["e_type"] == "ET_DYN" else 0
        self._segments = tuple(self._loaded())
        if not self._segments:
            raise CommandError(f"{path}: no segment to load", 126)
        self._imports: dict[str, int] = {}

    def code(self, function: str) -> Code:
        """The program, or one function."""
        interpreter = next(self._elf.iter_segments("PT_INTERP"), None)
        if not function and (interpreter is not None or not self._elf.header["e_entry"]):
            raise CommandError(
                f"{self._path}: not a static program; name a function of it: "
                f"{self._path}:FUNCTION", 126)
        self._relocate()
        entry = self._function(function) if function else self._elf.header["e_entry"]
        return Code(self._path, self._segments, self._base + entry, function,
                    tuple(self._imports), self._headers())

    def _loaded(self) -> Iterator[Segment]:
        total = 0
        for segment, contents in load_segments(self._elf):
            start, size = self._base + segment["p_vaddr"], segment["p_memsz"]
            total += size
            if total > _LARGEST or start < PAGE or start + size > _TOP:
                raise CommandError(f"{self._path}: a segment at {start:#x} of {size:#x} bytes "
                                   "does not fit", 126)
            if size:
                yield Segment(start, size, bytearray(contents), segment["p_flags"],
                              segment["p_offset"])

    def _headers(self) -> tuple[int, int]:
        at = self._elf.header["e_phoff"]
        for segment in self._segments:
            if segment.offset <= at < segment.offset + len(segment.data):
                return segment.start + at - segment.offset, self._elf.header["e_phnum"]
        return 0, 0

    def _function(self, name: str) -> int:
        known = {symbol.name: symbol["st_value"] for symbol in defined_symbols(self._elf)
                 if symbol["st_info"]["type"] == "STT_FUNC"}
        if name not in known:
            near = get_close_matches(name, known)
            hint = f"; there is {', '.join(near)}" if near else ""
            raise CommandError(f"{self._path}: no function {name!r}{hint}", 127)
        return known[name]

    # Relocations: of what the file itself defines, as ld.so would resolve it

    def _relocate(self) -> None:
        for dynamic in self._elf.iter_segments("PT_DYNAMIC"):
            assert isinstance(dynamic, DynamicSegment)
            tables: Any = dynamic.get_relocation_tables()
            for table in tables.values():
                for entry in table.iter_relocations():
                    self._apply(dynamic, entry)

    def _apply(self, dynamic: DynamicSegment, entry: Any) -> None:
        address = self._base + entry["r_offset"]
        if not entry.is_RELA():  # RELR: the addend is in place
            self._store(address, self._base + self._fetch(address))
            return
        kind, addend = entry["r_info_type"], entry["r_addend"]
        if kind == _RELATIVE:
            self._store(address, self._base + addend)
        elif kind in (_ABS64, _GLOB_DAT, _JUMP_SLOT):
            symbol = dynamic.get_symbol(entry["r_info_sym"])
            if symbol["st_shndx"] != "SHN_UNDEF":
                self._store(address, self._base + symbol["st_value"] + (
                    addend if kind == _ABS64 else 0))
            elif symbol["st_info"]["bind"] != "STB_WEAK":
                number = self._imports.setdefault(symbol.name, len(self._imports))
                self._store(address, IMPORTS + 16 * number)

    def _place(self, address: int) -> tuple[bytearray, int]:
        for segment in self._segments:
            if segment.start <= address <= segment.start + len(segment.data) - 8:
                return segment.data, address - segment.start
        raise CommandError(f"{self._path}: a relocation outside of it, at {address:#x}", 126)

    def _fetch(self, address: int) -> int:
        data, at = self._place(address)
        return int.from_bytes(data[at:at + 8], "little")

    def _store(self, address: int, value: int) -> None:
        data, at = self._place(address)
        data[at:at + 8] = (value & (1 << 64) - 1).to_bytes(8, "little")
