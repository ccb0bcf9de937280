"""The shared memory of a recording: an anonymous file that lives as long as its processes."""

from __future__ import annotations

import contextlib
import mmap
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol, Self

import numpy as np

from pylbr.record._wire import (
    BLOCK_DTYPE,
    FULL,
    HEADER_DTYPE,
    MAGIC,
    SAMPLED,
    SLOT_BYTES,
    VERSION,
)
from pylbr.record.wire_numbers import Counted

__all__ = ["DAMAGED", "BlockTables", "Wire", "WireOptions"]

_PAGE: Final = 4096

#: Blocks, with 8 instruction lengths per block; a browser has about 2 million.
_BLOCKS: Final = 1 << 23
_LENGTH_BYTES: Final = 1 << 26
_MESSAGE_BYTES: Final = 1 << 18


#: What is said where memory of a recording makes no sense.
DAMAGED: Final = "the program overwrote words of the recorder; some branches are missing"


class BlockTables(Protocol):
    """The blocks that a recorded program has: a `Wire`, or what another engine shares."""

    @property
    def block_count(self) -> int:
        """See `Wire`."""

    def live_tables(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Wire`."""

    def blocks(self) -> np.ndarray:
        """See `Wire`."""

    def lengths(self) -> np.ndarray:
        """See `Wire`."""


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
    halves : int
        Of a system: whose branches count for `depth`, 1 the programs', 2 the kernel's, 3 both; 0
        for a program.
    counted_halves : int
        Of a system: whose events the period counts, in the same way.
    """

    full: bool = False
    counted: Counted = Counted.BRANCHES
    period: int = 100003
    accept: int = 0x3F
    depth: int = 32
    slots: int = 4096
    halves: int = 0
    counted_halves: int = 0

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
        sizes = {
            "slots": options.slots * SLOT_BYTES, "blocks": _BLOCKS * BLOCK_DTYPE.itemsize,
            "buckets": 2 * _BLOCKS * 4, "lengths": _LENGTH_BYTES,
            "rings": options.slots * options.ring_words * 4,
            "messages": options.slots * _MESSAGE_BYTES,
        }  # fmt: skip
        at, self._places = _PAGE, {}
        for name, size in sizes.items():
            self._places[name] = at
            at += -(-size // _PAGE) * _PAGE
        self._fd = os.memfd_create("pylbr-record")
        os.ftruncate(self._fd, at)
        self.memory = mmap.mmap(self._fd, at)
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"
        self._header = self.header_of(self.memory)
        fields = {
            "magic": MAGIC, "version": VERSION, "mode": FULL if options.full else SAMPLED,
            "counted": options.counted, "period": options.period, "accept": options.accept,
            "depth": options.depth, "halves": options.halves,
            "counted_halves": options.counted_halves, "slots": options.slots, "blocks": _BLOCKS,
            "buckets": 2 * _BLOCKS, "length_bytes": _LENGTH_BYTES,
            "ring_words": options.ring_words, "chunk_words": options.chunk_words,
            "message_bytes": _MESSAGE_BYTES, "size": at, "next_block": 1,
            **{f"{name}_at": place for name, place in self._places.items()},
        }  # fmt: skip
        for name, value in fields.items():
            self._header[name] = value

    @staticmethod
    def header_of(memory: mmap.mmap) -> Any:
        """The header at the start of a recording's memory: members of `wire_header` by name."""
        return np.frombuffer(memory, HEADER_DTYPE, 1)[0]

    def stop(self) -> None:
        """Stop recording in all threads."""
        self._header["stopped"] = 1

    @property
    def lost_threads(self) -> int:
        """Threads without a slot and blocks that did not fit."""
        return int(self._header["lost_threads"])

    def forget(self, slot: int) -> None:
        """Give the memory of a slot back and make it zero."""
        for name, size in (("rings", self.options.ring_words * 4), ("messages", _MESSAGE_BYTES)):
            # MADV_REMOVE: the file has a hole there.
            self.memory.madvise(mmap.MADV_REMOVE, self._places[name] + slot * size, size)

    @property
    def block_count(self) -> int:
        """Blocks in the table so far, with number 0, which is none."""
        return min(int(self._header["next_block"]), _BLOCKS)

    def live_tables(self) -> tuple[np.ndarray, np.ndarray]:
        """The table of blocks and the pool of instruction lengths themselves, whole: what a
        program may write to at any time."""
        return (np.frombuffer(self.memory, BLOCK_DTYPE, _BLOCKS, self._places["blocks"]),
                np.frombuffer(self.memory, np.uint8, _LENGTH_BYTES, self._places["lengths"]))

    def blocks(self) -> np.ndarray:
        """Array of BLOCK_DTYPE: a copy of the table as it is now."""
        table = np.frombuffer(
            self.memory, BLOCK_DTYPE, self.block_count, self._places["blocks"])
        return table.copy()

    def lengths(self) -> np.ndarray:
        """Array of u1: a copy of the pool of instruction lengths as it is now."""
        count = min(int(self._header["next_length"]), _LENGTH_BYTES)
        return np.frombuffer(self.memory, np.uint8, count, self._places["lengths"]).copy()

    def close(self) -> None:
        """Unmap; a reader that is still around, or a process, keeps its own mapping."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._header = None
            with contextlib.suppress(BufferError):
                self.memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        where: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()
