"""Reading and writing the streams of a part, one after the other."""

from __future__ import annotations

import numpy as np

from pylbr.trace._edges import to_varints, varints
from pylbr.trace.lbrt_layout import LayoutError, pack_stream, unpack_stream

__all__ = ["StreamReader", "StreamWriter"]


class StreamWriter:
    """Streams and numbers, in order; `data` is all of it.

    Parameters
    ----------
    level : int
        Of zstd.
    """

    def __init__(self, level: int = 3) -> None:
        self._parts: list[bytes] = []
        self._level = level

    def number(self, value: int) -> None:
        """One varint."""
        value, low = int(value), []
        while value > 127:
            low.append(value & 127 | 128)
            value >>= 7
        self._parts.append(bytes([*low, value]))

    def stream(self, content: bytes) -> None:
        """Bytes, compressed if that makes them shorter."""
        packed = pack_stream(content, self._level) if len(content) > 24 else content
        small = len(packed) < len(content)
        content = packed if small else content
        self.number(len(content) << 1 | small)
        self._parts.append(content)

    def numbers(self, values: np.ndarray) -> None:
        """A stream of varints."""
        self.stream(to_varints(np.ascontiguousarray(values, np.uint64)))

    def signed(self, values: np.ndarray) -> None:
        """A stream of signed numbers: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
        values = np.ascontiguousarray(values).astype(np.int64)
        self.numbers(((values << 1) ^ (values >> 63)).view(np.uint64))

    @property
    def data(self) -> bytes:
        """What was written."""
        return b"".join(self._parts)


class StreamReader:
    """The reverse of `StreamWriter`; all methods raise `LayoutError`."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, most: int = (1 << 64) - 1) -> int:
        """One varint, at most `most`."""
        value = shift = 0
        while self._at < len(self._data) and shift < 64:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                if value > most:
                    raise LayoutError(f"a number of {value} where {most} is the most")
                return value
            shift += 7
        raise LayoutError("a number that is cut off")

    def stream(self, bound: int) -> bytes:
        """Content of the next stream, at most `bound` bytes."""
        size = self.number()
        small, size = size & 1, size >> 1
        data = self._data[self._at:self._at + size]
        if len(data) != size:
            raise LayoutError("a stream that is cut off")
        self._at += size
        if small:
            return unpack_stream(data, bound)
        if size > bound:
            raise LayoutError("a stream longer than its piece allows")
        return data

    def numbers(self, count: int | None, most: int) -> np.ndarray:
        """A stream of `count` varints, or at most `most` of them, as uint64."""
        try:
            values = varints(self.stream(10 * (most if count is None else count)))
        except ValueError as error:
            raise LayoutError(str(error)) from error
        if count is not None and len(values) != count:
            raise LayoutError(f"{len(values)} numbers instead of {count}")
        return values

    def signed(self, count: int) -> np.ndarray:
        """A stream of signed numbers, as int64."""
        values = self.numbers(count, count)
        return (values >> np.uint64(1)).view(np.int64) ^ -(values & np.uint64(1)).view(np.int64)

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise LayoutError("more in it than belongs there")
