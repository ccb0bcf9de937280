"""What a stretch of branches does to a facility: a function of the state before it."""

from collections.abc import Hashable, Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

from lbrcore.lbr import LbrState
from lbrcore.rows import Rows

@final
class Summary:
    """What branches do to a facility, as a value.

    Summaries compose in the order of the trace, associatively and not commutatively:
    ``Summary(lbr, a).then(Summary(lbr, b)) == Summary(lbr, a + b)``, and ``Summary(lbr)``,
    of no branches, changes nothing.  They cover records, LER, cycle and event counts and TOS.

    Parameters
    ----------
    lbr : LbrState
        Gives configuration, control and depth; must be recording.  Its records do not matter.
    branches : Rows, ndarray of BRANCH_DTYPE or mapping of columns, optional
        Oldest first.

    Raises
    ------
    ValueError
        The facility is off.

    Notes
    -----
    Immutable; may be used by several threads.  Making one releases the GIL.
    """

    def __init__(
        self, lbr: LbrState,
        branches: Rows | NDArray[np.void] | Mapping[str, NDArray[np.generic] | int | str]
        | None = None,
    ) -> None: ...
    @classmethod
    def restart(cls, lbr: LbrState) -> Summary:
        """Recording stopped and went on: CYC_CNT has no record to count from."""
    @classmethod
    def clear(cls, lbr: LbrState) -> Summary:
        """All records were zeroed."""
    def then(self, other: Summary) -> Summary:
        """This and then `other`."""
    def apply(self, lbr: LbrState) -> None:
        """Bring a facility from before the branches to behind them."""
    @property
    def entries(self) -> NDArray[np.void]:
        """Records made and still there, of ENTRY_DTYPE, newest first.

        INFO of the last one lacks its counts if they go on from those before the branches.
        """
    @property
    def complete(self) -> bool:
        """Records and counts do not depend on what was before the branches."""
    @property
    def key(self) -> tuple[Hashable, ...]:
        """All of it, for comparison."""
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
