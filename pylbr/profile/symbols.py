"""Names of functions, out of ELF files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection, Section
from numpy.typing import NDArray

from pylbr.profile.address_space import AddressSpaces

__all__ = ["ElfImage", "Place", "Symbols"]

_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"),
     ("size", "<u8")]
)  # fmt: skip
#: Where distributions put what they strip from programs.
DEBUG_FILES = "/usr/lib/debug/.build-id"
_STT_FUNC, _STT_GNU_IFUNC = 2, 10
_NOTE_BUILD_ID = "NT_GNU_BUILD_ID"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address is: file, its link address there, function and offset into it.

    `function` is empty where no symbol covers the address, `path` where nothing is mapped.
    `address` is the file offset where the file cannot be read, and the address in memory where
    what is mapped is no file: ``[vdso]``, the kernel.
    """

    path: str = ""
    address: int = 0
    function: str = ""
    offset: int = 0

    def __str__(self) -> str:
        if not self.path:
            return f"{self.address:#x}"
        if not self.path.startswith("/"):
            return f"{self.address:#x} ({self.path})"
        name = os.path.basename(self.path)
        if not self.function:
            return f"{name}+{self.address:#x}"
        return f"{self.function}+{self.offset:#x} ({name})" if self.offset else (
            f"{self.function} ({name})"
        )


class ElfImage:
    """Segments, functions and build-id of an ELF file of 64 bits.

    The functions of a stripped file are those of its separate debug file, if there is one
    under `DEBUG_FILES`.

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
            (s["p_offset"], s["p_filesz"], s["p_vaddr"]) for s in elf.iter_segments("PT_LOAD")
        ]
        self._plt = [
            range(s["sh_addr"], s["sh_addr"] + s["sh_size"])
            for s in elf.iter_sections() if s.name.startswith(".plt")
        ]  # fmt: skip
        self.build_id = _build_id(elf)
        self._symbols, self._names = _function_table(elf)
        debug = self._debug_file()
        if debug and next(elf.iter_sections("SHT_SYMTAB"), None) is None:
            with open(debug, "rb") as other:
                self._symbols, self._names = _function_table(ELFFile(other))

    def _debug_file(self) -> str:
        """Path of the separate debug file, by build-id; empty if there is none."""
        name = self.build_id.hex()
        path = f"{DEBUG_FILES}/{name[:2]}/{name[2:]}.debug"
        return path if len(name) > 2 and os.path.isfile(path) else ""

    def link_address(self, offset: int) -> int | None:
        """Address at which the linker placed byte `offset` of the file."""
        for start, size, address in self.segments:
            if start <= offset < start + size:
                return int(address + offset - start)
        return None

    def file_offset(self, address: int) -> int:
        """Where in the file the byte at a link address is.

        Raises
        ------
        ValueError
            No segment has it.
        """
        for start, size, first in self.segments:
            if first <= address < first + size:
                return int(start + address - first)
        raise ValueError(f"{self.path}: nothing of the file is at {address:#x}")

    def in_plt(self, address: int) -> bool:
        """Whether a link address is that of a procedure linkage table."""
        return any(address in section for section in self._plt)

    @cached_property
    def _starts(self) -> NDArray[np.uint64]:
        return np.ascontiguousarray(self._symbols["value"])

    def function_at(self, address: int) -> tuple[str, int] | None:
        """Name and offset of the function that covers a link address."""
        at = int(np.searchsorted(self._starts, np.uint64(address), side="right")) - 1
        if at < 0:
            return None
        symbol = self._symbols[at]
        offset = address - int(symbol["value"])
        if symbol["size"] and offset >= symbol["size"]:
            return None
        return self._name(symbol), offset

    def _name(self, symbol: np.void) -> str:
        start = int(symbol["name"])
        return self._names[start : self._names.find(b"\0", start)].decode("utf-8", "replace")

    def functions(self) -> dict[str, tuple[int, int]]:
        """Name -> (link address, size); of several with one name, the last."""
        return {self._name(s): (int(s["value"]), int(s["size"])) for s in self._symbols}


def _build_id(elf: ELFFile) -> bytes:
    for section in elf.iter_sections("SHT_NOTE"):
        for note in section.iter_notes() if isinstance(section, NoteSection) else ():
            if note["n_type"] == _NOTE_BUILD_ID:
                return bytes.fromhex(note["n_desc"])
    return b""


def _content(elf: ELFFile, section: Section) -> bytes:
    """Bytes of a section, which must lie in the file as they are."""
    if section.compressed or section["sh_offset"] + section["sh_size"] > elf.stream_len:
        raise ValueError(f"section {section.name} is compressed or reaches behind the end")
    return bytes(section.data())


def _function_table(elf: ELFFile) -> tuple[NDArray[np.void], bytes]:
    """Function symbols by address, one for each, and the string table of their names."""
    for kind in ("SHT_SYMTAB", "SHT_DYNSYM"):
        for section in elf.iter_sections(kind):
            data = _content(elf, section)
            table = np.frombuffer(data[: len(data) // _SYMBOL.itemsize * _SYMBOL.itemsize], _SYMBOL)
            kinds = table["info"] & 15
            table = table[
                ((kinds == _STT_FUNC) | (kinds == _STT_GNU_IFUNC)) & (table["section"] != 0)
            ]
            # Of aliases the last one stays: sized before unsized, global before local.
            table = table[np.lexsort((table["info"] >> 4, table["size"] > 0, table["value"]))]
            if len(table):
                last = np.append(table["value"][1:] != table["value"][:-1], True)
                return table[last], _content(elf, elf.get_section(section["sh_link"]))
    return np.empty(0, _SYMBOL), b""


class Symbols:
    """Places of addresses, through the mappings of their processes.

    A file that is missing, no ELF file, or another build than the one that was mapped gives
    no names; `problems` says so, one line a file.
    """

    def __init__(self, spaces: AddressSpaces) -> None:
        self._spaces = spaces
        self._images: dict[tuple[str, bytes], ElfImage | None] = {}
        self._known: dict[tuple[int, int], Place] = {}
        self.problems: list[str] = []

    def image(self, path: str, build_id: bytes = b"") -> ElfImage | None:
        """The file at `path`; None, and a line in `problems`, if it will not do."""
        key = path, build_id
        if key not in self._images:
            self._images[key] = self._open(path, build_id)
        return self._images[key]

    def _open(self, path: str, build_id: bytes) -> ElfImage | None:
        if not path.startswith("/"):
            return None  # [vdso], [kernel.kallsyms], //anon: no file to look into
        try:
            image = ElfImage(path)
        except OSError as error:
            self.problems.append(f"{path}: {error.strerror}: no function names from it")
            return None
        except ValueError as error:
            self.problems.append(str(error))
            return None
        size = min(len(build_id), len(image.build_id))
        if size and image.build_id[:size] != build_id[:size]:
            self.problems.append(f"{path}: not the build that was recorded: no names from it")
            return None
        return image

    def place(self, pid: int, address: int) -> Place:
        """Where `address` of process `pid` is."""
        key = pid, address
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._find(pid, address)
        return found

    def _find(self, pid: int, address: int) -> Place:
        mapped = self._spaces.find(pid, address)
        if mapped is None:
            return Place(address=address)
        offset = mapped.offset + address - mapped.start
        image = self.image(mapped.path, mapped.build_id)
        link = image.link_address(offset) if image else None
        if image is None or link is None:
            return Place(mapped.path, offset if mapped.path.startswith("/") else address)
        function = image.function_at(link)
        if function is None:
            return Place(mapped.path, link)
        return Place(mapped.path, link, *function)
