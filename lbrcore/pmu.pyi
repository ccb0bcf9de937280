from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lbrcore.lbr import LbrState

def count(
    branches: npt.NDArray[np.void],
    selectors: Sequence[tuple[int, int, int]],
    limits: Sequence[int],
    *,
    start: int = 0,
    state: LbrState | None = None,
) -> tuple[int, tuple[int, ...]]:
    """Count branches until a counter reaches its limit.

    Parameters
    ----------
    branches : buffer of BRANCH_DTYPE, shape (n,), C-contiguous, oldest first
    selectors : sequence of (table, need, weight), 1 to 16
        ``table`` has bit ``class | (cpl_from > 0) << 4`` set for what counts;
        ``need`` are flags that must all be set; ``weight`` is 0 for 1 a branch, 1 for its
        instructions, 2 for its cycles.
    limits : sequence of int
        Count at which to stop, one a selector, above 0.
    start : int
        First branch to look at.
    state : LbrState, optional
        Records the branches that are taken.

    Returns
    -------
    stop : int
        One past the first branch at which some total reached its limit, or n.
    totals : tuple of int
        What branches[start:stop] add to each counter.

    Raises
    ------
    TypeError, ValueError
        As `LbrState.record`, for the branches looked at: those up to the end of the block in
        which a limit is reached.  Nothing is recorded then.
    """

__test__: dict[str, Any]
