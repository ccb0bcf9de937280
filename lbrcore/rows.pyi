"""Branches where they lie: an array of BRANCH_DTYPE, or columns, or a mixture."""

from collections.abc import Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

@final
class Rows:
    """Branches, oldest first.  Holds the buffers it was given; copies nothing.

    Parameters
    ----------
    source : ndarray of BRANCH_DTYPE, or mapping of str to ndarray or int
        Columns are named as the fields of `BRANCH_DTYPE` and have its types; `from`, `to` and
        `class` must be there.  An integer stands for a column of one value.  Not given:
        `cycles`, `flags`, `events` 0, `instructions` 1, CPLs 3.  A CPL given as
        ``"address"`` is 0 for addresses in the upper half and 3 for the lower.

    Raises
    ------
    TypeError, ValueError
        A column of another type, shape or length.
    """

    def __new__(
        cls, source: NDArray[np.void] | Mapping[str, NDArray[np.generic] | int | str]
    ) -> Rows: ...
    def __len__(self) -> int: ...
    def gather(self, first: int, last: int) -> NDArray[np.void]:
        """Rows `first` to `last` as BRANCH_DTYPE: a copy, out of range or not.

        Raises
        ------
        ValueError
            There are no such rows.
        """
