"""A facility and the counters that sample it, driven by a trace."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from lbrcore.events import CountedEvent
from lbrcore.lbr import LbrState
from lbrcore.rows import Rows
from lbrcore.summary import Summary

@final
class SampleBuffer:
    row: NDArray[np.int64]
    event: NDArray[np.uint16]
    period: NDArray[np.uint64]
    nr: NDArray[np.uint32]
    hw_idx: NDArray[np.uint64]
    entries: NDArray[np.void]
    classes: NDArray[np.uint8]
    count: int
    @property
    def capacity(self) -> int: ...
    @property
    def depth(self) -> int: ...
    def __init__(self, capacity: int, depth: int) -> None: ...
    def __len__(self) -> int: ...
    def add(self, lbr: LbrState, row: int, event: int, period: int) -> None: ...

@final
class Replay:
    @property
    def lbr(self) -> LbrState: ...
    @property
    def events(self) -> tuple[CountedEvent, ...]: ...
    @property
    def count(self) -> int: ...
    @property
    def freeze(self) -> bool: ...
    @property
    def whole(self) -> bool: ...
    def __init__(
        self, lbr: LbrState, events: Sequence[CountedEvent], *, freeze: bool = False,
        whole: bool = False,
    ) -> None: ...
    def run(
        self,
        branches: Rows | NDArray[np.void] | Mapping[str, NDArray[np.generic] | int | str],
        out: SampleBuffer, first: int = 0, last: int | None = None,
    ) -> int: ...
    def copy(self) -> Replay: ...
    def become(self, other: Replay) -> None: ...
    def describe(
        self,
        branches: Rows | NDArray[np.void] | Mapping[str, NDArray[np.generic] | int | str],
        first: int = 0, last: int | None = None,
    ) -> tuple[Summary, tuple[int, ...]]: ...
    def skip(self, summary: Summary, counts: Sequence[int]) -> None: ...
    def restore(self, key: tuple[Any, ...]) -> None: ...
    @property
    def key(self) -> tuple[Any, ...]: ...
