"""What mends the graph of a .lbrt file: checksums of its chunks, and two of them in one.

A damaged graph would cost all rows.  The payloads of all graph parts, one after the other, are
divided into chunks; what chunks of even numbers give when they are combined by exclusive or is
kept, and so for odd ones, so that a damaged piece no longer than a chunk can be restored.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from pylbr.trace.lbrt_layout import LayoutError
from pylbr.trace.lbrt_streams import StreamReader, StreamWriter

__all__ = ["mend", "pack_parity", "unpack_copy"]

#: Chunks as written, and how many a reader takes.
_CHUNKS: Final = 16
_MOST_CHUNKS: Final = 1 << 12


def pack_parity(graphs: Sequence[bytes]) -> bytes:
    """Payload of a `PRTY` part."""
    data = b"".join(graphs)
    length = -(-len(data) // _CHUNKS)
    chunks = _chunks(data, length)
    write = StreamWriter()
    write.numbers(np.array([len(graph) for graph in graphs], np.uint64))
    write.number(length)
    write.stream(b"".join(zlib.crc32(chunk).to_bytes(4, "little") for chunk in chunks))
    for first in (0, 1):
        write.stream(_combined(chunks[first::2], length))
    return write.data


def mend(graphs: Sequence[bytes], payload: bytes) -> list[bytes]:
    """Payloads of the graph parts as they were.

    Parameters
    ----------
    graphs : sequence of bytes
        As they are.
    payload : bytes
        Of the `PRTY` part.

    Raises
    ------
    LayoutError
        More is damaged than can be mended.
    """
    read = StreamReader(payload)
    data = b"".join(graphs)
    sizes = read.numbers(len(graphs), len(graphs)).tolist()
    length = read.number(len(data))
    if sizes != [len(graph) for graph in graphs] or not length or (
            length * _MOST_CHUNKS < len(data)):
        raise LayoutError("its checksum differs, and what mends it is of another graph")
    chunks = _chunks(data, length)
    checks = read.stream(4 * len(chunks))
    combined = [read.stream(length) for _ in range(2)]
    read.end()
    if len(checks) != 4 * len(chunks) or {len(one) for one in combined} != {length}:
        raise LayoutError("its checksum differs, and what mends it is too short")
    wrong = [i for i, chunk in enumerate(chunks)
             if zlib.crc32(chunk) != int.from_bytes(checks[4 * i:4 * i + 4], "little")]
    for first in (0, 1):
        damaged = [i for i in wrong if i % 2 == first]
        if len(damaged) > 1:
            raise LayoutError("its checksum differs in more places than can be mended")
        for i in damaged:
            others = [chunks[k] for k in range(first, len(chunks), 2) if k != i]
            chunks[i] = _combined([*others, combined[first]], length)
            if zlib.crc32(chunks[i]) != int.from_bytes(checks[4 * i:4 * i + 4], "little"):
                raise LayoutError("its checksum differs, and so does what mends it")
    whole, at, found = b"".join(chunks), 0, []
    for size in sizes:
        found.append(whole[at:at + size])
        at += size
    return found


def unpack_copy(payload: bytes) -> list[bytes]:
    """Payloads of the graph parts in a `COPY` part."""
    read = StreamReader(payload)
    sizes = [read.number() for _ in range(read.number(len(payload)))]
    at, found = len(payload) - sum(sizes), []
    if at < 0:
        raise LayoutError("sizes of the graph's copies are damaged")
    for size in sizes:
        found.append(payload[at:at + size])
        at += size
    return found


def _chunks(data: bytes, length: int) -> list[bytes]:
    """Pieces of one length, the last filled with zeros."""
    return [data[at:at + length].ljust(length, b"\0") for at in range(0, len(data), length)]


def _combined(chunks: Sequence[bytes], length: int) -> bytes:
    """Exclusive or of all."""
    total = np.zeros(length, np.uint8)
    for chunk in chunks:
        total ^= np.frombuffer(chunk, np.uint8)
    return total.tobytes()
