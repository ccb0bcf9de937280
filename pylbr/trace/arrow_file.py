"""Reading an Arrow IPC file by position.

Memory is never mapped unless asked for: a mapped file that shrinks under its reader kills
the process with SIGBUS, a positioned read comes back short and becomes a `TraceError`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from pylbr.errors import TraceError
from pylbr.files.module import Module
from pylbr.trace.arrow_layout import (
    MAGIC,
    BatchLayout,
    Block,
    LayoutError,
    Schema,
    parse_batch,
    parse_footer,
    parse_schema,
)
from pylbr.trace.check import check_values
from pylbr.trace.metadata import Metadata, decode_metadata, with_modules
from pylbr.trace.schema import BLOCK_ROWS, COLUMNS, REQUIRED, column_dtype, column_type, digest
from pylbr.trace.trace import ColumnarTrace

__all__ = ["ArrowTrace"]

#: Footers and heads larger than this are refused: they have 40 bytes per record batch.
MAX_HEAD = 64 << 20
_TAIL = struct.Struct("<i6s")


class ArrowTrace(ColumnarTrace):
    """An Arrow IPC file as `Writer` leaves it, or one with the same columns and types.

    Parameters
    ----------
    path : path-like
    mmap : bool
        Map the file instead of reading it.  Quicker on hot files; the process dies if the
        file shrinks meanwhile.
    verify : bool
        Compare every block that is read with its digest, and refuse values out of range.
    modules : sequence of Module
        Mapped files besides those that the trace names.

    Raises
    ------
    TraceError
        Not such a file, or damaged.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, mmap: bool = False, verify: bool = True,
        modules: Sequence[Module] = (),
    ) -> None:
        self.path, self._verify = os.fspath(path), verify
        try:
            self._fd = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise TraceError(path, f"cannot be read: {error.strerror}") from error
        try:
            self._size = os.fstat(self._fd).st_size
            self._map = np.memmap(path, np.uint8, "r") if mmap and self._size else None
            blocks, again, footer_at = self._read_footer()
            schema, first = self._read_schema()
            if schema != again:  # one of them may have lost what makes the file ours
                raise self._damaged("the schemas at its head and in its footer differ", 8)
            self._read_columns(schema)
            if self._ours:
                self._check_blocks(blocks, first, footer_at)
            self._blocks = blocks
            layouts = [self._layout(i) for i in range(len(blocks))]
            if self._ours and not all(head.rows for head in layouts):
                raise self._damaged("a record batch without rows", 8)
            self._buffers = [self._data_buffers(i, head) for i, head in enumerate(layouts)]
            self.metadata = with_modules(self.metadata, modules)
            self._set_groups([head.rows for head in layouts])
            self._digests = lru_cache(maxsize=256)(self._read_digests)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # Bytes ----------------------------------------------------------------------------

    def _bytes(self, offset: int, size: int, what: str) -> np.ndarray:
        """`size` bytes at `offset`."""
        if self._fd < 0:
            raise TraceError(self.path, "the trace has been closed")
        if offset < 0 or size < 0 or offset + size > self._size:
            raise self._damaged(f"{what} reaches past the end of the file", offset)
        if self._map is not None:
            return self._map[offset:offset + size]
        data = np.empty(size, np.uint8)
        done = 0
        while done < size:
            try:
                count = os.preadv(self._fd, [data.data[done:]], offset + done)
            except OSError as error:
                raise TraceError(self.path, f"cannot be read: {error.strerror}", offset) from error
            if not count:
                raise self._damaged(f"the file shrank while {what} was read", offset + done)
            done += count
        return data

    def _damaged(self, what: str, offset: int | None = None) -> TraceError:
        return TraceError(self.path, f"{what}; copy the file again or convert it again", offset)

    # Head and tail --------------------------------------------------------------------

    def _read_footer(self) -> tuple[list[Block], Schema, int]:
        """Record batches, the schema once more, and where the footer begins."""
        if self._size < 8 + _TAIL.size:
            raise self._damaged(f"{self._size} bytes are too few for an Arrow file", 0)
        if self._bytes(0, 8, "the magic").tobytes() != MAGIC + b"\0\0":
            raise self._damaged("does not begin with ARROW1", 0)
        at = self._size - _TAIL.size
        size, magic = _TAIL.unpack(self._bytes(at, _TAIL.size, "the tail").tobytes())
        if magic != MAGIC:
            raise self._damaged("does not end with ARROW1, so it is cut off", at + 4)
        if not 0 < size <= min(at, MAX_HEAD):
            raise self._damaged(f"a footer of {size} bytes", at)
        try:
            footer = self._bytes(at - size, size, "the footer").tobytes()
            return *parse_footer(footer), at - size
        except LayoutError as error:
            raise self._damaged(str(error), at - size) from error

    def _read_schema(self) -> tuple[Schema, int]:
        """The schema message, which stands first, and where it ends."""
        mark, size = struct.unpack("<Ii", self._bytes(8, 8, "the schema").tobytes())
        if mark != 0xFFFFFFFF or not 0 < size <= MAX_HEAD:
            raise self._damaged("no schema at its head", 8)
        try:
            return parse_schema(self._bytes(16, size, "the schema").tobytes()), 16 + size
        except LayoutError as error:
            raise self._damaged(f"the schema is damaged ({error})", 8) from error

    def _read_columns(self, schema: Schema) -> None:
        names = schema.names
        try:
            found = decode_metadata(schema.metadata)
        except (ValueError, TypeError) as error:
            raise self._damaged(f"the schema is damaged ({error})", 8) from error
        self._ours = found is not None
        self.metadata = found[0] if found else Metadata()
        if found and found[1] != names:
            raise self._damaged(f"columns {names}, but its metadata list {found[1]}", 8)
        if len(set(names)) < len(names) or not set(REQUIRED[:2]) <= set(names):
            raise TraceError(self.path, "is no trace: it needs the columns 'from' and 'to'", 8)
        self.columns = tuple(name for name in COLUMNS if name in names)
        for name in self.columns:
            kind, wanted = schema.types[names.index(name)], column_type(name)
            if kind != wanted:
                raise TraceError(
                    self.path, f"column {name!r} is {kind}, not {wanted}; cast it before writing",
                    8,
                )
        self._schema = schema

    def _check_blocks(self, blocks: Sequence[Block], first: int, footer: int) -> None:
        """Record batches of ours follow each other without a gap, up to the footer."""
        at = first
        for block in blocks:
            if block.offset != at:
                raise self._damaged(f"a record batch at {block.offset:#x} was expected here", at)
            at += block.head + block.body
        if at + 8 != footer:  # the mark of the stream's end
            raise self._damaged("record batches are missing", at)

    # Record batches -------------------------------------------------------------------

    def _layout(self, i: int, custom: bool = False) -> BatchLayout:
        block = self._blocks[i]
        if block.head > MAX_HEAD:
            raise self._damaged(f"a record batch with a head of {block.head} bytes", block.offset)
        head = self._bytes(block.offset, block.head, "the head of a record batch").tobytes()
        try:
            layout = parse_batch(head, custom)
        except LayoutError as error:
            raise self._damaged(str(error), block.offset) from error
        if layout.body != block.body:
            raise self._damaged("a record batch contradicts the footer", block.offset)
        return layout

    def _data_buffers(self, i: int, layout: BatchLayout) -> dict[str, int]:
        """Where in the file each column of a record batch begins."""
        block = self._blocks[i]
        if layout.compressed:
            raise TraceError(
                self.path, "is a compressed Arrow file, which has no random access; write it "
                "uncompressed, or as Parquet", block.offset,
            )
        if any(layout.nulls):
            raise TraceError(self.path, "has nulls; fill them before writing", block.offset)
        body, starts, at = block.offset + block.head, {}, 0
        for name in self._schema.names:
            # Validity and data, the list's own validity before them; foreign columns may
            # have any shape, so that ours must come first.
            if name not in COLUMNS:
                break
            at += 2 if name != "events" else 3
            if at > len(layout.buffers):
                raise self._damaged("a record batch lacks buffers", block.offset)
            offset, size = layout.buffers[at - 1]
            if size < layout.rows * column_dtype(name).itemsize:
                raise self._damaged(f"column {name!r} is shorter than its batch", block.offset)
            starts[name] = body + offset
        if set(starts) != set(self.columns):
            raise TraceError(self.path, "has other columns before those of a trace", block.offset)
        return starts

    def _read_digests(self, group: int) -> dict[str, np.ndarray]:
        """Digests of each column of a record batch."""
        custom, at = self._layout(group, custom=True).custom, self._blocks[group].offset
        rows = self._ends[group] - (self._ends[group - 1] if group else 0)
        found = {}
        for name in self.columns:
            try:
                values = bytes.fromhex(custom.get(f"digest.{name}", ""))
            except ValueError:
                values = b""
            if len(values) != 8 * -(-rows // BLOCK_ROWS):
                raise self._damaged(f"the digests of column {name!r} are damaged", at)
            found[name] = np.frombuffer(values, ">u8")
        return found

    def _load(self, group: int, column: str, low: int, high: int) -> np.ndarray:
        dtype, start = column_dtype(column), self._buffers[group][column]
        rows = self._ends[group] - (self._ends[group - 1] if group else 0)
        checked = self._verify and self._ours
        first = low // BLOCK_ROWS * BLOCK_ROWS if checked else low
        last = min(-(-high // BLOCK_ROWS) * BLOCK_ROWS, rows) if checked else high
        offset = start + first * dtype.itemsize
        data = self._bytes(offset, (last - first) * dtype.itemsize, f"column {column!r}")
        values = data.view(dtype.base).reshape(-1, *dtype.shape)
        if checked:
            found, block = digest(values), first // BLOCK_ROWS
            differs = found != self._digests(group)[column][block:block + len(found)]
            if differs.any():
                at = offset + int(np.argmax(differs)) * BLOCK_ROWS * dtype.itemsize
                raise self._damaged(f"column {column!r} is damaged: its digest differs", at)
        values = values[low - first:high - first]
        if self._verify:
            check_values(self.path, column, values, start + low * dtype.itemsize)
        return values
