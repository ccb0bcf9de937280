"""The memory that a recorded program and the processes that it forks share with pylbr."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from pylbr.record.native.blob import Blob
from pylbr.record.native.ranges import to_array

__all__ = ["RING", "Image", "Limits"]

#: Stacks that wait for pylbr.
RING: Final = 4096
#: Nanoseconds that no stack stands for: a day.
_HEAVIEST: Final = 86_400_000_000_000
_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """What a window is.

    Attributes
    ----------
    depth : int
        Accepted branches.
    accept : int
        Bit per `lbrcore.BranchClass`.
    blocks, cycles : int
        It ends after so many blocks or TSC cycles.
    rest : int
        A window of n cycles is followed by n * rest / 256 without one.
    tick_cost : int
        TSC cycles of a tick beyond its handler.
    gap : int
        Taken branches between two windows of a tick, on average.
    """

    depth: int
    accept: int
    blocks: int
    cycles: int
    rest: int
    tick_cost: int
    gap: int = 0


class Image:
    """Memory file: `shared` of abi.h, the ring, the blob.

    Parameters
    ----------
    fd : int
        The file, empty.
    blob : Blob
    limits : Limits

    Attributes
    ----------
    shared_size, ring_size : int
        Bytes, whole pages; the ring and the blob follow.
    damaged : int
        Stacks that make no sense.
    """

    def __init__(self, fd: int, blob: Blob, limits: Limits) -> None:
        shared, record = blob.types["shared"], blob.types["record"]
        self.shared_size = -(-shared.itemsize // _PAGE) * _PAGE
        self.ring_size = RING * record.itemsize
        self.damaged = 0
        size = self.shared_size + self.ring_size
        os.ftruncate(fd, size + len(blob.image))
        os.pwrite(fd, blob.image, size)
        self._memory = mmap.mmap(fd, size)
        self._shared = np.frombuffer(self._memory, shared, 1)[0:1]
        self._ring = np.frombuffer(self._memory, record, RING, self.shared_size)
        self._range = blob.types["range"]
        self._tail = 0
        self._ranges: set[tuple[int, int, int]] = set()
        for name, value in (
            ("depth", limits.depth), ("accept", limits.accept), ("blocks_max", limits.blocks),
            ("cycles_max", limits.cycles), ("rest", limits.rest),
            ("tick_cost", limits.tick_cost), ("gap", limits.gap), ("generation", 1),
        ):  # fmt: skip
            self._shared[name] = value

    def close(self) -> None:
        """Unmap: no process that writes here is left."""
        del self._shared, self._ring
        with contextlib.suppress(BufferError):
            self._memory.close()

    def stop(self) -> None:
        """Make no more windows."""
        self._shared["stopped"] = 1

    def tick(self, burst: int, period: int) -> None:
        """Each tick makes `burst` windows, and comes `period` ns after the one before."""
        self._shared["burst"], self._shared["period"] = burst, period

    def counts(self, name: str) -> np.ndarray:
        """`skipped`, `ended`, `full`, `ticks` or `left_out` of abi.h: a copy."""
        return np.array(self._shared[name][0])

    def publish(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        """Register executable memory with the blob: (start, end, kind)."""
        wanted = set(ranges)
        if wanted == self._ranges:
            return
        table = to_array(wanted, self._range)[: len(self._shared["ranges"][0])]
        kept = self._ranges <= wanted
        self._ranges = wanted
        self._shared["version"] += 1
        self._shared["range_count"] = len(table)
        self._shared["ranges"][0, : len(table)] = table
        self._shared["version"] += 1
        if not kept:
            self._shared["generation"] += 1

    def take(self) -> np.ndarray:
        """Stacks since the last call: a copy, `record` of abi.h."""
        parts = []
        for _ in range(2):  # up to the ring's end, and from its start
            at, filled = self._tail % RING, np.uint64(self._tail // RING * 2 + 1)
            same = self._ring["sequence"][at:] == filled
            count = len(same) if same.all() else int(same.argmin())
            if not count:
                break
            parts.append(self._ring[at : at + count].copy())
            self._ring["sequence"][at : at + count] += np.uint64(1)
            self._tail += count
        if not parts:
            return self._ring[:0].copy()
        return self._checked(np.concatenate(parts))

    def _checked(self, records: np.ndarray) -> np.ndarray:
        good = (records["count"] <= self._shared["depth"][0]) & (records["count"] > 0)
        good &= (records["weight"] > 0) & (records["weight"] < _HEAVIEST)
        good &= (records["classes"] < 16).all(axis=1)
        self.damaged += int(len(good) - good.sum())
        return records[good]
