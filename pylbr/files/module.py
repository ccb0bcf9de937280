"""Files mapped into a program's memory."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Module"]


@dataclass(frozen=True, slots=True)
class Module:
    """A file mapped into memory with execute permission.

    Attributes
    ----------
    path : str
    start, size : int
        Linear address and bytes of the mapping.
    file_offset : int
        Where in the file the mapping begins, in bytes.
    build_id : str
        Hexadecimal; empty if unknown.
    pid : int or None
        Process that has the mapping; None for all.
    """

    path: str
    start: int
    size: int
    file_offset: int = 0
    build_id: str = ""
    pid: int | None = None
