"""Counting and finding rows of a trace by their small fields, a byte or less a row."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lbrcore.events import CountedEvent
from lbrcore.rows import Rows

_Branches = Rows | NDArray[np.void] | Mapping[str, NDArray[np.generic] | int | str]

def total(
    branches: _Branches, event: CountedEvent, first: int = 0, last: int | None = None
) -> int: ...

def find(
    branches: _Branches, event: CountedEvent, need: int, first: int = 0, last: int | None = None
) -> int | None: ...

def last_rows(
    branches: _Branches, event: CountedEvent, count: int, first: int = 0, last: int | None = None
) -> list[int]: ...
