"""Lines of a text file, bounded."""

from __future__ import annotations

import os
from typing import Final

from pylbr.errors import TraceError
from pylbr.files.closing import Closing
from pylbr.files.source import ByteSource

__all__ = ["Lines"]

#: No line of any format is longer; 32 entries of brstacksym with long names stay below.
MAX_LINE: Final = 1 << 20
_READ: Final = 1 << 18


class Lines(Closing):
    """Lines of a file, decompressed on the way.

    Attributes
    ----------
    number : int
        Lines given out.
    offset : int
        Byte offset in the content after them.

    Raises
    ------
    TraceError
        A line is longer than `MAX_LINE`, or the file is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._source = ByteSource(path)
        self._rest: list[bytes] = []
        self._tail = b""
        self.number = self.offset = 0

    def block(self, count: int) -> list[bytes]:
        """Up to `count` lines without their ends, fewer only at the end; blanks are kept."""
        while len(self._rest) < count:
            data = self._source.read(_READ)
            if not data:
                if self._tail:
                    self._rest.append(self._tail)
                    self._tail = b""
                break
            self._rest += (self._tail + data).split(b"\n")
            self._tail = self._rest.pop()
            if len(self._tail) > MAX_LINE:
                raise TraceError(
                    self._source.path, f"line {self.number + len(self._rest) + 1} is longer than "
                    f"{MAX_LINE} bytes; this is no text", self._source.offset,
                )
        block, self._rest = self._rest[:count], self._rest[count:]
        self.number += len(block)
        self.offset += sum(map(len, block)) + len(block)
        return block

    def next_line(self) -> bytes | None:
        """One line, None at the end."""
        block = self.block(1)
        return block[0] if block else None

    def close(self) -> None:
        """Close the file."""
        self._source.close()
