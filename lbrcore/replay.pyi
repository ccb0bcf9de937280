"""A facility and the counters that sample it, driven by a trace."""

from collections.abc import Hashable, Mapping, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from lbrcore.events import CountedEvent
from lbrcore.lbr import LbrState
from lbrcore.rows import Rows
from lbrcore.summary import Summary

@final
class SampleBuffer:
    """Room for samples; the first `count` of each array are filled.

    Parameters
    ----------
    capacity : int
    depth : int
        Of the facility.

    Attributes
    ----------
    row : ndarray of i8, shape (capacity,)
        Row of the trace behind which the PMI was taken.
    event : ndarray of u2
        Index into `Replay.events`.
    period : ndarray of u8
        The period that ended.
    nr : ndarray of u4
        Records up to the first whose FROM is 0, which ends them for software.
    hw_idx : ndarray of u8
        TOS in the legacy flavour, else 0.  From `Replay` only with `whole`, or in call-stack
        mode.
    entries : ndarray of ENTRY_DTYPE, shape (capacity, depth)
        Newest first.
    classes : ndarray of u1, shape (capacity, depth)
        `BranchClass` of each entry, if ``lbr_config.info_mask`` has `INFO_CLASS`; it is then
        not in `entries`.
    """

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
    def add(self, lbr: LbrState, row: int, event: int, period: int) -> None:
        """Take a sample of the facility as it is.

        Raises
        ------
        ValueError
            The facility has another depth, or there is no room.
        """

@final
class Replay:
    """A facility and the counters that sample it.

    Looks back from each sample instead of recording every branch.

    Parameters
    ----------
    lbr : LbrState
        Set up and recording; used, not copied.
    events : sequence of CountedEvent
        At most 16; they count from 0.
    freeze : bool
        FREEZE_LBRS_ON_PMI: the facility stops at an overflow and goes on behind the PMI.
    whole : bool
        Keep also what no sample shows: LER, and TOS outside call-stack mode.  Takes a look at
        the class of every row.

    Notes
    -----
    Used by one thread at a time; `run` releases the GIL.  Fields of branches that are out of
    range are cut to it, as not all are looked at.
    """

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
    ) -> int:
        """Take rows `first` to `last`, oldest first, and add samples to `out`.

        Returns
        -------
        int
            The row to go on from: `last`, or less if `out` has no room for one more sample
            of each event.

        Raises
        ------
        ValueError
            `out` is too small or for another depth.
        """
    def copy(self) -> Replay:
        """The same state, apart."""
    def become(self, other: Replay) -> None:
        """Take over the state of a copy.

        Raises
        ------
        ValueError
            It counts other events or has another depth.
        """
    def describe(
        self,
        branches: Rows | NDArray[np.void] | Mapping[str, NDArray[np.generic] | int | str],
        first: int = 0, last: int | None = None,
    ) -> tuple[Summary, tuple[int, ...]]:
        """What rows do to the facility, and what each event counts in them, for `skip`.

        Changes nothing, so that several threads may call it at once.  LER and, outside
        call-stack mode, TOS are described only with `whole`.
        """
    def skip(self, summary: Summary, counts: Sequence[int]) -> None:
        """Pass over branches that `describe` has described.

        A guess: exact if nothing freezes the facility, each PMI is taken before the next
        overflow of its counter, and none is on its way at either end.
        """
    @property
    def key(self) -> tuple[Hashable, ...]:
        """All that decides what comes next, for comparison."""
