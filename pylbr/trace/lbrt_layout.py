"""Bytes of a .lbrt file: parts under checksums, numbers, streams.  See docs/trace-format.md."""

from __future__ import annotations

import struct
import threading
import zlib
from typing import Final, NamedTuple

import numpy as np
import zstandard

from lbrcore import BRANCH_DTYPE

__all__ = [
    "COPY", "FIRST_ODDS", "GRAPH", "HEAD", "INDEX", "KINDS", "MAGIC", "MAX_EDGES", "MAX_ROWS",
    "META", "PARITY", "PIECE", "PIECE_ROWS", "PLAIN_PIECE", "ROWS", "SMALL", "SMALL_ROWS",
    "TRAILER", "VALUES", "LayoutError", "PartHead", "check_part", "pack_part", "pack_stream",
    "pack_trailer", "parse_head", "parse_trailer", "unpack_stream",
]

MAGIC: Final = b"\x89LBRT\r\n\x1a"
END: Final = b"LBRT-END"
#: Kinds of parts: head, graph, what mends the graph, piece, rows without a graph, piece in the
#: small coding, index; and of files of 2026: graph once more, piece.
META: Final = b"META"
GRAPH: Final = b"GRPH"
COPY: Final = b"COPY"
PARITY: Final = b"PRTY"
PLAIN_PIECE: Final = b"PIEC"
PIECE: Final = b"PIE2"
ROWS: Final = b"ROWS"
SMALL: Final = b"SMAL"
INDEX: Final = b"INDX"
#: As the index numbers them.
KINDS: Final = (META, GRAPH, COPY, PLAIN_PIECE, ROWS, SMALL, PIECE, PARITY)

#: Kind, bytes of the payload, CRC-32 of these two and the payload.
HEAD: Final = struct.Struct("<4sII")
#: Offset of the index, CRC-32 of that offset, the end mark.
TRAILER: Final = struct.Struct("<QI8s")
#: Rows between two places at which reading can begin.
PIECE_ROWS: Final = 1 << 15
SMALL_ROWS: Final = 1 << 20
#: The odds of each context of guesses at first, their upper eight bits: averages over programs.
FIRST_ODDS: Final = bytes.fromhex(
    "79406a404e402d401e400e404a404d4b59316d1b760ba5043b403d3739273a183a0a64042b402c2d2226221d210a4b04"
    "1f402023171f1716120a3c041540161c0d210c21080a21040e401116081a0715060a1f040b400c12051d041607092204"
    "948e5b47341416190e0c0b090d08052a684944341f0608050302010100001446242c1f130d02030201010100000c2f46"
    "0911110603010102010100000c1c39230407080602000101010000d29d686b707d75938b929d87797e99")
#: What a reader accepts.
MAX_ROWS: Final = 1 << 16
MAX_EDGES: Final = 1 << 22
#: Columns whose values an edge foretells, in the order of the file.
VALUES: Final = ("instructions", "cycles", "flags", "events")


class LayoutError(Exception):
    """Bytes that contradict the format."""


class PartHead(NamedTuple):
    """Head of a part: kind, bytes of the payload, checksum."""

    kind: bytes
    size: int
    check: int


def pack_part(kind: bytes, payload: bytes) -> bytes:
    """A part, head and payload."""
    head = struct.pack("<4sI", kind, len(payload))
    return head + struct.pack("<I", zlib.crc32(payload, zlib.crc32(head))) + payload


def parse_head(data: bytes) -> PartHead:
    """Head of a part; the checksum is not compared."""
    if len(data) < HEAD.size:
        raise LayoutError("a part that is cut off")
    return PartHead(*HEAD.unpack_from(data))


def check_part(head: PartHead, payload: bytes) -> None:
    """Compare the checksum of a part."""
    start = zlib.crc32(struct.pack("<4sI", head.kind, head.size))
    if zlib.crc32(payload, start) != head.check:
        raise LayoutError("its checksum differs")


def pack_trailer(offset: int) -> bytes:
    """The last bytes of a file, which name where its index is."""
    return TRAILER.pack(offset, zlib.crc32(struct.pack("<Q", offset)), END)


def parse_trailer(data: bytes) -> int | None:
    """Offset of the index; None if this is no whole trailer."""
    if len(data) < TRAILER.size:
        return None
    offset, check, end = TRAILER.unpack(data)
    return offset if end == END and check == zlib.crc32(struct.pack("<Q", offset)) else None


def unpack_stream(data: bytes, bound: int) -> bytes:
    """Content of a zstd frame that states its size, at most `bound` bytes."""
    try:
        if zstandard.frame_content_size(data) > bound:
            raise LayoutError("a stream longer than its piece allows")
        return _engines.decompress(data, max_output_size=max(bound, 1))
    except zstandard.ZstdError as error:
        raise LayoutError(f"a stream that is damaged: {error}") from error


def pack_stream(content: bytes, level: int) -> bytes:
    """A zstd frame that states its size."""
    return _engines.compress(content, level)


class _Engines(threading.local):
    """Contexts of zstd, which cost more than the streams of a piece, of this thread."""

    def __init__(self) -> None:
        self._compressors: dict[int, zstandard.ZstdCompressor] = {}
        self.decompress = zstandard.ZstdDecompressor().decompress

    def compress(self, content: bytes, level: int) -> bytes:
        """A frame of this level."""
        if level not in self._compressors:
            self._compressors[level] = zstandard.ZstdCompressor(level, write_content_size=True)
        try:
            return self._compressors[level].compress(content)
        except zstandard.ZstdError as error:  # all that can be wrong with it
            raise MemoryError(str(error)) from error


_engines = _Engines()


def value_words(rows: np.ndarray, column: str) -> np.ndarray:
    """A column of `VALUES` as one uint32 per row."""
    values = rows[column]
    if column == "events":
        return np.ascontiguousarray(values).view("<u4").reshape(-1)
    return values.astype(np.uint32)


def add_words(rows: np.ndarray, column: str, words: np.ndarray) -> None:
    """Add uint32 differences to a column of `VALUES`, modulo the column's size."""
    if column == "events":
        total = np.ascontiguousarray(rows[column]).view("<u4").reshape(-1) + words
        rows[column] = total.astype("<u4").view(np.uint8).reshape(-1, 4)
    else:
        rows[column] = (rows[column] + words).astype(BRANCH_DTYPE[column])
