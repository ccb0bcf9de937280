"""Names of functions at addresses of processes."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pylbr.files.elf import ElfImage
from pylbr.profile.address_space import AddressSpaces
from pylbr.profile.demangle import demangled
from pylbr.profile.perf_map import PerfMap

__all__ = ["Place", "Symbols"]

#: Mappings of code that is in no file of its own.
_MADE = ("//", "/memfd:", "/dev/zero", "/SYSV")
#: Linux's limit of process numbers (PID_MAX_LIMIT).
PID_LIMIT = 1 << 22


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address is: file, its link address there, function and offset into it.

    `function` is empty where no symbol covers the address, `path` where nothing is mapped.
    `address` is the file offset where the file cannot be read, and the address in memory where
    what is mapped is no file: ``[vdso]``, the kernel, or code of a JIT, whose `path` is that of the
    map with its names.  `linked`: `address` is a link address of a file that could be read.
    """

    path: str = ""
    address: int = 0
    function: str = ""
    offset: int = 0
    linked: bool = False

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


class Symbols:
    """Places of addresses, through the mappings of their processes.

    A file that is missing, no ELF file, or another build than the one that was mapped gives
    no names; `problems` lists them, one line per file.
    """

    def __init__(self, spaces: AddressSpaces) -> None:
        self._spaces = spaces
        self._images: dict[tuple[str, bytes], ElfImage | None] = {}
        self._known: dict[tuple[int, int], Place] = {}
        self._maps: dict[int, PerfMap] = {}
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

    def image_at(self, pid: int, address: int) -> ElfImage | None:
        """The file that an address of a process is in, where that could be read."""
        mapped = self._spaces.find(pid, address)
        return self.image(mapped.path, mapped.build_id) if mapped else None

    def _find(self, pid: int, address: int) -> Place:
        mapped = self._spaces.find(pid, address)
        if mapped is None or not mapped.path.startswith("/") or mapped.path.startswith(_MADE):
            made = self._made(pid, address)
            if made is not None:
                return made
        if mapped is None:
            return Place(address=address)
        offset = mapped.offset + address - mapped.start
        image = self.image(mapped.path, mapped.build_id)
        link = image.link_address(offset) if image else None
        if image is None or link is None:
            return Place(mapped.path, offset if mapped.path.startswith("/") else address)
        function = image.function_at(link)
        if function is None:
            return Place(mapped.path, link, linked=True)
        name, offset = function
        return Place(mapped.path, link, demangled(name), offset, True)

    def _made(self, space: int, address: int) -> Place | None:
        """A place in code that a JIT has made."""
        # Programs that a process executes one after another have numbers of their own in files.
        pid = self._spaces.pid_of(space) % PID_LIMIT
        if pid not in self._maps:
            self._maps[pid] = PerfMap(pid)
            if self._maps[pid].problem:
                self.problems.append(self._maps[pid].problem)
        found = self._maps[pid].find(address)
        if found is None:
            return None
        return Place(self._maps[pid].path, address, found.name, address - found.start)
