from collections.abc import Sequence
from typing import final

import numpy as np
import numpy.typing as npt

@final
class Small:
    def __new__(
        cls, source: npt.NDArray[np.uint32], target: npt.NDArray[np.uint32], nodes: int,
        limits: Sequence[int],
    ) -> Small: ...
    def use(self, version: int) -> None: ...
    def encode(
        self, numbers: npt.NDArray[np.uint32], tasks: npt.NDArray[np.uint32],
        lengths: npt.NDArray[np.uint32], nodes: npt.NDArray[np.uint32],
    ) -> bytes: ...
    def decode(
        self, count: int, tasks: npt.NDArray[np.uint32], lengths: npt.NDArray[np.uint32],
        nodes: npt.NDArray[np.uint32], data: bytes,
    ) -> npt.NDArray[np.uint32]: ...
