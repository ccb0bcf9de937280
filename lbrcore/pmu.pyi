from collections.abc import Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from lbrcore.lbr import LbrState

@final
class Bank:
    """Counters that count at once; it never changes, the counters' values are the caller's.

    Parameters
    ----------
    places : sequence of int, 1 to 16
        The counters' bits in the global registers: 0 up are general, 32 up fixed ones.
    selectors : sequence of (table, need, weight)
        What each counts.  ``table`` has bit ``class | (cpl_from > 0) << 4`` set for what counts;
        ``need`` are flags that must all be set; ``weight`` is 0 for 1 a branch, 1 for its
        instructions, 2 for its cycles.
    widths : sequence of int
        Bits of each counter, 1 to 62.

    Raises
    ------
    TypeError, ValueError, OverflowError
        An argument is of another type, length or range.
    """

    def __new__(
        cls, places: Sequence[int], selectors: Sequence[tuple[int, int, int]],
        widths: Sequence[int],
    ) -> Bank: ...
    def count(
        self, branches: npt.NDArray[np.void], general: list[int], fixed: list[int],
        start: int = 0, stop: int | None = None, state: LbrState | None = None,
    ) -> tuple[int, int]:
        """Count branches until a counter overflows.

        Parameters
        ----------
        branches : buffer of BRANCH_DTYPE, shape (n,), C-contiguous, oldest first
        general, fixed : list of int
            The counters' values, which change.
        start, stop : int
            Branches to look at; `stop` is n if left out.
        state : LbrState, optional
            Records the branches that are taken.

        Returns
        -------
        stop : int
            One past the first branch at which some counter overflowed, or `stop`.
        overflowed : int
            Their bits.

        Raises
        ------
        TypeError, ValueError
            As `LbrState.record`, for the branches looked at: those up to the end of the block in
            which a counter overflows.  Nothing is counted or recorded then.
        OverflowError
            A counter holds more than its width.
        """

    def add(
        self, general: list[int], fixed: list[int], cls: int, cpl: int, flags: int, branch: bool,
        instructions: int, cycles: int,
    ) -> int:
        """Count one branch, or if not `branch` only the instructions and cycles that pass.

        Returns
        -------
        int
            The bits of the counters that overflowed.
        """

__test__: dict[str, Any]
