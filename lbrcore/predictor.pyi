from typing import final

import numpy as np
import numpy.typing as npt

@final
class Predictor:
    """A model of a branch predictor: directions, indirect targets, returns.

    Parameters
    ----------
    kind : str
        ``gshare``: 2**14 two-bit counters, 14 directions of history.  ``tage``: a base of
        2**13 counters and four tagged tables of 2**10 with 4, 10, 24 and 60 directions.
        Both: 2**10 last targets of indirect branches by path, and a stack of 16 calls.

    Notes
    -----
    An instance is used by one thread at a time.
    """

    def __new__(cls, kind: str = "tage") -> Predictor: ...
    def mark(self, branches: npt.NDArray[np.void]) -> int:
        """Set or clear MISPRED in `flags` of each branch, in place; how many were wrong.

        Parameters
        ----------
        branches : writable buffer of BRANCH_DTYPE, shape (n,), C-contiguous, oldest first
            With NOT_TAKEN branches: half of what a predictor of directions lives on.

        Raises
        ------
        TypeError, ValueError
            As `LbrState.record`; also if the buffer is read-only.
        """
