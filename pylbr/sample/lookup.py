"""The facility after any branch of a trace, without replaying what comes before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lbrcore import LbrState
from lbrcore.events import CountedEvent
from lbrcore.replay import Replay, SampleBuffer
from lbrcore.summary import Summary
from pylbr.sample.sample_setup import SampleSetup
from pylbr.sample.sampler import branch_columns
from pylbr.trace import Trace

__all__ = ["LbrIndex", "lbr_at"]

#: Branches from one stored state to the next: 768 bytes for 65,536 branches.
_EVERY = 1 << 16


def lbr_at(trace: Trace, index: int, setup: SampleSetup | None = None) -> LbrState:
    """`Trace.lbr_at` for the processor and filter of `setup`; default: all branches.

    Parameters
    ----------
    trace : Trace
        Of one task; `task` and `cpu` columns are not looked at.  Fast for the container,
        other formats are read from their begin.
    """
    return trace.lbr_at(index, (setup or SampleSetup(branches="any")).facility())


class LbrIndex:
    """States of the facility at regular places of a trace, for `at` on any setting.

    Parameters
    ----------
    trace : Trace
        As for `lbr_at`; replayed once, now.
    setup : SampleSetup
        Processor and filter; its events do not matter.
    every : int
        Branches from one stored state to the next.
    """

    def __init__(self, trace: Trace, setup: SampleSetup, every: int = _EVERY) -> None:
        self.trace, self.setup, self.every = trace, setup, every
        lbr = setup.facility()
        replay = Replay(lbr, [CountedEvent(every)])
        self._states = [lbr.copy()]
        for chunk in trace.chunks(columns=setup.columns()):
            rows, first, last = branch_columns(chunk, setup), 0, len(chunk)
            while first < last:
                # One sample at a time: it is taken where the next state is due.
                out = SampleBuffer(1, lbr.depth)
                first = replay.run(rows, out, first, last)
                if len(out):
                    self._states.append(lbr.copy())

    def at(self, index: int) -> LbrState:
        """The facility right after branch `index`; as `lbr_at`, at the same cost everywhere.

        Raises
        ------
        IndexError
            The trace has no such branch.
        """
        stop = index + 1
        place = stop // self.every
        if index < 0 or place >= len(self._states):
            raise IndexError(f"index: {self.trace.path} has no branch {index}")
        lbr = self._states[place].copy()
        branches: NDArray[np.void] = self.trace.read(place * self.every, stop)
        if len(branches) < stop - place * self.every:
            raise IndexError(f"index: {self.trace.path} has no branch {index}")
        Summary(lbr, branches).apply(lbr)
        return lbr
