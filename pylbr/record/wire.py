"""The shared memory of a recording: an anonymous file that lives as long as its processes."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import numpy as np

from pylbr.record.constants import BLOCK_DTYPE, Counted

__all__ = ["Wire", "WireOptions"]

_HEADER: Final = "<4IQ10I7Q4IQ"
_STOPPED_AT: Final = 120
_LOST_AT: Final = 136
_MAGIC, _VERSION = 0x4552424C, 1
_SLOT_BYTES: Final = 128
_PAGE: Final = 4096

#: Blocks, with room for one instruction length each of 8 a block; a browser has about 2 million.
_BLOCKS: Final = 1 << 23
_LENGTH_BYTES: Final = 1 << 26
_MESSAGE_BYTES: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class WireOptions:
    """What the plugin does.

    Attributes
    ----------
    full : bool
        Hand over every block, not samples.
    counted : Counted
    period : int
        Of the counted event; nanoseconds for TIME.
    accept : int
        Bit per `lbrcore.BranchClass`: what a sample's window must hold `depth` of.
    depth : int
    slots : int
        Threads at a time.
    """

    full: bool = False
    counted: Counted = Counted.BRANCHES
    period: int = 100003
    accept: int = 0x3F
    depth: int = 32
    slots: int = 4096

    @property
    def ring_words(self) -> int:
        """Of each thread: 64 KiB to look back in, or 4 MiB to be drained."""
        return 1 << 20 if self.full else 1 << 14

    @property
    def chunk_words(self) -> int:
        return 1 << 16 if self.full else 1 << 12


class Wire:
    """Creates the memory; pages come into being as they are written.

    Attributes
    ----------
    path : str
        Under which processes of the same user open it while this one lives.
    memory : mmap.mmap
    """

    def __init__(self, options: WireOptions) -> None:
        self.options = options
        at, places = _PAGE, []
        for size in (
            options.slots * _SLOT_BYTES, _BLOCKS * BLOCK_DTYPE.itemsize, 2 * _BLOCKS * 4,
            _LENGTH_BYTES, options.slots * options.ring_words * 4,
            options.slots * _MESSAGE_BYTES,
        ):  # fmt: skip
            places.append(at)
            at += -(-size // _PAGE) * _PAGE
        self._places = dict(
            zip(("slots", "blocks", "buckets", "lengths", "rings", "messages"), places, strict=True)
        )
        self._fd = os.memfd_create("pylbr-record")
        os.ftruncate(self._fd, at)
        self.memory = mmap.mmap(self._fd, at)
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"
        self.memory[: struct.calcsize(_HEADER)] = struct.pack(
            _HEADER, _MAGIC, _VERSION, options.full, options.counted, options.period,
            options.accept, options.depth, options.slots, _BLOCKS, 2 * _BLOCKS, _LENGTH_BYTES,
            options.ring_words, options.chunk_words, _MESSAGE_BYTES, 0, *places, at,
            0, 1, 0, 0, 0,
        )  # fmt: skip

    def stop(self) -> None:
        """Tell all threads to record no more."""
        self.memory[_STOPPED_AT : _STOPPED_AT + 4] = b"\1\0\0\0"

    @property
    def lost_threads(self) -> int:
        """Threads that found no slot and blocks that found no room."""
        return int.from_bytes(self.memory[_LOST_AT : _LOST_AT + 8], "little")

    def forget(self, slot: int) -> None:
        """Give the memory of a slot back and make it zero."""
        for name, size in (("rings", self.options.ring_words * 4), ("messages", _MESSAGE_BYTES)):
            # MADV_REMOVE: the file has a hole there.
            self.memory.madvise(mmap.MADV_REMOVE, self._places[name] + slot * size, size)

    def blocks(self) -> np.ndarray:
        """Array of BLOCK_DTYPE: a copy of the table as it is now."""
        count = min(int.from_bytes(self.memory[124:128], "little"), _BLOCKS)
        return np.frombuffer(self.memory, BLOCK_DTYPE, count, self._places["blocks"]).copy()

    def lengths(self) -> np.ndarray:
        """Array of u1: a copy of the pool of instruction lengths as it is now."""
        count = min(int.from_bytes(self.memory[128:132], "little"), _LENGTH_BYTES)
        return np.frombuffer(self.memory, np.uint8, count, self._places["lengths"]).copy()

    def close(self) -> None:
        """Unmap; a reader that is still around, or a process, keeps its own mapping."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(BufferError):
                self.memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        where: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()
