"""NumPy dtypes of what profiles are made of."""

from __future__ import annotations

import numpy as np

__all__ = ["BRANCH_COUNT_DTYPE", "IP_DTYPE", "PAIR_DTYPE"]

#: Counts of a pair of addresses: 64 bytes.  An edge runs from `first` (FROM) to `last` (TO); a
#: straight run from `first` (the TO it began at) to `last` (the FROM it ended with), `origin`
#: being the FROM of the branch to `first`, or 0 where runs of all origins are summed up.  `timed`
#: of the `count` carry cycles, whose sum is `cycles`; for a run these are the cycles spent in it.
PAIR_DTYPE = np.dtype(
    [
        ("first", "u8"),
        ("last", "u8"),
        ("origin", "u8"),
        ("count", "u8"),
        ("mispredicted", "u8"),
        ("cycles", "u8"),
        ("timed", "u8"),
        ("pid", "i8"),
    ]
)

#: Samples at an address.
IP_DTYPE = np.dtype([("address", "u8"), ("pid", "i8"), ("count", "u8")])

#: A branch instruction: how often it was taken, to how many targets, how often mispredicted.
BRANCH_COUNT_DTYPE = np.dtype(
    [("address", "u8"), ("pid", "i8"), ("targets", "u8"), ("count", "u8"), ("mispredicted", "u8")]
)
