"""Which files of the host a command in the guest needs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pylbr.errors import CommandError
from pylbr.linux.libraries import libraries

__all__ = ["inputs"]


def inputs(words: Sequence[str], further: Sequence[Path] = ()) -> dict[str, Path]:
    """Path in the guest's directory to file: those that a command names, and what they need.

    Parameters
    ----------
    words : sequence of str
        A command; one word is a line of shell.
    further : sequence of Path
        Files that it does not name.

    Raises
    ------
    CommandError
        One of `further` is no file, or lies outside the directory.
    """
    named = [Path(word) for line in words for word in _split(line)]
    files = {str(path): path for path in named if _inside(path) and path.is_file()}
    for path in further:
        if not path.is_file():
            raise CommandError(f"{path}: no such file")
        files[str(path) if _inside(path) else path.name] = path
    needed = libraries(files.values())
    return files | {f"../{place.lstrip('/')}": file for place, file in needed.items()}


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _inside(path: Path) -> bool:
    return not path.is_absolute() and ".." not in path.parts
