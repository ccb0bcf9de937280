"""The seal of a Parquet file: checksums that are compared before the Parquet library reads.

Some damaged footers and page headers end the library's process.  A seal lies directly before
the footer, where Parquet readers skip it::

    CRC-32 of each column chunk, u32, row group by row group
    u32  number of these
    u32  CRC-32 of the footer
    u32  CRC-32 of the seal so far
    8    ``PYLBRSL1``

`KEY` among the footer's metadata means that there must be one.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pylbr.extras import Extra

if TYPE_CHECKING:
    import pyarrow.parquet as pq
else:
    pq = Extra("pyarrow.parquet")

__all__ = ["KEY", "Seal", "SealError", "add_seal", "chunk_ranges", "read_seal"]

KEY: Final = b"pylbr.sealed"
_MAGIC: Final = b"PYLBRSL1"
_END: Final = struct.Struct("<III8s")
_TRAILER: Final = struct.Struct("<I4s")
#: Larger footers are refused: they have about 100 bytes per column chunk.
MAX_FOOTER: Final = 64 << 20
_STEP: Final = 1 << 20


class SealError(Exception):
    """The file is not as it was written.

    Attributes
    ----------
    offset : int
        Byte offset of what is damaged.
    """

    def __init__(self, what: str, offset: int) -> None:
        self.offset = offset
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class Seal:
    """Checksums of the column chunks of a file whose footer was compared."""

    chunks: tuple[int, ...]

    def check(self, fd: int, number: int, start: int, size: int) -> None:
        """Compare column chunk `number`, `size` bytes at `start`.

        Raises
        ------
        SealError
        """
        if number >= len(self.chunks) or _crc(fd, start, size) != self.chunks[number]:
            raise SealError("its checksum differs", start)


def chunk_ranges(metadata: pq.FileMetaData) -> Iterator[tuple[int, int]]:
    """(offset, bytes) of each column chunk, row group by row group."""
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            yield chunk_range(metadata, group, column)


def chunk_range(metadata: pq.FileMetaData, group: int, column: int) -> tuple[int, int]:
    """(offset, bytes) of one column chunk."""
    chunk = metadata.row_group(group).column(column)
    start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    return start, chunk.total_compressed_size


def add_seal(fd: int) -> None:
    """Seal a complete Parquet file that is open for reading and writing."""
    at, footer = _footer(fd)
    with os.fdopen(os.dup(fd), "rb") as file:
        chunks = [_crc(fd, *place) for place in chunk_ranges(pq.read_metadata(file))]
    seal = struct.pack(f"<{len(chunks)}III", *chunks, len(chunks), zlib.crc32(footer))
    seal += struct.pack("<I8s", zlib.crc32(seal), _MAGIC)
    data = memoryview(seal + footer + _TRAILER.pack(len(footer), b"PAR1"))
    while data:
        count = os.pwrite(fd, data, at)
        data, at = data[count:], at + count


def read_seal(fd: int) -> Seal | None:
    """The seal of a file, its footer compared; None for a file without one.

    Raises
    ------
    SealError
        Footer or seal are damaged, or it is no Parquet file.
    """
    at, footer = _footer(fd)
    head = at - _END.size
    end = _read(fd, _END.size, max(head, 0))
    if head < 0 or not end.endswith(_MAGIC):
        if KEY in footer:
            raise SealError("its seal is missing", at)
        return None
    count, footer_crc, seal_crc, _ = _END.unpack(end)
    start = head - 4 * count
    data = _read(fd, 4 * count, start) if start >= 0 else b""
    if len(data) != 4 * count or zlib.crc32(end[:8], zlib.crc32(data)) != seal_crc:
        raise SealError("its seal is damaged", head)
    if zlib.crc32(footer) != footer_crc:
        raise SealError("the footer's checksum differs", at)
    return Seal(struct.unpack(f"<{count}I", data))


def _footer(fd: int) -> tuple[int, bytes]:
    """Offset and bytes of the footer."""
    trailer = max(os.fstat(fd).st_size - _TRAILER.size, 0)
    last = _read(fd, _TRAILER.size, trailer)
    if len(last) != _TRAILER.size or last[4:] != b"PAR1":
        raise SealError("does not end with PAR1, so it is cut off", trailer)
    size, _ = _TRAILER.unpack(last)
    if not 0 < size <= min(trailer - 4, MAX_FOOTER):
        raise SealError(f"a footer of {size} bytes", trailer)
    return trailer - size, _read(fd, size, trailer - size)


def _read(fd: int, size: int, at: int) -> bytes:
    """`size` bytes at `at`; fewer only at the end of the file."""
    data = os.pread(fd, size, at)
    while 0 < len(data) < size and (more := os.pread(fd, size - len(data), at + len(data))):
        data += more
    return data


def _crc(fd: int, at: int, size: int) -> int:
    """CRC-32 of `size` bytes at `at`; of as many as there are."""
    crc, end = 0, at + size
    while at < end:
        data = os.pread(fd, min(_STEP, end - at), at)
        if not data:
            break
        crc, at = zlib.crc32(data, crc), at + len(data)
    return crc
