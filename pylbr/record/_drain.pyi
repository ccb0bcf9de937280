import mmap
from typing import Any, final

import numpy as np
import numpy.typing as npt

from lbrcore import LbrState
from pylbr.sister.facility import BranchFacility

@final
class Drain:
    """The reader's end of a `Wire`.

    Parameters
    ----------
    memory : writable buffer
        As `Wire` has laid it out.
    state : LbrState or BranchFacility
        The facility that a sample's window goes through; its control decides what is recorded.
    timed : bool
        Fill in cycles from the cost model.
    capacity : int
        Samples that are held at most between two calls of `take`.
    system : bool
        The windows are a system's, not a program's: what lies before an interrupt, an exception, or
        another step that nothing explains, is left out of them.

    Attributes
    ----------
    gaps : int
        Steps in samples' windows that nothing explains.
    damaged : int
        Messages and words that make no sense.
    cut : int
        Stacks of a system that are shorter for such a step.
    """

    gaps: int
    damaged: int
    cut: int

    def __new__(
        cls, memory: mmap.mmap | bytearray, state: LbrState | BranchFacility, timed: bool = False,
        capacity: int = 4096, system: bool = False,
    ) -> Drain: ...
    def take(self) -> dict[str, npt.NDArray[Any]]:
        """Samples since the last call: columns of `pylbr.perf.batch.SampleBatch`, shape
        (n,); `entries` and `classes` of shape (n, depth), newest first."""

    def gates(self, places: npt.NDArray[np.uint64]) -> None:
        """Where interrupts and exceptions enter the system from now on, ascending."""

    def slots(self) -> list[tuple[int, bool, int, int, int, int]]:
        """Slots in use: (number, done, pid, tid, parent's pid, start in ns)."""

    def free(self, number: int) -> None:
        """Make a slot ready for another thread; its memory must be zero."""

    def poll(self, number: int, shift: int = 0) -> tuple[list[tuple[int, int, bytes]], bool]:
        """Read the messages of a slot, `shift` added to pid and tid of its samples: (type,
        time in ns, bytes) of all but samples, and
        False if samples have filled the room; `take` them then and call again."""

    def chunk(self, number: int, unfinished: bool = False) -> npt.NDArray[np.uint32] | None:
        """The next full chunk of a slot's ring, or what there is of one; None for nothing."""
