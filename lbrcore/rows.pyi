"""Branches where they lie: an array of BRANCH_DTYPE, or columns, or a mixture."""

from collections.abc import Mapping
from typing import final

import numpy as np
from numpy.typing import NDArray

@final
class Rows:
    def __new__(
        cls, source: NDArray[np.void] | Mapping[str, NDArray[np.generic] | int | str]
    ) -> Rows: ...
    def __len__(self) -> int: ...
    def gather(self, first: int, last: int) -> NDArray[np.void]: ...
