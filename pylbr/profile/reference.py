"""The slow, obvious twin of what `pylbr.profile` has compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pylbr.perf.abi import EntryFlag
from pylbr.perf.stacks import Samples
from pylbr.profile.dtypes import PAIR_DTYPE

__all__ = ["PairTable"]

_ALL_ONES = (1 << 64) - 1


class PairTable:
    """Twin of `pylbr.profile._aggregate.PairTable`."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, int, int, int], list[int]] = {}
        self.flags = self.not_taken = 0

    def __len__(self) -> int:
        return len(self._rows)

    def _count(
        self, pid: int, first: int, last: int, origin: int, flags: int = 0, cycles: int = 0
    ) -> None:
        row = self._rows.setdefault((pid, first, last, origin), [0, 0, 0, 0])
        for column, amount in enumerate((1, flags & 3 == 1, cycles, cycles != 0)):
            row[column] += amount

    def add_edges(self, samples: Samples) -> int:
        counted = 0
        for i in range(len(samples)):
            for source, target, flags in samples.stack(i).tolist():
                if source == target == 0:
                    continue
                if flags & EntryFlag.NOT_TAKEN:
                    self.not_taken += 1
                    continue
                self.flags |= flags
                counted += 1
                self._count(int(samples.pid[i]), source, target, 0, flags, flags >> 4 & 0xFFFF)
        return counted

    def add_runs(self, samples: Samples) -> int:
        broken = 0
        for i in range(len(samples)):
            newer, cycles = None, 0
            for source, target, flags in samples.stack(i).tolist():
                own = flags >> 4 & 0xFFFF
                if source == target == 0:
                    newer = None
                elif flags & EntryFlag.NOT_TAKEN:
                    cycles += own
                else:
                    if newer is not None and newer[0] < target:
                        broken += 1
                    elif newer is not None:
                        self._count(int(samples.pid[i]), target, newer[0], source, newer[1], cycles)
                    newer, cycles = (source, flags), own
        return broken

    def add_ips(self, samples: Samples) -> None:
        for ip, pid in zip(samples.ip.tolist(), samples.pid.tolist(), strict=True):
            self._count(pid, ip, 0, 0)

    def to_array(self) -> NDArray[np.void]:
        rows = [
            (first, last, origin, *row, pid)
            for (pid, first, last, origin), row in sorted(self._rows.items())
        ]
        return np.array(rows, PAIR_DTYPE)
