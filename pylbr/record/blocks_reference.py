"""The walk from block numbers to branches in plain Python: slow, obvious, the twin of
`_blocks.BlockWalk`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lbrcore import BRANCH_DTYPE, BranchClass
from pylbr.record.wire_numbers import (
    EVENT,
    KERNEL_ENTRY,
    KERNEL_EXIT,
    NO_BRANCH,
    PAYLOAD,
    PAYLOAD_BITS,
    WordEvent,
)

__all__ = ["BlockWalk"]

_DIRECT = (BranchClass.COND, BranchClass.NEAR_REL_JMP, BranchClass.NEAR_REL_CALL)
_U64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class _Block:
    start: int
    end: int
    last: int
    target: int
    cls: int
    cost: int
    lengths: tuple[int, ...]

    def inside(self, address: int) -> bool:
        return self.start <= address < self.end


class BlockWalk:
    """Rebuilds the branches of one thread; parameters and `feed` as `_blocks.BlockWalk`."""

    def __init__(
        self, blocks: np.ndarray, lengths: np.ndarray, timed: bool = False,
        gates: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        self._blocks, self._lengths, self._timed = blocks, lengths, timed
        self._system = gates is not None
        self._gates = () if gates is None else {int(gate) for gate in gates}
        self._previous: _Block | None = None
        self._previous_number = 0
        self._instructions = self._cycles = 0
        self._payload: list[int] = []
        self._event, self._address = 0, 0
        self._branches: list[tuple] = []
        self.gaps = 0

    def feed(self, words: np.ndarray) -> np.ndarray:
        """See `_blocks.BlockWalk.feed`."""
        self._branches = []
        for i, word in enumerate(int(w) for w in words):
            if word & EVENT:
                self._event = word & (PAYLOAD - 1)
                self._address = sum(
                    bits << PAYLOAD_BITS * n for n, bits in enumerate(self._payload[:3])
                ) & _U64
                self._payload = []
            elif word & PAYLOAD:
                self._payload.append(word & (PAYLOAD - 1))
            elif word == 0 or word >= len(self._blocks):
                raise ValueError(f"word {i}: no block has the number {word}")
            else:
                self._enter(word)
        return np.array(self._branches, BRANCH_DTYPE)

    def _block(self, number: int) -> _Block:
        row = self._blocks[number]
        start, first, count = int(row["start"]), int(row["lengths"]), int(row["instructions"])
        return _Block(
            start, start + int(row["size"]), start + int(row["last"]), int(row["target"]),
            int(row["class"]), int(row["cost"]),
            tuple(int(x) for x in self._lengths[first : first + count]),
        )  # fmt: skip

    def _enter(self, number: int) -> None:
        block, previous = self._block(number), self._previous
        if previous is not None:
            alone = len(block.lengths) == 1 and number != self._previous_number
            if self._event == 0:
                self._leave(previous, block.start, alone)
            elif self._event == WordEvent.SIGRETURN and previous.cls == BranchClass.SYSCALL:
                self._retire(previous)
                self._emit(previous.last, KERNEL_ENTRY, BranchClass.SYSCALL, 3, 0)
                self._emit(KERNEL_EXIT, block.start, BranchClass.IRET, 0, 3)
            else:
                self._deliver(previous, block.start)
        self._event, self._previous, self._previous_number = 0, block, number

    def _retire(self, block: _Block) -> None:
        self._instructions += len(block.lengths)
        self._cycles += block.cost

    def _retire_before(self, block: _Block, address: int) -> None:
        at, n = block.start, 0
        for length in block.lengths:
            if at >= address:
                break
            at, n = at + length, n + 1
        self._instructions += n
        self._cycles += block.cost * n // max(len(block.lengths), 1)

    def _emit(self, from_: int, to: int, cls: int, cpl_from: int, cpl_to: int) -> None:
        cycles = min(self._cycles, 0xFFFFFFFF) if self._timed else 0
        self._branches.append(
            (from_, to, cycles, self._instructions, cls, 0, cpl_from, cpl_to, (0, 0, 0, 0))
        )
        self._instructions = self._cycles = 0

    def _straight_on(self, block: _Block, to: int) -> None:
        if to == block.end:
            self._retire(block)
        elif block.inside(to):
            self._retire_before(block, to)
        else:
            self._gap()

    def _gap(self) -> None:
        self.gaps += 1
        self._instructions = self._cycles = 0

    def _leave(self, block: _Block, to: int, alone: bool) -> None:
        cls, cpl, cpl_to = block.cls, self._cpl(block.last), self._cpl(to)
        if to in self._gates and cls != BranchClass.SOFT_INT:
            self._gap()
            return
        if cls == BranchClass.COND and to == block.end:
            self._retire(block)
            self._emit(block.last, to, BranchClass.NOT_TAKEN, cpl, cpl_to)
            return
        repeated = alone and to == block.start and len(block.lengths) > 1
        if cls == NO_BRANCH or (cls in _DIRECT and (to != block.target or repeated)):
            self._straight_on(block, to)
            return
        if cls == BranchClass.NEAR_REL_CALL and to == block.end:
            cls = BranchClass.ZERO_CALL
        self._retire(block)
        if cls in (BranchClass.SYSCALL, BranchClass.SOFT_INT) and not self._system:
            back = BranchClass.SYSRET if cls == BranchClass.SYSCALL else BranchClass.IRET
            self._emit(block.last, KERNEL_ENTRY, cls, 3, 0)
            self._emit(KERNEL_EXIT, to, back, 0, 3)
        else:
            self._emit(block.last, to, cls, cpl, cpl_to)

    def _cpl(self, address: int) -> int:
        return 0 if self._system and address >> 63 else 3

    def _deliver(self, block: _Block, handler: int) -> None:
        synchronous = self._event == WordEvent.SYNCHRONOUS
        before_last = block.start <= self._address < block.last
        if block.cls == BranchClass.SYSCALL or (
            block.cls == BranchClass.SOFT_INT and not before_last
        ):
            self._retire(block)
            self._emit(block.last, KERNEL_ENTRY, block.cls, 3, 0)
        else:
            # A block that ends in a software interrupt comes here only if that has not run.
            if (synchronous or block.cls == BranchClass.SOFT_INT) and block.inside(self._address):
                self._retire_before(block, self._address)
            else:
                self._leave(block, self._address, False)
            cls = BranchClass.EXCEPTION if synchronous else BranchClass.INTERRUPT
            self._emit(self._address, KERNEL_ENTRY, cls, 3, 0)
        self._emit(KERNEL_EXIT, handler, BranchClass.IRET, 0, 3)
