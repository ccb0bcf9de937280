from typing import final

import numpy as np
import numpy.typing as npt

@final
class BlockWalk:
    """Rebuilds the branches of one thread.

    Parameters
    ----------
    blocks : array of BLOCK_DTYPE, shape (n,), C-contiguous
        The table; number 0 is never used.
    lengths : array of u1, shape (m,), C-contiguous
        Bytes of every instruction of every block, where the block's ``lengths`` points.
    timed : bool
        Fill in `cycles` from the cost model.
    gates : array of u8, ascending, optional
        The blocks are a system's, which interrupts and exceptions enter at these addresses.
    """

    def __new__(
        cls, blocks: npt.NDArray[np.void], lengths: npt.NDArray[np.uint8], timed: bool = False,
        gates: npt.NDArray[np.uint64] | None = None,
    ) -> BlockWalk: ...
    @property
    def gaps(self) -> int:
        """Steps so far that nothing explains: no branch is reported for them."""

    def limit(self, count: int) -> None:
        """Let only the first `count` blocks of the table exist.

        Raises
        ------
        ValueError
            The table has fewer.
        """

    def feed(self, words: npt.NDArray[np.uint32]) -> npt.NDArray[np.void]:
        """Branches that the next words of the thread's ring tell.

        Parameters
        ----------
        words : array of u4, shape (n,), oldest first

        Returns
        -------
        ndarray of BRANCH_DTYPE, oldest first
            With conditional branches that fell through, as NOT_TAKEN.

        Raises
        ------
        ValueError
            A number that no block has; the words before it are taken.
        """
