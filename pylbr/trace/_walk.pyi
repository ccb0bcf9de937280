from collections.abc import Sequence
from typing import final

import numpy as np
import numpy.typing as npt

@final
class Walk:
    def __new__(
        cls, rows: npt.NDArray[np.void], source: npt.NDArray[np.uint32],
        target: npt.NDArray[np.uint32], nodes: int, limits: Sequence[int],
        starts: Sequence[tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]],
    ) -> Walk: ...
    def use(self, version: int) -> None: ...
    def encode(
        self, numbers: npt.NDArray[np.uint32], tasks: npt.NDArray[np.uint32],
        lengths: npt.NDArray[np.uint32], nodes: npt.NDArray[np.uint32],
    ) -> tuple[bytes, bytes, bytes]: ...
    def decode(
        self, count: int, tasks: npt.NDArray[np.uint32], lengths: npt.NDArray[np.uint32],
        nodes: npt.NDArray[np.uint32], runs: bytes, guesses: bytes, ranks: bytes,
        out: npt.NDArray[np.generic], skip: int = 0, plain: bool = False,
    ) -> None: ...
