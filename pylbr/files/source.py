"""Bytes of a file, decompressed on the way, never more than asked for.

What a compressed file claims about its size is not believed: output is made in bounded
steps and counted, and a file that swells beyond `MAX_RATIO` is refused.
"""

from __future__ import annotations

import io
import lzma
import os
import shutil
import stat
import tempfile
import zlib
from functools import cache
from typing import IO, Final

import zstandard

from pylbr.errors import TraceError
from pylbr.files.closing import Closing

__all__ = ["MAX_RATIO", "ByteSource", "compression_of", "seekable"]

#: Bytes out for a byte in.  gzip cannot pass 1,032; ChampSim traces in xz, the best
#: compressing of real ones, reach some 3,000; xz makes 6,900 and zstd 32,000 of zeros.
MAX_RATIO: Final = 4096
#: Below this much output the ratio is not looked at.
FREE_OUTPUT: Final = 64 << 20
#: Memory that a decompressor may use.
MAX_XZ_MEMORY: Final = 128 << 20
MAX_ZSTD_WINDOW: Final = 32 << 20

_MAGIC: Final = {
    "gzip": b"\x1f\x8b\x08", "xz": b"\xfd7zXZ\0", "zstd": b"\x28\xb5\x2f\xfd",
}
_STEP: Final = 1 << 18
#: zstandard returns all that its input holds: at most 128 KiB for four bytes.
_ZSTD_INPUT: Final = 1 << 8


def compression_of(head: bytes) -> str:
    """``gzip``, ``xz``, ``zstd`` or ``""``, by the first bytes of a file."""
    for name, magic in _MAGIC.items():
        if head.startswith(magic):
            return name
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5:
        return "zstd"  # a skippable frame
    return ""


@cache
def seekable(path: str) -> str:
    """`path`, or a file that holds what can be read but once: a pipe, or ``-``, standard input.

    Such a file has no name and is gone with the process.

    Raises
    ------
    TraceError
        It is a terminal or another device, or the stream cannot be read or kept.
    """
    try:
        mode = os.fstat(0).st_mode if path == "-" else os.stat(path).st_mode
    except OSError:
        return path  # opening it will fail in the same way
    if path != "-" and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return path
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (path == "-" and stat.S_ISREG(mode))):
        raise TraceError(path, "is no regular file and no pipe" if path != "-" else
                         "standard input is no file and no pipe; name a file")
    try:
        descriptor = os.dup(0) if path == "-" else os.open(path, os.O_RDONLY)
        with open(descriptor, "rb") as stream:
            spool = tempfile.TemporaryFile()  # noqa: SIM115  stays open
            shutil.copyfileobj(stream, spool, _STEP)
            spool.flush()
    except OSError as error:
        raise TraceError(path, f"cannot be read: {error.strerror}") from error
    _spools.append(spool)
    return f"/proc/self/fd/{spool.fileno()}"


_spools: list[IO[bytes]] = []


class _Gzip:
    def __init__(self) -> None:
        self._engine = zlib.decompressobj(31)

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        out = self._engine.decompress(data, _STEP)
        return out, self._engine.unconsumed_tail or self._engine.unused_data

    @property
    def eof(self) -> bool:
        return self._engine.eof


class _Xz:
    def __init__(self) -> None:
        self._engine = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY)

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        out = self._engine.decompress(data, _STEP)
        return out, self._engine.unused_data if self._engine.eof else b""

    @property
    def eof(self) -> bool:
        return self._engine.eof

    @property
    def hungry(self) -> bool:
        return self._engine.needs_input


class _Zstd:
    def __init__(self) -> None:
        context = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW)
        self._engine = context.decompressobj()
        self.eof = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        out = self._engine.decompress(data[:_ZSTD_INPUT])
        self.eof = self._engine.eof
        return out, self._engine.unused_data + data[_ZSTD_INPUT:]


_Engine = _Gzip | _Xz | _Zstd
_ENGINES: Final[dict[str, type[_Engine]]] = {"gzip": _Gzip, "xz": _Xz, "zstd": _Zstd}


class ByteSource(Closing):
    """A file, read forward.

    Attributes
    ----------
    compression : str
        As `compression_of`.
    offset : int
        Bytes of content given out.

    Raises
    ------
    TraceError
        The file cannot be opened or read, its compression is damaged, truncated or a bomb.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.offset, self._consumed = os.fspath(path), 0, 0
        try:
            self._file = io.FileIO(path)
            head = self._file.read(6)
            self._file.seek(0)
        except OSError as error:
            raise TraceError(path, f"cannot be read: {error.strerror}") from error
        self.compression = compression_of(head)
        self._engine: _Engine | None = (
            _ENGINES[self.compression]() if self.compression else None
        )
        self._input, self._output, self._made = b"", b"", 0

    @property
    def file_offset(self) -> int:
        """Byte offset in the file itself, near which reading stands."""
        return self._consumed - len(self._input)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end."""
        parts, left = [], size
        while left:
            if self._output:
                part, self._output = self._output[:left], self._output[left:]
            else:
                part = self._decompressed(self._engine) if self._engine else self._raw(left)
                if not part:
                    break
                part, self._output = part[:left], part[left:]
            parts.append(part)
            left -= len(part)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.offset += len(data)
        return data

    def readinto(self, view: memoryview) -> int:
        """Fill `view` as far as there is content; the number of bytes."""
        if self._engine is not None or self._output:
            data = self.read(len(view))
            view[:len(data)] = data
            return len(data)
        done = 0
        while done < len(view):
            try:
                count = self._file.readinto(view[done:])
            except OSError as error:
                raise TraceError(self.path, f"cannot be read: {error.strerror}", self._consumed)\
                    from error
            if not count:
                break
            done += count
        self._consumed += done
        self.offset += done
        return done

    def _raw(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as error:
            raise TraceError(self.path, f"cannot be read: {error.strerror}", self._consumed)\
                from error
        self._consumed += len(data)
        return data

    def _decompressed(self, engine: _Engine) -> bytes:
        """Some output; empty at the end."""
        while True:
            hungry = getattr(engine, "hungry", True)
            if not self._input and hungry:
                self._input = self._raw(_STEP)
                if not self._input:
                    if self._begun and not engine.eof:
                        raise self._trouble("is cut off in the middle of its compressed data")
                    return b""
            if engine.eof:
                if not self._next_member():
                    return b""
                engine = self._engine = _ENGINES[self.compression]()
            try:
                output, self._input = engine.feed(self._input)
            except (zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError) as error:
                raise self._trouble(f"is damaged: {error}") from error
            self._begun = True
            if output:
                self._count(len(output))
                return output

    _begun = False

    def _next_member(self) -> bool:
        """Whether another stream follows a finished one, and not only padding."""
        while True:
            self._input = self._input.lstrip(b"\0")
            if len(self._input) < 6 and (more := self._raw(_STEP)):
                self._input += more
                continue
            break
        if not self._input:
            return False
        if compression_of(self._input) != self.compression:
            raise self._trouble(f"has something that is not {self.compression} after its end")
        return True

    def _count(self, size: int) -> None:
        self._made += size
        if self._made > FREE_OUTPUT and self._made > MAX_RATIO * max(self.file_offset, 1):
            raise self._trouble(
                f"swells to more than {MAX_RATIO} times its size; decompress it yourself first "
                "if it is what you think it is"
            )

    def _trouble(self, what: str) -> TraceError:
        name = f"the {self.compression} file " if self.compression else ""
        return TraceError(self.path, f"{name}{what}", self.file_offset)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()
