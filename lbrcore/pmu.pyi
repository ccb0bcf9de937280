from collections.abc import Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from lbrcore.lbr import LbrState

@final
class Bank:
    def __new__(
        cls, places: Sequence[int], selectors: Sequence[tuple[int, int, int]],
        widths: Sequence[int],
    ) -> Bank: ...
    def count(
        self, branches: npt.NDArray[np.void], general: list[int], fixed: list[int],
        start: int = 0, stop: int | None = None, state: LbrState | None = None,
    ) -> tuple[int, int]: ...
    def add(
        self, general: list[int], fixed: list[int], cls: int, cpl: int, flags: int, branch: bool,
        instructions: int, cycles: int,
    ) -> int: ...

__test__: dict[str, Any]
