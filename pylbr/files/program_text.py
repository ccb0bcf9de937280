"""Lines of a program's source, at the paths that its debug information names."""

from __future__ import annotations

import os
import stat
from typing import Final

__all__ = ["ProgramText"]

#: Debug information is untrusted, and what is read here is shown: nothing but source is.
_SUFFIXES: Final = frozenset([
    ".c", ".cc", ".cpp", ".cxx", ".c++", ".h", ".hh", ".hpp", ".hxx", ".h++", ".inc", ".inl",
    ".ipp", ".tcc", ".def", ".m", ".mm", ".s", ".asm", ".rs", ".go", ".d", ".zig", ".f", ".f77",
    ".f90", ".f95", ".f03", ".f08", ".for", ".ada", ".adb", ".ads", ".pas", ".pp", ".ml", ".mli",
    ".hs", ".nim", ".swift", ".cu", ".pyx", ".pxd", ".pxi", ".py", ".y", ".l", ".yy", ".ll", ".v",
    ".cr", ".odin", ".java", ".kt", ".scala",
])
_LARGEST: Final = 1 << 23
#: Headers of the C++ library have no suffix; they are in these folders.
_LIBRARY: Final = ("/usr/include/c++/", "/usr/lib/gcc/")


class ProgramText:
    """Source files, each read when first asked for; only regular files with a suffix of source
    code, of at most 8 MiB."""

    def __init__(self) -> None:
        self._files: dict[str, list[str]] = {}

    def lines(self, path: str) -> list[str]:
        """All lines of a file; empty if there is none that may be shown."""
        if path not in self._files:
            self._files[path] = _read(path)
        return self._files[path]

    def line(self, path: str, number: int) -> str | None:
        """Line `number`, from 1, without white space around it; None if there is none."""
        lines = self.lines(path)
        return lines[number - 1].strip() if 0 < number <= len(lines) else None


def _read(path: str) -> list[str]:
    if "\0" in path:
        return []
    real = os.path.realpath(path)
    if os.path.splitext(real)[1].lower() not in _SUFFIXES and not real.startswith(_LIBRARY):
        return []
    try:
        number = os.open(real, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            return []
        with open(number, "rb", closefd=False) as file:
            text = file.read(_LARGEST)
    except OSError:
        return []
    finally:
        os.close(number)
    return text.decode("utf-8", "replace").split("\n")
