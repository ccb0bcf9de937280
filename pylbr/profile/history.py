"""Branch history: the ways by which programs come to where samples find them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from pylbr.perf.abi import EntryFlag
from pylbr.perf.stacks import Samples

__all__ = ["Paths"]


class Paths:
    """Counts of the newest `length` branches of each sample.

    Parameters
    ----------
    length : int
        Branches of a path; samples with fewer are not counted.
    """

    def __init__(self, length: int = 4) -> None:
        if length < 1:
            raise ValueError(f"a path of {length} branches; it takes at least one")
        self.length = length
        self.samples = 0
        self._counts: Counter[bytes] = Counter()

    def add(self, samples: Samples) -> None:
        """Count the path of each sample."""
        samples = _taken(samples)
        starts = samples.offsets[:-1]
        long_enough = np.flatnonzero(np.diff(samples.offsets) >= self.length)
        rows = starts[long_enough][:, None] + np.arange(self.length)
        keys = np.empty((len(rows), 1 + 2 * self.length), "u8")
        keys[:, 0] = samples.pid[long_enough].astype("i8").view("u8")
        keys[:, 1::2] = samples.entries["from"][rows]
        keys[:, 2::2] = samples.entries["to"][rows]
        unique, counts = np.unique(keys, axis=0, return_counts=True)
        for key, count in zip(unique, counts.tolist(), strict=True):
            self._counts[key.tobytes()] += count
        self.samples += len(rows)

    def clear(self) -> None:
        """Forget everything that was counted."""
        self.samples = 0
        self._counts.clear()

    def moved(self, place: Callable[[int, int], int], weight: int) -> Iterator[
            tuple[int, list[int]]]:
        """(count times `weight`, [FROM, TO, ... newest first]) of each path, with what `place`
        makes of the process and address in place of the address."""
        for key, count in self._counts.items():
            words = np.frombuffer(key, "u8")
            pid = int(words[:1].view("i8")[0])
            yield count * weight, [place(pid, address) for address in words[1:].tolist()]

    def add_path(self, addresses: list[int], count: int) -> None:
        """Count one path of process 0, `count` times."""
        self._counts[np.array([0, *addresses], "u8").tobytes()] += count
        self.samples += count

    def most_common(self, limit: int) -> list[tuple[int, int, list[tuple[int, int]]]]:
        """(count, pid, [(from, to), ... newest first]) of the most frequent paths."""
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        result = []
        for key, count in ordered[:limit]:
            words = np.frombuffer(key, "u8")
            pid = int(words[:1].view("i8")[0])
            branches = list(zip(words[1::2].tolist(), words[2::2].tolist(), strict=True))
            result.append((count, pid, branches))
        return result


def _taken(samples: Samples) -> Samples:
    """The samples without empty entries and branches that were not taken."""
    entries = samples.entries
    kept = (entries["from"] | entries["to"] != 0) & (
        entries["flags"] & np.uint64(EntryFlag.NOT_TAKEN) == 0
    )
    if kept.all():
        return samples
    before = np.concatenate([[0], np.cumsum(kept)])
    return replace(samples, offsets=before[samples.offsets], entries=entries[kept])
