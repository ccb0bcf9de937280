"""Reading a .lbrt file: piece by piece, or any window of rows."""

from __future__ import annotations

import os
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Final, NamedTuple

import numpy as np

from lbrcore import BRANCH_DTYPE
from pylbr.errors import TraceError
from pylbr.files.module import Module
from pylbr.trace.check import check_branches
from pylbr.trace.classes import ClassFiller
from pylbr.trace.lbrt_graph import Graph
from pylbr.trace.lbrt_layout import (
    COPY,
    GRAPH,
    HEAD,
    INDEX,
    KINDS,
    MAGIC,
    META,
    PARITY,
    PIECE,
    PLAIN_PIECE,
    ROWS,
    SMALL,
    TRAILER,
    LayoutError,
    PartHead,
    check_part,
    parse_head,
    parse_trailer,
    unpack_stream,
)
from pylbr.trace.lbrt_mending import mend, unpack_copy
from pylbr.trace.lbrt_piece import (
    Piece,
    Runs,
    apply_differences,
    parse_piece,
    parse_rows,
)
from pylbr.trace.lbrt_streams import StreamReader
from pylbr.trace.metadata import CHECK_KEY, METADATA_KEY, decode_metadata, with_modules
from pylbr.trace.trace import CHUNK_ROWS, Chunk, Trace, checked_columns

__all__ = ["LbrtTrace"]

#: Bytes of a part that are read.
_MAX_PART: Final = 1 << 28
#: More rows than are asked for: the codec copies some at a time.
_SLACK: Final = 36
_WITH_ROWS: Final = (PIECE, PLAIN_PIECE, ROWS, SMALL)


class _Part(NamedTuple):
    kind: bytes
    offset: int
    size: int
    rows: int
    version: int


class LbrtTrace(Trace):
    """A .lbrt file as `pylbr.trace.LbrtWriter` leaves it.

    Parameters
    ----------
    path : path-like
    verify : bool
        Refuse a file that is cut off.  If not, what is whole of it is read, pieces that are
        damaged are left out, and `notes` reports both.
    modules : sequence of Module
        Mapped files besides those that the trace names.

    Raises
    ------
    TraceError
        Not such a file, or damaged.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, verify: bool = True, modules: Sequence[Module] = ()
    ) -> None:
        self.path, self._verify = os.fspath(path), verify
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise TraceError(path, f"cannot be read: {error.strerror}") from error
        try:
            self._size = os.fstat(self._fd).st_size
            if self._bytes(0, len(MAGIC)) != MAGIC:
                raise self._damaged("does not begin as a .lbrt file does", 0)
            parts = self._indexed() or self._scanned()
            self._read_metadata(parts)
            self.metadata = with_modules(self.metadata, modules)
            self._graph = self._read_graph(parts)
            self._walk, self._small = self._graph.walk(), self._graph.small()
            self._parts = [part for part in parts if part.kind in _WITH_ROWS]
            self._ends = list(accumulate(part.rows for part in self._parts))
            self.count = self._ends[-1] if self._ends else 0
            self._filler = ClassFiller(self.metadata.modules, self.path, self.metadata.tasks)
            self._content = lru_cache(maxsize=16)(self._read_content)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # Parts ----------------------------------------------------------------------------

    def _bytes(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`; fewer at the end of the file."""
        if self._fd < 0:
            raise TraceError(self.path, "the trace has been closed")
        try:
            found = os.pread(self._fd, size, offset)
            while 0 < len(found) < size and (more := os.pread(
                    self._fd, size - len(found), offset + len(found))):
                found += more
        except OSError as error:
            raise TraceError(self.path, f"cannot be read: {error.strerror}", offset) from error
        return found

    def _damaged(self, what: str, offset: int | None = None) -> TraceError:
        return TraceError(self.path, f"{what}; copy the file again or convert it again", offset)

    def _head(self, offset: int) -> PartHead:
        head = parse_head(self._bytes(offset, HEAD.size))
        if head.size > min(_MAX_PART, self._size - offset - HEAD.size):
            raise LayoutError("a part that is cut off")
        return head

    def _payload(self, offset: int, kind: bytes, size: int | None = None) -> bytes:
        """Payload of the part at `offset`, its checksum compared."""
        head = self._head(offset)
        if head.kind != kind or (size is not None and head.size != size):
            raise LayoutError("its head is damaged")
        payload = self._bytes(offset + HEAD.size, head.size)
        check_part(head, payload)
        return payload

    def _indexed(self) -> list[_Part]:
        """The parts as the index has them; none if it or the trailer is damaged or missing."""
        offset = parse_trailer(self._bytes(max(self._size - TRAILER.size, 0), TRAILER.size))
        if offset is None or offset > self._size:
            return []
        try:
            parts = self._parse_index(self._payload(offset, INDEX))
        except LayoutError:
            return []
        return parts if parts and _end(parts[-1]) == offset else []

    def _parse_index(self, payload: bytes) -> list[_Part]:
        read = StreamReader(payload)
        count = read.number(self._size // HEAD.size)
        kinds = read.stream(count)
        sizes, rows = read.numbers(count, count), read.numbers(count, count)
        read.end()
        if len(kinds) != count or any(kind >= len(KINDS) for kind in kinds):
            raise LayoutError("kinds of parts are damaged")
        parts, offset, version = [], len(MAGIC), 0
        for kind, size, n in zip(kinds, sizes.tolist(), rows.tolist(), strict=True):
            version += KINDS[kind] == GRAPH
            parts.append(_Part(KINDS[kind], offset, size, n, version))
            offset = _end(parts[-1])
        return parts

    def _scanned(self) -> list[_Part]:
        """The parts one after the other, for a file whose end is damaged or missing."""
        parts: list[_Part] = []
        offset, version = len(MAGIC), 0
        whole = False
        while offset < self._size:
            try:
                head = self._head(offset)
                if head.kind == INDEX:
                    whole = bool(parts)
                    break
                payload = self._payload(offset, head.kind)
                rows = StreamReader(payload).number() if head.kind in _WITH_ROWS else 0
            except LayoutError:
                break
            version += head.kind == GRAPH
            parts.append(_Part(head.kind, offset, head.size, rows, version))
            offset = _end(parts[-1])
        if not parts:
            raise self._damaged("has no whole part", offset)
        if not whole:
            count = sum(part.rows for part in parts)
            what = f"is cut off or damaged after {count:,} branches, and its index is missing"
            if self._verify:
                raise TraceError(
                    self.path, f"{what}; pylbr convert --no-verify keeps those, or copy the file "
                    "again", offset)
            self.notes = (*self.notes, f"{self.path} {what}: these were read")
        return parts

    def _read_metadata(self, parts: Sequence[_Part]) -> None:
        """The last head that is whole; there may be a later one with more tasks."""
        trouble: Exception = LayoutError("has no head")
        for part in reversed([part for part in parts if part.kind == META]):
            try:
                text = unpack_stream(self._payload(part.offset, META, part.size), _MAX_PART)
                check = f"{zlib.crc32(text):08x}".encode()
                found = decode_metadata({METADATA_KEY: text, CHECK_KEY: check})
                assert found is not None
                self.metadata, self.columns = found
                return
            except (LayoutError, ValueError, TypeError) as error:
                trouble = error
        raise self._damaged(f"its head is damaged ({trouble})", parts[0].offset)

    def _read_graph(self, parts: Sequence[_Part]) -> Graph:
        graph = Graph()
        graphs = [part for part in parts if part.kind == GRAPH]
        mended: list[bytes] | None = None
        for i, part in enumerate(graphs):
            try:
                try:
                    payload = self._payload(part.offset, GRAPH, part.size)
                except LayoutError:
                    mended = mended or self._mended(parts, graphs)
                    payload = mended[i]
                graph.add(payload, self.columns)
            except (LayoutError, IndexError) as error:
                raise self._damaged(f"the graph is damaged ({error})", part.offset) from error
        return graph

    def _mended(self, parts: Sequence[_Part], graphs: Sequence[_Part]) -> list[bytes]:
        """Payloads of the graph parts, of which one is damaged."""
        for part in parts:
            if part.kind == COPY:
                return unpack_copy(self._payload(part.offset, COPY, part.size))
            if part.kind == PARITY:
                found = [self._bytes(each.offset + HEAD.size, each.size) for each in graphs]
                return mend(found, self._payload(part.offset, PARITY, part.size))
        raise LayoutError("its checksum differs")

    # Rows -----------------------------------------------------------------------------

    def _read_content(self, number: int) -> Piece | tuple[np.ndarray, Runs, Runs]:
        """A piece, or rows without a graph, unpacked."""
        part = self._parts[number]
        try:
            payload = self._payload(part.offset, part.kind, part.size)
            found = (parse_rows(payload, self.columns) if part.kind == ROWS else
                     parse_piece(payload, self.columns, part.kind == SMALL))
            count = found.rows if isinstance(found, Piece) else len(found[0])
            if count != part.rows or (isinstance(found, Piece) and not part.version):
                raise LayoutError("the index contradicts it")
        except LayoutError as error:
            raise self._damaged(f"{part.rows:,} branches from {self._begin(number):,} on are "
                                f"damaged ({error})", part.offset) from error
        return found

    def _begin(self, number: int) -> int:
        return self._ends[number - 1] if number else 0

    def _decode(self, number: int, skip: int, count: int, out: np.ndarray) -> None:
        """Rows `skip` to `count` of a piece into `out`, which has room for some more."""
        content, part = self._content(number), self._parts[number]
        if not isinstance(content, Piece):
            check_branches(self.path, content[0])
            out[:count - skip] = content[0][skip:count]
            return
        order, lengths, nodes = content.order, content.tasks.lengths, content.nodes
        try:
            if part.kind == SMALL:
                self._small.use(part.version)
                numbers = self._small.decode(count, order, lengths, nodes, content.streams[0])
                out[:count - skip] = self._graph.rows[numbers[skip:]]
            else:
                self._walk.use(part.version)
                runs, guesses, ranks = content.streams
                self._walk.decode(count, order, lengths, nodes, runs, guesses, ranks, out, skip,
                                  part.kind == PLAIN_PIECE)
        except ValueError as error:
            raise self._damaged(f"{part.rows:,} branches from {self._begin(number):,} on are "
                                f"damaged ({error})", part.offset) from error
        if content.differences:
            apply_differences(content, out[:count - skip], skip)
            check_branches(self.path, out[:count - skip])

    def _rows(self, low: int, high: int) -> np.ndarray:
        """Rows of several pieces."""
        first, last = bisect_right(self._ends, low), bisect_right(self._ends, high - 1)
        out = np.empty(high - low + _SLACK, BRANCH_DTYPE)
        for number in range(first, last + 1):
            begin = self._begin(number)
            skip = max(low - begin, 0)
            self._decode(number, skip, min(self._ends[number], high) - begin,
                         out[begin + skip - low:])
        return out[:high - low]

    def _runs(self, name: str, low: int, high: int) -> np.ndarray:
        """Task or logical processor of some rows."""
        found = []
        first = bisect_right(self._ends, low)
        for number in range(first, bisect_right(self._ends, high - 1) + 1):
            content = self._content(number)
            if isinstance(content, Piece):
                tasks, cpus = content.tasks, content.cpus
            else:
                _, tasks, cpus = content
            found.append((tasks if name == "task" else cpus).column())
        begin = self._begin(first)
        return np.concatenate(found)[low - begin:high - begin]

    def _chunk(self, low: int, high: int, wanted: tuple[str, ...]) -> Chunk:
        load = self._loader(low, high)
        chunk = Chunk(low, high - low, self.columns, load, self._filler, lambda: load(""))
        chunk.wanted = wanted
        return chunk

    def _loader(self, low: int, high: int) -> Callable[[str], np.ndarray]:
        rows: list[np.ndarray] = []

        def load(name: str) -> np.ndarray:
            if name in ("task", "cpu"):
                return self._runs(name, low, high)
            if not rows:
                rows.append(self._rows(low, high))
            return rows[0] if name == "" else rows[0][name]

        return load

    def _divided(self, start: int) -> Iterator[tuple[int, int]]:
        """Ranges of whole pieces from `start` on, as large as a chunk."""
        low = max(start, 0)
        number = bisect_right(self._ends, low)
        while number < len(self._parts):
            last = number
            while last + 1 < len(self._parts) and self._ends[last + 1] - low <= CHUNK_ROWS:
                last += 1
            yield low, self._ends[last]
            low, number = self._ends[last], last + 1

    def chunks(self, columns: Sequence[str] | None = None, start: int = 0) -> Iterator[Chunk]:
        wanted = checked_columns(columns)
        for low, high in self._divided(start):
            if self._verify:
                yield self._chunk(low, high, wanted)
            else:
                yield from self._whole_chunks(low, high, wanted)

    def _whole_chunks(self, low: int, high: int, wanted: tuple[str, ...]) -> Iterator[Chunk]:
        """Piece by piece; those that are damaged are noted and left out."""
        while low < high:
            number = bisect_right(self._ends, low)
            end = self._ends[number]
            try:
                chunk = self._chunk(low, end, wanted)
                chunk.column("from")
            except TraceError as error:
                self.notes = (*self.notes, f"left out: {error}")
            else:
                yield chunk
            low = end

    def read(self, start: int, stop: int) -> np.ndarray:
        low, high = max(start, 0), min(stop, self.count or 0)
        if low >= high:
            return np.empty(0, BRANCH_DTYPE)
        return self._chunk(low, high, BRANCH_DTYPE.names or ()).branches


def _end(part: _Part) -> int:
    return part.offset + HEAD.size + part.size
