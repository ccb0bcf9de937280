from typing import final

import numpy as np
import numpy.typing as npt

@final
class Edges:
    edges: int
    nodes: int
    differing: int

    def __new__(cls, counts_mask: int, rest_mask: int) -> Edges: ...
    def number(
        self, branches: npt.NDArray[np.void], out: npt.NDArray[np.uint32], last: int
    ) -> int: ...
    def table(self) -> tuple[
        npt.NDArray[np.void], npt.NDArray[np.uint32], npt.NDArray[np.uint32],
        npt.NDArray[np.uint32], npt.NDArray[np.uint64],
    ]: ...
    def rows_of(self, numbers: npt.NDArray[np.uint32]) -> npt.NDArray[np.void]: ...
    def forget(self, edges: int, nodes: int) -> None: ...
    def settle(self, first_edge: int, first_node: int) -> npt.NDArray[np.uint32]: ...
