"""Endless branch streams with the statistics of a recorded trace.

A stream goes through stretches of the recording, of random lengths.  From one to the next it
changes where execution is at the same place with the same calls open, somewhat earlier or later, so
that the stream is a walk that the program could have taken: each branch begins in the block where
the one before arrived, and each return goes back to its call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from lbrcore import BranchClass
from pylbr.workloads.samples import recorded

__all__ = ["Model", "stream"]

_CALLS: Final = (int(BranchClass.NEAR_REL_CALL), int(BranchClass.NEAR_IND_CALL))
_RETURN: Final = int(BranchClass.NEAR_RET)
#: Rows of a stretch, at most; half of it on average.
STRETCH: Final = 2000
#: Rows from the end of one stretch to the begin of the next, at most.
NEAR: Final = 2_000


class Model:
    """What streams are drawn from.

    Parameters
    ----------
    rows : (n,) array of BRANCH_DTYPE
        Branches of one thread, oldest first.

    Raises
    ------
    ValueError
        They never come back to a place with the same calls open.
    """

    def __init__(self, rows: np.ndarray) -> None:
        if not len(rows):
            raise ValueError("no branches")
        self._rows = np.ascontiguousarray(rows)
        # Where execution is before each row, with which calls open.
        pairs = np.column_stack([_open_calls(rows), np.concatenate([[0], rows["to"][:-1]])])
        _, group = np.unique(pairs.astype(np.uint64), axis=0, return_inverse=True)
        self._group = group.reshape(-1)
        self._order = np.argsort(self._group, kind="stable")
        self._begin = np.searchsorted(self._group[self._order], np.arange(self._group.max() + 2))
        # The two rows farthest from each other that are alike: from the second back to the first.
        first, last = (self._order[places] for places in (self._begin[:-1], self._begin[1:] - 1))
        longest = int((last - first).argmax())
        self._first, self._last = int(first[longest]), int(last[longest])
        if self._first == self._last:
            raise ValueError("these branches never come back to a place with the same calls open")

    def stream(self, seed: int, chunk: int = 1 << 16) -> Iterator[np.ndarray]:
        """Arrays of BRANCH_DTYPE, shape (chunk,), without end; the same for the same seed.

        Raises
        ------
        ValueError
            `chunk` is not positive.
        """
        if chunk < 1:
            raise ValueError(f"chunk: must be at least 1, not {chunk}")
        rng = np.random.default_rng(seed)
        at = int(rng.integers(self._first, self._last))
        out, fill = np.empty(chunk, self._rows.dtype), 0
        while True:
            end = min(at + int(rng.integers(1, STRETCH)), self._last)
            while at < end:
                part = min(end - at, chunk - fill)
                out[fill:fill + part] = self._rows[at:at + part]
                at, fill = at + part, fill + part
                if fill == chunk:
                    yield out
                    out, fill = np.empty(chunk, self._rows.dtype), 0
            at = self._other(at, rng)

    def _other(self, at: int, rng: np.random.Generator) -> int:
        """A row at the same place, with the same calls open, and not far from here.

        So a stream goes through the phases of the program as the recording does, again and again.
        """
        group = self._group[at]
        same = self._order[self._begin[group]:self._begin[group + 1]]
        if at == self._last:
            return self._first
        low, high = np.searchsorted(same, (at - NEAR, min(at + NEAR, self._last)))
        return int(same[rng.integers(low, high)])


def _open_calls(rows: np.ndarray) -> np.ndarray:
    """A number for the calls that are open before each row; equal ones have the same number."""
    found, now = np.zeros(len(rows), np.int64), 0
    known: dict[tuple[int, int], int] = {}
    stack: list[int] = []
    kinds = rows["class"]
    where = np.flatnonzero(np.isin(kinds, (*_CALLS, _RETURN)))
    begin = 0
    for i, kind, site in zip(where.tolist(), kinds[where].tolist(), rows["from"][where].tolist(),
                             strict=True):
        found[begin:i + 1] = now
        begin = i + 1
        if kind != _RETURN:
            stack.append(now)
            now = known.setdefault((now, site), len(known) + 1)
        else:
            # A return from what was called before the recording began is a place of its own.
            now = stack.pop() if stack else known.setdefault((now, -1), len(known) + 1)
    found[begin:] = now
    return found


def stream(name: str, seed: int, chunk: int = 1 << 16) -> Iterator[np.ndarray]:
    """Branches like those of a recorded workload: arrays of BRANCH_DTYPE, oldest first, no end.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    seed : int
        The same seed gives the same branches.
    chunk : int
        Rows of each array.

    Raises
    ------
    CommandError
        There is no workload of this name.
    """
    with recorded(name) as trace:
        model = Model(trace.read(0, trace.count or 0))
    return model.stream(seed, chunk)
