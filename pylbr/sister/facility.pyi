from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

@disjoint_base
class BranchFacility:
    def record(self, branches: npt.NDArray[np.void]) -> None: ...
    def record_one(
        self,
        from_: int,
        to: int,
        cls: int,
        *,
        cycles: int = 0,
        flags: int = 0,
        cpl_from: int = 3,
        cpl_to: int = 3,
    ) -> None: ...
    @property
    def depth(self) -> int: ...
    def records(self) -> npt.NDArray[np.void]: ...
    def registers(self) -> npt.NDArray[np.void]: ...
    def read_entry(self, i: int) -> tuple[int, int, int]: ...
    def clear(self) -> None: ...

__test__: dict[str, Any]
