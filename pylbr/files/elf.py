"""ELF files of x86-64: segments, build-id, functions and stubs of the procedure linkage table.

The one module that uses pyelftools; what else of it is needed is named here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from elftools.common.exceptions import DWARFError, ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import NoteSection, Section, Symbol, SymbolTableSection
from elftools.elf.segments import InterpSegment, NoteSegment
from numpy.typing import NDArray

from pylbr.files.elf_frames import frame_starts
from pylbr.files.elf_plt import stub_names

__all__ = [
    "DAMAGE", "DynamicSegment", "ELFFile", "ElfImage", "Extent", "Segment", "defined_symbols",
    "load_segments", "read_build_id", "read_needed", "relative_relocations", "sections_and_dwarf",
]

_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"),
     ("size", "<u8")]
)  # fmt: skip
_RELOCATION = np.dtype([("offset", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])
#: Where distributions put what they strip from programs.
DEBUG_FILES = "/usr/lib/debug/.build-id"
_STT_FUNC, _STT_GNU_IFUNC = 2, 10
_GLOB_DAT, _JUMP_SLOT, _RELATIVE, _IRELATIVE = 6, 7, 8, 37
_NOTE_BUILD_ID = "NT_GNU_BUILD_ID"
_PF_X = 1
#: What pyelftools raises at offsets, sizes and names that make no sense.
DAMAGE: Final = (ELFError, DWARFError, ValueError, LookupError, AttributeError, TypeError,
                 struct.error, ArithmeticError, AssertionError, MemoryError, OSError)


class Segment(NamedTuple):
    """A PT_LOAD segment: where in the file, how much of it, its link address, and if it is code."""

    offset: int
    size: int
    address: int
    executable: bool


class Extent(NamedTuple):
    """Link addresses of a function, or of code without a name, and the name as the file has it."""

    start: int
    end: int
    name: str


class ElfImage:
    """Segments, functions and build-id of an ELF file of 64 bits.

    The functions of a stripped file are those of its separate debug file, if there is one
    under `DEBUG_FILES`.

    Attributes
    ----------
    path : str
    segments : list of Segment
    build_id : bytes
        Empty if there is none.
    machine : str
        ``EM_X86_64`` and its like.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is not such a file, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        with open(path, "rb") as file:
            try:
                self._read(ELFFile(file))
            except Exception as error:  # pyelftools fails in many ways on a damaged file
                raise ValueError(f"{self.path}: not a sound ELF file: {error}") from error

    def _read(self, elf: ELFFile) -> None:
        if elf.elfclass != 64 or not elf.little_endian:
            raise ValueError("not one of 64 bits, little endian")
        self.segments = [
            Segment(s["p_offset"], s["p_filesz"], s["p_vaddr"], bool(s["p_flags"] & _PF_X))
            for s in elf.iter_segments("PT_LOAD")
        ]
        self.build_id = _build_id(elf)
        self.machine = str(elf["e_machine"])
        self._functions = _Functions.of(elf)
        debug = self.debug_file()
        if debug and next(elf.iter_sections("SHT_SYMTAB"), None) is None:
            with open(debug, "rb") as other:
                self._functions = _Functions.of(ELFFile(other))
        self._plt = [
            range(s["sh_addr"], s["sh_addr"] + s["sh_size"])
            for s in elf.iter_sections() if s.name.startswith(".plt")
        ]  # fmt: skip
        slots, lazy = _linkage(elf, self._functions)
        self._stubs: list[tuple[int, str]] = []
        for section in elf.iter_sections("SHT_PROGBITS"):
            if section.name.startswith(".plt"):
                code = _content(elf, section)
                self._stubs += stub_names(code, section["sh_addr"], section["sh_entsize"],
                                          slots, lazy)  # fmt: skip
        self._stubs.sort()

    def debug_file(self) -> str:
        """Path of the separate debug file, by build-id; empty if there is none."""
        name = self.build_id.hex()
        path = f"{DEBUG_FILES}/{name[:2]}/{name[2:]}.debug"
        return path if len(name) > 2 and os.path.isfile(path) else ""

    def link_address(self, offset: int) -> int | None:
        """Address at which the linker placed byte `offset` of the file; code before data."""
        for segment in sorted(self.segments, key=lambda s: not s.executable):
            if segment.offset <= offset < segment.offset + segment.size:
                return int(segment.address + offset - segment.offset)
        return None

    def file_offset(self, address: int) -> int:
        """Where in the file the byte at a link address is.

        Raises
        ------
        ValueError
            No segment has it.
        """
        for start, size, first, _ in self.segments:
            if first <= address < first + size:
                return int(start + address - first)
        raise ValueError(f"{self.path}: nothing of the file is at {address:#x}")

    def base_offset(self, address: int) -> int:
        """Distance of a link address from where byte 0 of the file is linked, by its first
        segment: the offset in the file where the linker keeps both in step, as GNU ld does."""
        first = self.segments[0]
        return int(address - first.address + first.offset)

    def in_plt(self, address: int) -> bool:
        """Whether a link address is that of a procedure linkage table."""
        return any(address in section for section in self._plt)

    def function_at(self, address: int) -> tuple[str, int] | None:
        """Name and offset of the function or ``name@plt`` stub that covers a link address."""
        if self.in_plt(address):
            at = np.searchsorted(self._stub_starts, np.uint64(address), side="right") - 1
            if at < 0 or address - self._stubs[at][0] >= _STUB or not self._stubs[at][1]:
                return None
            return self._stubs[at][1], address - self._stubs[at][0]
        return self._functions.at(address)

    def names_at(self, address: int) -> set[str]:
        """Names of the functions that begin at a link address, aliases too."""
        return self._functions.names(address)

    def extent_at(self, address: int) -> Extent | None:
        """The function or stub that covers a link address; without symbols, what the file's table
        of call frames gives as one; None where there is neither."""
        if self.in_plt(address):
            found = self.function_at(address)
            start = address - found[1] if found else address
            return Extent(start, start + _STUB, found[0]) if found else None
        extent = self._functions.extent(address)
        if extent is not None:
            return extent
        starts = self._frame_starts
        at = int(np.searchsorted(starts, np.uint64(address), side="right"))
        return Extent(int(starts[at - 1]), int(starts[at]), "") if 0 < at < len(starts) else None

    def code(self, start: int, end: int) -> bytes:
        """The bytes of the file from one link address to another; fewer where they end before.

        Raises
        ------
        OSError
            The file cannot be read any more.
        ValueError
            Nothing of the file is at `start`.
        """
        offset = self.file_offset(start)
        past = max(first + size for _, size, first, _ in self.segments if first <= start)
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(max(min(end, past) - start, 0))

    @cached_property
    def _frame_starts(self) -> NDArray[np.uint64]:
        """Where code with call frames begins, in order, and where its segment ends."""
        ends = [s.address + s.size for s in self.segments if s.executable]
        with open(self.path, "rb") as file:
            try:
                elf = ELFFile(file)
                section = elf.get_section_by_name(".eh_frame_hdr")
                starts = [] if section is None else frame_starts(
                    _content(elf, section), section["sh_addr"])
            except DAMAGE:
                starts = []
        return np.array(sorted({*starts, *ends}), np.uint64)

    @cached_property
    def _stub_starts(self) -> NDArray[np.uint64]:
        return np.array([start for start, _ in self._stubs], np.uint64)

    def functions(self) -> dict[str, tuple[int, int]]:
        """Name -> (link address, size); of several with one name, the last."""
        return self._functions.by_name()


#: No stub is longer.
_STUB = 16


class _Functions:
    """Function symbols by address, one for each, and how far each reaches."""

    def __init__(
        self, symbols: NDArray[np.void], names: bytes, ends: NDArray[np.uint64]
    ) -> None:
        last = np.append(symbols["value"][1:] != symbols["value"][:-1], len(symbols) > 0)
        self._all, self._symbols = symbols, symbols[last[:len(symbols)]]
        self._names, self._ends = names, ends[last[:len(symbols)]]
        self._starts = np.ascontiguousarray(self._symbols["value"])

    @classmethod
    def of(cls, elf: ELFFile) -> _Functions:
        """Those of .symtab, else of .dynsym."""
        for kind in ("SHT_SYMTAB", "SHT_DYNSYM"):
            for section in elf.iter_sections(kind):
                table = _symbols(elf, section)
                kinds = table["info"] & 15
                table = table[
                    ((kinds == _STT_FUNC) | (kinds == _STT_GNU_IFUNC)) & (table["section"] != 0)
                ]
                # Of aliases the last one stays: sized before unsized, global before local.
                table = table[np.lexsort((table["info"] >> 4, table["size"] > 0, table["value"]))]
                if len(table):
                    names = _content(elf, elf.get_section(section["sh_link"]))
                    return cls(table, names, _ends(elf, table))
        return cls(np.empty(0, _SYMBOL), b"", np.empty(0, np.uint64))

    def at(self, address: int) -> tuple[str, int] | None:
        """Name and offset of the function that covers a link address."""
        at = int(np.searchsorted(self._starts, np.uint64(address), side="right")) - 1
        if at < 0 or address >= self._ends[at]:
            return None
        symbol = self._symbols[at]
        return self._name(symbol), address - int(symbol["value"])

    def names(self, address: int) -> set[str]:
        """Of all that begin at a link address."""
        at = np.uint64(address)
        first, past = (int(np.searchsorted(self._all["value"], at, side=side))
                       for side in ("left", "right"))
        return {self._name(symbol) for symbol in self._all[first:past]}

    def extent(self, address: int) -> Extent | None:
        """The function that covers a link address."""
        found = self.at(address)
        if found is None:
            return None
        start = address - found[1]
        at = int(np.searchsorted(self._starts, np.uint64(start)))
        return Extent(start, int(self._ends[at]), found[0])

    def by_name(self) -> dict[str, tuple[int, int]]:
        return {self._name(s): (int(s["value"]), int(s["size"])) for s in self._symbols}

    def _name(self, symbol: np.void) -> str:
        return _text(self._names, int(symbol["name"]))


def _ends(elf: ELFFile, table: NDArray[np.void]) -> NDArray[np.uint64]:
    """Where symbols end; those without a size at the end of their section, at the latest."""
    sections = [s["sh_addr"] + s["sh_size"] for s in elf.iter_sections()]
    bounds = np.zeros(1 << 16, np.uint64)  # of no section, as SHN_ABS: the symbol has no extent
    bounds[: len(sections)] = np.array(sections, np.uint64)[: len(bounds)]
    bounds = bounds[table["section"]]
    return np.where(table["size"] > 0, table["value"] + table["size"], bounds)


def load_segments(elf: ELFFile) -> Iterator[tuple[Any, bytes]]:
    """PT_LOAD segments, as pyelftools has them, with their contents.

    Raises
    ------
    ValueError
        A segment's bytes are not all in the file, or do not fit into its memory.
    """
    for segment in elf.iter_segments("PT_LOAD"):
        if segment["p_filesz"] > segment["p_memsz"]:
            raise ValueError("a segment is larger in the file than in memory")
        if segment["p_offset"] + segment["p_filesz"] > elf.stream_len:
            raise ValueError("truncated: the file ends inside a segment")
        yield segment, segment.data()


def defined_symbols(elf: ELFFile, largest: int = 1 << 32) -> Iterator[Symbol]:
    """Symbols that the file itself defines, aliases too, as pyelftools has them; none of a table
    of more than `largest`."""
    for section in elf.iter_sections():
        if isinstance(section, SymbolTableSection) and section.num_symbols() <= largest:
            for symbol in section.iter_symbols():
                if symbol["st_shndx"] != "SHN_UNDEF":
                    yield symbol


def relative_relocations(elf: ELFFile) -> dict[int, int]:
    """Link address -> what R_X86_64_RELATIVE puts there, less the address of the load."""
    return {
        entry["r_offset"]: entry["r_addend"]
        for section in elf.iter_sections()
        if isinstance(section, RelocationSection) and section.is_RELA()
        for entry in section.iter_relocations() if entry["r_info_type"] == _RELATIVE
    }  # fmt: skip


def read_build_id(file: BinaryIO) -> bytes:
    """GNU build-id of an ELF file; empty if it has none.

    Raises
    ------
    ValueError
        No ELF file, or a damaged one.
    """
    try:
        return _build_id(ELFFile(file))
    except Exception as error:  # pyelftools fails in many ways on a damaged file
        raise ValueError(f"not a sound ELF file: {error}") from error


def read_needed(file: BinaryIO) -> tuple[str, ...]:
    """Names of the shared libraries that a file needs, and the path of its interpreter; none of a
    file that is not ELF.

    Raises
    ------
    ValueError
        A damaged file.
    """
    magic = file.read(4)
    file.seek(0)
    if magic != b"\x7fELF":
        return ()
    try:
        elf = ELFFile(file)
        needed: list[str] = [
            tag.needed  # type: ignore[attr-defined]  # elftools sets it for this tag
            for segment in elf.iter_segments("PT_DYNAMIC") if isinstance(segment, DynamicSegment)
            for tag in segment.iter_tags("DT_NEEDED")]
        return (*needed, *(segment.get_interp_name() for segment in elf.iter_segments("PT_INTERP")
                           if isinstance(segment, InterpSegment)))
    except DAMAGE as error:
        raise ValueError(f"not a sound ELF file: {error}") from error


def sections_and_dwarf(path: str | os.PathLike[str]) -> tuple[set[str], int | None]:
    """Names of a file's sections, and the newest DWARF version in it; None without a line table.

    Raises
    ------
    OSError
        The file cannot be read.
    DAMAGE
        It is no whole ELF file.
    """
    with open(path, "rb") as file:
        elf = ELFFile(file)
        names = {section.name for section in elf.iter_sections()}
        info = elf.get_section_by_name(".debug_info")
        if info is None or ".debug_line" not in names:
            return names, None
        data, newest, at = _content(elf, info), 0, 0
        while at + 6 <= len(data):
            newest = max(newest, int.from_bytes(data[at + 4:at + 6], "little"))
            at += 4 + int.from_bytes(data[at:at + 4], "little")
        return names, newest or None


def _build_id(elf: ELFFile) -> bytes:
    """Out of the segments, which are few, or the sections of a file that is not linked yet."""
    sections = (s for s in elf.iter_sections("SHT_NOTE") if isinstance(s, NoteSection))
    segments = (s for s in elf.iter_segments("PT_NOTE") if isinstance(s, NoteSegment))
    sources: Iterable[NoteSegment | NoteSection] = chain(segments, sections)
    for source in sources:
        for note in source.iter_notes():
            if note["n_type"] == _NOTE_BUILD_ID:
                return bytes.fromhex(note["n_desc"])
    return b""


def _content(elf: ELFFile, section: Section) -> bytes:
    """Bytes of a section, which must lie in the file as they are."""
    if section.compressed or section["sh_offset"] + section["sh_size"] > elf.stream_len:
        raise ValueError(f"section {section.name} is compressed or reaches past the end")
    return bytes(section.data())


def _rows(data: bytes, dtype: np.dtype) -> NDArray[np.void]:
    return np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)


def _symbols(elf: ELFFile, section: Section) -> NDArray[np.void]:
    return _rows(_content(elf, section), _SYMBOL)


def _text(names: bytes, start: int) -> str:
    return names[start : names.find(b"\0", start)].decode("utf-8", "replace")


def _linkage(elf: ELFFile, functions: _Functions) -> tuple[dict[int, str], list[str]]:
    """Names by the slots of the global offset table, and in the order of .rela.plt."""
    slots: dict[int, str] = {}
    lazy: list[str] = []
    for section in elf.iter_sections("SHT_RELA"):
        rows = _rows(_content(elf, section), _RELOCATION)
        rows = rows[np.isin(rows["type"], (_GLOB_DAT, _JUMP_SLOT, _IRELATIVE))]
        if not len(rows):
            continue
        symbols, names = np.empty(0, _SYMBOL), b""
        table = elf.get_section(section["sh_link"])
        if table["sh_type"] in ("SHT_DYNSYM", "SHT_SYMTAB"):  # a static program has none
            symbols, names = _symbols(elf, table), _content(elf, elf.get_section(table["sh_link"]))
        for slot, kind, symbol, addend in rows.tolist():
            if kind == _IRELATIVE:
                found = functions.at(addend % (1 << 64))
                name = found[0] if found and found[1] == 0 else ""
            else:
                name = _text(names, int(symbols[symbol]["name"])) if symbol < len(symbols) else ""
            slots[slot] = name
            if section.name == ".rela.plt":
                lazy.append(name)
    return slots, lazy
