"""Linux kernels in files: bzImage, and vmlinux as it is; read with distrust.

Source: Linux, Documentation/arch/x86/boot.rst, protocol 2.12 and later (64-bit entry).
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import zstandard

from pylbr.embed.image import Image, ImageError
from pylbr.embed.image import read as read_elf
from pylbr.extras import needed

__all__ = ["Kernel", "load"]

_LARGEST = 1 << 28
_MOST_UNPACKED = 1 << 29
_MAGIC, _BOOT_FLAG = b"HdrS", 0xAA55
_HEADER = 0x1F1  # where the setup header begins, in file and in boot_params
_SECTS, _FLAG, _JUMP, _MAGIC_AT, _VERSION = 0x1F1, 0x1FE, 0x201, 0x202, 0x206
_LOADFLAGS, _RELOCATABLE, _XLOADFLAGS, _CMDLINE = 0x211, 0x234, 0x236, 0x238
_PAYLOAD, _PREFERRED, _INIT_SIZE = 0x248, 0x258, 0x260
_INITRD_MAX, _ALIGNMENT = 0x22C, 0x230
_LOADED_HIGH, _KERNEL_64 = 1, 1
_ENTRY_64 = 0x200
_OLDEST = 0x20C
_ELF, _LZ4 = b"\x7fELF", b"\x02\x21\x4c\x18"
_LZ4_BLOCK = 8 << 20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "XZ", b"\x5d\0\0": "LZMA",
               b"\x28\xb5\x2f\xfd": "zstd", _LZ4: "LZ4", b"\x04\x22\x4d\x18": "LZ4",
               b"\x89LZO": "LZO"}


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot.

    Attributes
    ----------
    image : Image
        Segments at physical addresses, the 64-bit entry point, and symbols if there are any.
    header : bytes
        The setup header, from offset 1F1H; of a vmlinux, one of ours.
    room : int
        Bytes that the kernel takes from its lowest segment on until it has read the memory map.
    command_line : int
        The most bytes of a command line.
    initrd_end : int
        The initrd must lie below.
    own_decompressor : bool
        The image unpacks itself.
    """

    image: Image
    header: bytes
    room: int
    command_line: int
    initrd_end: int
    own_decompressor: bool


def load(path: str | Path, *, own_decompressor: bool = False) -> Kernel:
    """Read a kernel.

    Parameters
    ----------
    own_decompressor : bool
        Start a bzImage at its own decompressor, as a boot loader does; it can move the kernel and
        switch to 5-level paging.  Otherwise the kernel in it is unpacked here, if its compression
        is gzip, bzip2, LZMA, XZ, LZ4 or zstd.

    Raises
    ------
    ImageError
        No kernel of 64 bits, or a damaged one.
    OSError
    """
    size = Path(path).stat().st_size
    if size > _LARGEST:
        raise ImageError(path, f"larger than {_LARGEST >> 20} MiB: no kernel")
    data = Path(path).read_bytes()
    if data[:4] == _ELF:
        return _vmlinux(read_elf(path, data), None)
    if len(data) < 0x400 or struct.unpack_from("<H", data, _FLAG) != (_BOOT_FLAG,) or (
            data[_MAGIC_AT:_MAGIC_AT + 4] != _MAGIC):
        for magic, form in _COMPRESSED.items():
            if data.startswith(magic):
                raise ImageError(path, f"compressed ({form}), without a decompressor of its own: "
                                       "unpack it, or give the bzImage")
        raise ImageError(path, "no Linux kernel: neither a bzImage nor an ELF executable")
    return _bz_image(path, data, own_decompressor)


def _bz_image(path: str | Path, data: bytes, own_decompressor: bool) -> Kernel:
    version, = struct.unpack_from("<H", data, _VERSION)
    flags, = struct.unpack_from("<H", data, _XLOADFLAGS)
    if version < _OLDEST or not flags & _KERNEL_64 or not data[_LOADFLAGS] & _LOADED_HIGH:
        raise ImageError(path, f"boot protocol {version >> 8}.{version & 0xFF:02}, without a "
                               "64-bit entry point: a 32-bit kernel, or an old one")
    header = data[_HEADER:_MAGIC_AT + data[_JUMP]]
    start = ((data[_SECTS] or 4) + 1) * 512
    if start + _ENTRY_64 >= len(data):
        raise ImageError(path, "damaged: ends before its protected-mode code")
    packed, length = struct.unpack_from("<II", data, _PAYLOAD)
    if (packed or length) and not own_decompressor:  # memtest86+ packs nothing
        if start + packed + length > len(data) or length < 16:
            raise ImageError(path, "damaged: ends before its payload does")
        unpacked = _unpack(path, data[start + packed:start + packed + length])
        if unpacked is not None:
            return _vmlinux(read_elf(path, unpacked), header)
    preferred, room = struct.unpack_from("<QI", data, _PREFERRED)
    image = Image(str(path), preferred + _ENTRY_64, False,
                  ((preferred, max(room, len(data) - start), data[start:]),), ())
    return Kernel(image, header, room, *_limits(header), True)


def _limits(header: bytes) -> tuple[int, int]:
    command_line, = struct.unpack_from("<I", header, _CMDLINE - _HEADER)
    initrd_end, = struct.unpack_from("<I", header, _INITRD_MAX - _HEADER)
    return command_line, initrd_end + 1


def _vmlinux(image: Image, header: bytes | None) -> Kernel:
    if image.multiboot or not image.long_mode:
        raise ImageError(image.path, "no 64-bit Linux kernel")
    if header is None:
        own = bytearray(0x280)
        struct.pack_into("<H4sH", own, _JUMP - 1, 0x66EB, _MAGIC, 0x20F)
        struct.pack_into("<H", own, _FLAG, _BOOT_FLAG)
        own[_LOADFLAGS] = _LOADED_HIGH
        struct.pack_into("<I", own, _INITRD_MAX, 0x7FFFFFFF)
        struct.pack_into("<I", own, _CMDLINE, 2047)
        header = bytes(own[_HEADER:])
    end = max(start + size for start, size, _ in image.segments)
    low = min(start for start, _, _ in image.segments)
    return Kernel(image, header, end - low, *_limits(header), False)


def _unpack(path: str | Path, packed: bytes) -> bytes | None:
    """The ELF file in a payload; None for a compression that is not known here."""
    total, = struct.unpack("<I", packed[-4:])
    if total > _MOST_UNPACKED:
        raise ImageError(path, f"damaged: its payload would unpack to {total} bytes")
    try:
        unpacked = _decompress(packed, total)
    except (ValueError, EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError,
            struct.error) as error:
        raise ImageError(
            path, f"damaged: its payload cannot be unpacked ({type(error).__name__}: {error})"
        ) from None
    if unpacked is not None and not unpacked.startswith(_ELF):
        raise ImageError(path, "damaged: its payload is no ELF file")
    return unpacked


def _decompress(packed: bytes, total: int) -> bytes | None:
    if packed[:2] == b"\x1f\x8b":
        return zlib.decompressobj(31).decompress(packed, total)
    if packed[:3] == b"BZh":
        return bz2.BZ2Decompressor().decompress(packed, total)
    if packed[:6] == b"\xfd7zXZ\0" or packed[:3] == b"\x5d\0\0":
        return lzma.LZMADecompressor().decompress(packed, total)
    if packed[:4] == b"\x28\xb5\x2f\xfd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(packed[:-4])[:total]
    if packed[:4] == _LZ4:
        return _lz4(packed[4:-4], total)
    return None


def _lz4(packed: bytes, total: int) -> bytes:
    """The legacy frame of LZ4: blocks of 8 MiB, each after its compressed size."""
    codec, at, out = needed("pyarrow").Codec("lz4_raw"), 0, []
    while total:
        size, = struct.unpack_from("<I", packed, at)
        block = packed[at + 4:at + 4 + size]
        unpacked = min(total, _LZ4_BLOCK)
        out.append(codec.decompress(block, unpacked, asbytes=True))
        at, total = at + 4 + size, total - unpacked
    return b"".join(out)
