"""How much of a thread's CPU time each stack stands for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pylbr.record.native.ticks import Ticks

__all__ = ["Weights"]


class Weights:
    """Ticks of the CPU clock are all alike; those of another clock share what the thread has used.

    Parameters
    ----------
    ticks : Ticks
    """

    def __init__(self, ticks: Ticks) -> None:
        self._ticks = ticks
        self._spent: dict[int, int] = {}

    def of(
        self, keys: NDArray[np.uint32], weights: NDArray[np.uint64]
    ) -> NDArray[np.uint64]:
        """Nanoseconds of each stack.

        Parameters
        ----------
        keys : ndarray of u4, shape (n,)
            Whose ticks they are.
        weights : ndarray of u8, shape (n,)
            Nanoseconds by the clock that ticks.
        """
        if self._ticks.exact:
            return weights
        weights = weights.copy()
        for key in np.unique(keys).tolist():
            mine = keys == key
            now = self._ticks.spent(key)
            used = now - self._spent.get(key, now)
            self._spent[key] = now
            if used > 0:
                share = weights[mine] / weights[mine].sum()
                weights[mine] = np.maximum(used * share, 1).astype(np.uint64)
        return weights

    def forget(self, key: int) -> None:
        """The key may be another thread's from now on."""
        self._spent.pop(key, None)
