"""Names of code that a program has made while it ran: ``/tmp/perf-PID.map``, as JITs write it."""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from typing import Final, NamedTuple

__all__ = ["Made", "PerfMap"]

_DIRECTORY: Final = "/tmp"
#: Where a file ends to be read: node writes a few megabytes, a large Java program some ten.
_BYTES: Final = 1 << 28
#: A function may lie within another's old place: so many are looked at.
_BACK: Final = 16
_ADDRESS_END: Final = 1 << 64


class Made(NamedTuple):
    """A piece of code: ``[start, end)`` and its name."""

    start: int
    end: int
    name: str


class PerfMap:
    """The map of one process: lines of start, size (both hexadecimal) and name.

    Of two at one address the later counts; lines that are no such thing are left out.

    Parameters
    ----------
    pid : int

    Attributes
    ----------
    path : str
    problem : str
        Why a file that is there is not read; else empty.
    """

    def __init__(self, pid: int) -> None:
        self.path = f"{_DIRECTORY}/perf-{pid}.map"
        self.problem = ""
        found: dict[int, Made] = {}
        for line in self._text().split("\n"):
            made = _made(line)
            if made is not None:
                found[made.start] = made
        self._pieces = sorted(found.values())
        self._starts = [made.start for made in self._pieces]

    def _text(self) -> str:
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self.problem = f"{self.path}: {error.strerror}: no names from it"
            return ""
        with open(file, "rb") as stream:
            status = os.fstat(file)
            # Every user may write to /tmp, and process numbers come again.
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
                self.problem = f"{self.path}: is another user's, or no file: no names from it"
                return ""
            return stream.read(_BYTES).decode(errors="replace")

    def find(self, address: int) -> Made | None:
        """The piece of code that holds an address."""
        at = bisect_right(self._starts, address)
        for made in reversed(self._pieces[max(at - _BACK, 0) : at]):
            if address < made.end:
                return made
        return None


def _made(line: str) -> Made | None:
    words = line.split(None, 2)
    try:
        start, size = int(words[0], 16), int(words[1], 16)
    except (IndexError, ValueError):
        return None
    if len(words) < 3 or not 0 < size <= _ADDRESS_END - start or start < 0:
        return None
    return Made(start, start + size, words[2].strip())
