"""Arrays in a file that appears when it is complete, each under a checksum.

What one task leaves for others, and for a later start.  The file begins with one line of JSON: the
head, and name, bytes and CRC-32 of each array; the arrays follow as NumPy writes them.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pylbr.errors import TraceError
from pylbr.files.json_text import decode_json
from pylbr.files.output import AtomicFile

__all__ = ["read_part", "write_part"]

_FORMAT: Final = "pylbr part"
#: Of this layout and of what the heads mean.
VERSION: Final = 1
_LONGEST_HEAD: Final = 1 << 26


def write_part(
    path: str | os.PathLike[str], head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write a head, of what JSON has, and arrays.

    Raises
    ------
    TraceError
        The file cannot be written; nothing is left under its name then.
    """
    packed = {name: _packed(array) for name, array in arrays.items()}
    sections = [[name, len(data), zlib.crc32(data)] for name, data in packed.items()]
    line = json.dumps({"head": head, "arrays": sections}, separators=(",", ":")).encode()
    with AtomicFile(path) as output:
        output.file.write(f"{_FORMAT} {VERSION} {zlib.crc32(line):08x} ".encode() + line + b"\n")
        for data in packed.values():
            output.file.write(data)


def read_part(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(head, arrays) of a file of `write_part`.

    Raises
    ------
    TraceError
        It cannot be read, is damaged (with the offset), or is of another version.
    """
    try:
        with open(path, "rb") as file:
            line = file.readline(_LONGEST_HEAD)
            head, sections = _parse(path, line)
            offset, arrays = len(line), {}
            for name, size, check in sections:
                data = file.read(min(size, os.fstat(file.fileno()).st_size))
                if len(data) != size or zlib.crc32(data) != check:
                    raise TraceError(path, f"is damaged in its array {name!r}; remove it, and it "
                                     "is made again", offset)
                arrays[name] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
                offset += size
    except TraceError:
        raise
    except OSError as error:
        raise TraceError(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise TraceError(path, f"is damaged ({error}); remove it, and it is made again",
                         0) from error
    return head, arrays


def _packed(array: NDArray[Any]) -> bytes:
    target = io.BytesIO()
    np.lib.format.write_array(target, np.ascontiguousarray(array), allow_pickle=False)
    return target.getvalue()


def _parse(
    path: str | os.PathLike[str], line: bytes
) -> tuple[dict[str, Any], list[tuple[str, int, int]]]:
    """Head and list of arrays of a first line."""
    words = line.split(b" ", 4)
    if len(words) != 5 or b" ".join(words[:2]).decode(errors="replace") != _FORMAT:
        raise ValueError("it does not begin as a part does")
    if words[2] != str(VERSION).encode():
        raise TraceError(path, f"is a part of version {words[2][:20].decode(errors='replace')}, "
                         f"and this pylbr reads {VERSION}; remove it, and it is made again")
    if not line.endswith(b"\n") or int(words[3], 16) != zlib.crc32(words[4][:-1]):
        raise ValueError("the checksum of its first line differs")
    content = decode_json(words[4])
    return content["head"], [(name, size, check) for name, size, check in content["arrays"]]
