"""Columns of the container, and the digest that guards them.

The digest of a block of `BLOCK_ROWS` rows of one column is, modulo 2**64, the sum of its
little-endian 64-bit words ``w[i] * (2 * i + 1)`` plus its length in bytes; the last word is
filled with zeros.  The factors are odd, so that a change of any one word changes the sum.
It runs at the speed of memory, four times that of CRC32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from lbrcore import BRANCH_DTYPE
from pylbr.extras import Extra

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = Extra("pyarrow")

__all__ = [
    "BLOCK_ROWS", "COLUMNS", "REQUIRED", "arrow_field", "column_digest", "column_dtype",
    "column_type", "digest", "has_our_fields",
]

#: Columns in the order of the file; the first three are in every file.
COLUMNS: Final = (
    "from", "to", "class", "cycles", "instructions", "flags", "cpl_from", "cpl_to", "events",
    "task", "cpu",
)
REQUIRED: Final = ("from", "to", "class")
#: Field number of the first column in a Parquet file.
FIELD_ID: Final = 7001
#: Rows under one digest.
BLOCK_ROWS: Final = 1 << 12

_DTYPES: Final = {
    **{name: BRANCH_DTYPE[name] for name in BRANCH_DTYPE.names or ()},
    "task": np.dtype("u4"), "cpu": np.dtype("u4"),
}


def column_dtype(name: str) -> np.dtype:
    """Dtype of a column; that of `events` has the shape (4,)."""
    return _DTYPES[name]


def column_type(name: str) -> str:
    """A column's type in words, as `arrow_layout.Schema` has it."""
    dtype = _DTYPES[name]
    return f"list<{dtype.base.name}>[{dtype.shape[0]}]" if dtype.shape else dtype.name


def arrow_field(name: str) -> pa.Field:
    """A column as Arrow types it: unsigned integers, `events` a list of fixed size 4."""
    if name == "events":
        kind = pa.list_(pa.field("item", pa.uint8(), nullable=False), 4)
    else:
        kind = pa.from_numpy_dtype(_DTYPES[name])
    number = {b"PARQUET:field_id": str(FIELD_ID + COLUMNS.index(name)).encode()}
    return pa.field(name, kind, nullable=False, metadata=number)


def has_our_fields(schema: pa.Schema) -> bool:
    """Whether the fields bear our numbers, which Parquet keeps apart from the metadata."""
    ours = {str(FIELD_ID + i).encode() for i in range(len(COLUMNS))}
    return any((field.metadata or {}).get(b"PARQUET:field_id") in ours for field in schema)


_FACTORS = 2 * np.arange(BLOCK_ROWS, dtype=np.uint64) + np.uint64(1)


def digest(column: np.ndarray) -> np.ndarray:
    """Digests of a column, uint64, one a block of `BLOCK_ROWS` rows, the last perhaps shorter."""
    data = np.ascontiguousarray(column).reshape(-1).view(np.uint8)
    block = BLOCK_ROWS * column_bytes(column)
    whole = len(data) // block
    result = np.empty(-(-len(data) // block), np.uint64)
    words = data[:whole * block].view(np.uint64).reshape(whole, block // 8)
    np.einsum("ij,j->i", words, _FACTORS[:block // 8], out=result[:whole])
    result[:whole] += np.uint64(block)
    if whole < len(result):
        rest = data[whole * block:]
        padded = np.zeros(-(-len(rest) // 8) * 8, np.uint8)
        padded[:len(rest)] = rest
        last = padded.view(np.uint64)
        result[whole] = np.einsum("i,i->", last, _FACTORS[:len(last)]) + np.uint64(len(rest))
    return result


def column_bytes(column: np.ndarray) -> int:
    """Bytes of one row of a column."""
    return column.itemsize * int(np.prod(column.shape[1:], dtype=np.int64))


def column_digest(column: np.ndarray) -> int:
    """One number for a column: the digest of its blocks' digests."""
    return int(digest(digest(column))[0]) if len(column) else 0
