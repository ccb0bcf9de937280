"""What single processors do to the records that a sample finds, off by default."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lbrcore.replay import SampleBuffer
from pylbr.arch.choices import SKYLAKE_DOUBLED, SKYLAKE_STACKS

__all__ = ["QUIRKS", "double_newest", "is_doubled"]

#: Names that `SampleSetup.quirks` takes.
QUIRKS = ("doubled-newest",)


def is_doubled(time: NDArray[np.uint64], seed: int) -> NDArray[np.bool_]:
    """Which samples have their newest record twice: a draw each, by splitmix64 of its time.

    Parameters
    ----------
    time : ndarray of u8, shape (n,)
        Index of the branch before the sample: engines, threads and chunks change nothing.
    seed : int
        64 bits.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    z = np.uint64(seed) + (time + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) % np.uint64(SKYLAKE_STACKS) < np.uint64(SKYLAKE_DOUBLED)


def double_newest(out: SampleBuffer, time: NDArray[np.uint64], seed: int) -> None:
    """Write the newest record of some samples a second time, in place.

    The second one is a record like any other: TOS moves on, and a full stack loses its oldest.

    Parameters
    ----------
    out : SampleBuffer
    time : ndarray of u8, shape (out.count,)
    seed : int
    """
    chosen = np.flatnonzero(is_doubled(time, seed) & (out.nr[:out.count] > 0))
    for records in (out.entries, out.classes):
        records[chosen, 1:] = records[chosen, :-1]
    out.nr[chosen] = np.minimum(out.nr[chosen] + 1, out.depth)
    out.hw_idx[chosen] = (out.hw_idx[chosen] + np.uint64(1)) % np.uint64(out.depth)
