from typing import final

import numpy as np
import numpy.typing as npt

from pylbr.record._blocks import BlockWalk
from pylbr.trace._edges import Edges

BRANCHES_PER_WAY: int

@final
class NumberedWays:
    """The steps of one trace, by the ways.

    Parameters
    ----------
    edges : Edges
    """

    def __new__(cls, edges: Edges) -> NumberedWays: ...
    def forget(self) -> None: ...
    def count_uses(self) -> None: ...
    def number(
        self, blocks: BlockWalk, ran: npt.NDArray[np.uint32], ways: npt.NDArray[np.uint32],
        first: int, out: npt.NDArray[np.uint32], last: int,
    ) -> tuple[int, int, int, npt.NDArray[np.int64], npt.NDArray[np.void]]: ...
