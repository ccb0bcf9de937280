"""Values that a branch cannot have."""

from __future__ import annotations

from typing import Final

import numpy as np

from pylbr.errors import TraceError

__all__ = ["check_branches", "check_values"]

#: Greatest value of each column that does not use its whole type.
_GREATEST: Final = {"class": 15, "flags": 7, "cpl_from": 3, "cpl_to": 3}


def check_values(path: object, column: str, values: np.ndarray, offset: int | None) -> None:
    """Refuse a column with a value out of its range.

    `offset` is the byte offset of the first value, None where the source is compressed or
    text; then the message alone shows which branch it is.

    Raises
    ------
    TraceError
    """
    greatest = _GREATEST.get(column)
    if greatest is None or not len(values) or values.max() <= greatest:
        return
    i = int(np.argmax(values > greatest))
    at = None if offset is None else offset + i * values.itemsize
    raise TraceError(
        path, f"{column} {int(values[i])} in row {i} of this block, but {greatest} is the "
        "greatest there is", at,
    )


def check_branches(path: object, branches: np.ndarray, offset: int | None = None) -> None:
    """`check_values` of every column of BRANCH_DTYPE."""
    for column in _GREATEST:
        check_values(path, column, branches[column], offset)
