from typing import Any

import numpy as np

def use_avx2(wanted: bool) -> None: ...
def parse(
    data: Any, at: int, size: int, rows: np.ndarray, entries: np.ndarray, offsets: np.ndarray
) -> tuple[int, int, int, int]: ...
