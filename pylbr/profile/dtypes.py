"""NumPy dtypes of what profiles are made of."""

from __future__ import annotations

import numpy as np

__all__ = ["PAIR_DTYPE"]

#: Counts of a pair of addresses: 56 bytes.  An edge runs from `first` (FROM) to `last` (TO); a
#: straight run from `first` (the TO it began at) to `last` (the FROM it ended with).  `timed`
#: of the `count` carry cycles, whose sum is `cycles`; for a run these are the cycles spent in it.
PAIR_DTYPE = np.dtype(
    [
        ("first", "u8"),
        ("last", "u8"),
        ("count", "u8"),
        ("mispredicted", "u8"),
        ("cycles", "u8"),
        ("timed", "u8"),
        ("pid", "i8"),
    ]
)
