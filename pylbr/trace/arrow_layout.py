"""Where the columns of an Arrow IPC file lie, so that rows can be read by position.

pyarrow reads whole record batches; a window of 32 branches needs a few hundred bytes of
one.  This module reads the three FlatBuffers tables that describe what and where they are, the
schema, the footer and the head of a record batch, and trusts no number in them.

Sources: Arrow columnar format 1.5, ``File.fbs``, ``Message.fbs``, ``Schema.fbs``, and the
FlatBuffers internals document (tables, vtables, vectors).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

__all__ = [
    "MAGIC", "BatchLayout", "Block", "LayoutError", "Schema", "parse_batch", "parse_footer",
    "parse_schema",
]

MAGIC: Final = b"ARROW1"
_SCHEMA, _RECORD_BATCH = 1, 3  # MessageHeader
#: Names of ``Type``, by number; the parameters of two of them matter here.
_TYPES: Final = (
    "none", "null", "int", "floating point", "binary", "string", "bool", "decimal", "date", "time",
    "timestamp", "interval", "list", "struct", "union", "fixed-size binary", "fixed-size list",
    "map", "duration", "large binary", "large string", "large list",
)
_INT, _FIXED_SIZE_LIST = 2, 16


class LayoutError(Exception):
    """A table that contradicts itself or reaches outside its buffer."""


@dataclass(frozen=True, slots=True)
class Block:
    """A record batch in the file: byte offset, size of its head, size of its body."""

    offset: int
    head: int
    body: int


@dataclass(frozen=True, slots=True)
class Schema:
    """Columns in order, the type of each as pyarrow writes it (``uint64``), the metadata."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    metadata: dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """A record batch: rows, null count of each node, (offset, length) of each buffer."""

    rows: int
    nulls: tuple[int, ...]
    buffers: tuple[tuple[int, int], ...]
    body: int
    compressed: bool
    custom: dict[str, str]


class _Table:
    """A FlatBuffers table at `position` of `data`."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position
        vtable = position - self._get("<i", position)
        size = self._get("<H", vtable)
        if size < 4 or size % 2:
            raise LayoutError("a FlatBuffers vtable of impossible size")
        self.fields = [self._get("<H", vtable + at) for at in range(4, size, 2)]

    def _get(self, form: str, at: int) -> int:
        if at < 0 or at + struct.calcsize(form) > len(self.data):
            raise LayoutError("a FlatBuffers offset outside of its buffer")
        return struct.unpack_from(form, self.data, at)[0]

    def scalar(self, field: int, form: str, default: int = 0) -> int:
        """Field of a plain type."""
        at = self.fields[field] if field < len(self.fields) else 0
        return self._get(form, self.position + at) if at else default

    def _target(self, field: int) -> int | None:
        at = self.fields[field] if field < len(self.fields) else 0
        if not at:
            return None
        at += self.position
        return at + self._get("<I", at)

    def table(self, field: int) -> _Table | None:
        """Field that is a table."""
        target = self._target(field)
        return None if target is None else _Table(self.data, target)

    def structs(self, field: int, form: str) -> list[tuple[int, ...]]:
        """Field that is a vector of structs."""
        target = self._target(field)
        if target is None:
            return []
        count, size = self._get("<I", target), struct.calcsize(form)
        if target + 4 + count * size > len(self.data):
            raise LayoutError("a FlatBuffers vector longer than its buffer")
        return list(struct.iter_unpack(form, self.data[target + 4:target + 4 + count * size]))

    def tables(self, field: int) -> list[_Table]:
        """Field that is a vector of tables."""
        target = self._target(field)
        if target is None:
            return []
        starts = self.structs(field, "<I")
        return [_Table(self.data, target + 4 + 4 * i + o) for i, (o,) in enumerate(starts)]

    def text(self, field: int) -> str:
        """Field that is a string."""
        target = self._target(field)
        if target is None:
            return ""
        size = self._get("<I", target)
        if target + 4 + size > len(self.data):
            raise LayoutError("a FlatBuffers string longer than its buffer")
        try:
            return self.data[target + 4:target + 4 + size].decode()
        except UnicodeDecodeError as error:
            raise LayoutError("a FlatBuffers string that is not UTF-8") from error


def _root(data: bytes) -> _Table:
    if len(data) < 8:
        raise LayoutError("too short for a FlatBuffers table")
    return _Table(data, struct.unpack_from("<I", data)[0])


def parse_footer(footer: bytes) -> tuple[list[Block], Schema]:
    """Record batches of a file, in order, and its schema, out of its footer."""
    table = _root(footer)
    if table.structs(2, "<qi4xq"):
        raise LayoutError("dictionary-encoded columns, which a trace does not have")
    blocks = [Block(*row) for row in table.structs(3, "<qi4xq")]
    if any(block.offset < 0 or block.head < 8 or block.body < 0 for block in blocks):
        raise LayoutError("a record batch of negative size or place")
    return blocks, _schema(table.table(1))


def parse_schema(message: bytes) -> Schema:
    """The message at the head of a file."""
    table = _root(message)
    if table.scalar(1, "<B") != _SCHEMA:
        raise LayoutError("no schema at its head")
    return _schema(table.table(2))


def _schema(table: _Table | None) -> Schema:
    if table is None:
        raise LayoutError("a schema is missing")
    if table.scalar(0, "<h"):
        raise LayoutError("big-endian columns")
    fields = table.tables(1)
    return Schema(tuple(field.text(0) for field in fields),
                  tuple(_type(field) for field in fields),
                  {key.encode(): value.encode() for key, value in _pairs(table, 2).items()})


def _type(field: _Table, inner: bool = False) -> str:
    """Type of a field; that of a list names its items' too."""
    number, kind = field.scalar(2, "<B"), field.table(3)
    if kind is None:
        raise LayoutError("a column without a type")
    if field.table(4) is not None:
        return "dictionary"
    if number == _INT:
        return f"{'' if kind.scalar(1, '<B') else 'u'}int{kind.scalar(0, '<i')}"
    children = field.tables(5)
    if number == _FIXED_SIZE_LIST and len(children) == 1 and not inner:
        return f"list<{_type(children[0], True)}>[{kind.scalar(0, '<i')}]"
    return _TYPES[number] if number < len(_TYPES) else f"type {number}"


def _pairs(table: _Table, field: int) -> dict[str, str]:
    """Field that is a vector of key-value pairs."""
    return {pair.text(0): pair.text(1) for pair in table.tables(field)}


def parse_batch(head: bytes, custom: bool = False) -> BatchLayout:
    """The head of a record batch: continuation mark, length, message.

    `custom`: whether the batch's own key-value pairs are wanted.
    """
    mark, size = struct.unpack_from("<Ii", head) if len(head) >= 8 else (0, 0)
    if mark != 0xFFFFFFFF or size < 0 or size > len(head) - 8:
        raise LayoutError("no record batch here")
    message = _root(head[8:8 + size])
    batch = message.table(2)
    if message.scalar(1, "<B") != _RECORD_BATCH or batch is None:
        raise LayoutError("a message that is no record batch")
    nodes = batch.structs(1, "<qq")
    rows = batch.scalar(0, "<q")
    body = message.scalar(3, "<q")
    buffers = tuple((offset, size) for offset, size in batch.structs(2, "<qq"))
    if rows < 0 or any(o < 0 or n < 0 or o + n > body for o, n in buffers):
        raise LayoutError("a buffer outside of its record batch")
    return BatchLayout(
        rows, tuple(nulls for _, nulls in nodes), buffers, body, batch.table(3) is not None,
        _pairs(message, 4) if custom else {},
    )
