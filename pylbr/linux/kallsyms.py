"""The symbols that a Linux kernel carries in itself, for reports of panics.

Source: Linux, scripts/kallsyms.c and kernel/kallsyms.c, with relative addresses; the order of the
tables is that of 5.10 to 6.3.  Of other kernels there are no names.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from pylbr.embed.image import Image

__all__ = ["kernel_symbols", "named"]

_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
_FIRST_DIGIT, _TOKENS = 0x30, 256
_FEWEST, _MOST = 1000, 1 << 20
_BASE = 0xFFFFFFFF81000000
_PER_MARKER = 256
#: __START_KERNEL_map: where physical address 0 of the kernel's image appears.
_MAPPED = 0xFFFFFFFF80000000


def kernel_symbols(image: Image) -> tuple[tuple[int, str], ...]:
    """(address, name) ascending; empty if the tables are not found."""
    for _, _, data in image.segments:
        tokens = _tokens(data)
        if tokens:
            return _symbols(data, tokens)
    return ()


def named(image: Image) -> Image:
    """The image with symbols by the addresses that the kernel uses."""
    own = tuple((a, name) for a, name in image.symbols if a >= _MAPPED)
    return replace(image, symbols=own or kernel_symbols(image), offset=_MAPPED)


def _tokens(data: bytes) -> list[bytes]:
    """The 256 strings that names are made of."""
    at = data.find(_DIGITS)
    while at >= 0:
        start = at
        for _ in range(_FIRST_DIGIT):
            start = data.rfind(b"\0", 0, start - 1) + 1
        tokens = data[start:start + 64 * _TOKENS].split(b"\0", _TOKENS)[:_TOKENS]
        index, offset = [], 0
        for token in tokens:
            index.append(offset)
            offset += len(token) + 1
        if offset < 1 << 16 and len(tokens) == _TOKENS and (
                0 <= data.find(struct.pack("<256H", *index), start) - start - offset < 16):
            return tokens
        at = data.find(_DIGITS, at + 1)
    return []


def _symbols(data: bytes, tokens: list[bytes]) -> tuple[tuple[int, str], ...]:
    base = struct.pack("<Q", _BASE)
    at = data.find(base)
    while at >= 0:
        count, = struct.unpack_from("<I", data.ljust(at + 16, b"\0"), at + 8)
        start = at - (4 * count + 7 & ~7)
        if at % 8 == 0 and _FEWEST < count < _MOST and start >= 0:
            names = _names(data, at + 16, count, tokens)
            if names:
                offsets = struct.unpack_from(f"<{count}i", data, start)
                return tuple(sorted(
                    (_BASE - 1 - offset, name) for offset, name in zip(offsets, names, strict=True)
                    if offset < 0))
        at = data.find(base, at + 1)
    return ()


def _names(data: bytes, at: int, count: int, tokens: list[bytes]) -> list[str]:
    """The names from `at` on, if the markers after them agree; else none."""
    first, names, markers = at, [], []
    for number in range(count):
        if number % _PER_MARKER == 0:
            markers.append(at - first)
        if at + 2 > len(data):
            return []
        length = data[at]
        at += 1
        if length & 0x80:
            length = length & 0x7F | data[at] << 7
            at += 1
        # The first character is the symbol's kind.
        name = b"".join(map(tokens.__getitem__, data[at:at + length]))[1:]
        names.append(name.decode("latin-1"))
        at += length
    at = at + 7 & ~7
    return names if data[at:at + 4 * len(markers)] == struct.pack(
        f"<{len(markers)}I", *markers) else []
