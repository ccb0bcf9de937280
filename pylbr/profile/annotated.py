"""Instructions of a routine with what was counted of each, and its basic blocks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pylbr.profile.disassembly import Instruction, disassemble
from pylbr.profile.routines import Routine, edges_within

__all__ = ["Annotated", "Block", "BlockEdge", "annotate", "executed_through", "spread"]

_LARGEST: Final = 1 << 20  # bytes of code: a symbol may claim any size


@dataclass(frozen=True, slots=True)
class Block:
    """Instructions `first` to `last`, by index, that are executed together.

    `count` passes; `cycles` in all of them that carry cycles, None where none does.
    """

    first: int
    last: int
    count: int
    cycles: float | None


@dataclass(frozen=True, slots=True)
class BlockEdge:
    """A way from one block to another, by index: taken, or by falling through."""

    source: int
    target: int
    count: int
    mispredicted: int
    taken: bool


@dataclass(eq=False)
class Annotated:
    """A routine's code with its counts.

    Attributes
    ----------
    routine : Routine
    instructions : list of Instruction
    counts : ndarray of int64, shape (n,)
        Passes through each instruction in the straight runs that were recorded.
    through : ndarray of int64, shape (n,)
        Of these, those that went on to the next instruction without a taken branch.
    cycles : ndarray of float64, shape (n,), or None
        Cycles of the runs, divided evenly over the instructions of each; None: not measured.
    timed : ndarray of int64, shape (n,)
        Passes that carry cycles.
    """

    routine: Routine
    instructions: list[Instruction]
    counts: NDArray[np.int64]
    through: NDArray[np.int64]
    cycles: NDArray[np.float64] | None
    timed: NDArray[np.int64]

    def index(self, address: int) -> int:
        """Index of the instruction that covers a link address."""
        return _index(self.instructions, address)

    def blocks(self) -> tuple[list[Block], list[BlockEdge]]:
        """Basic blocks of what was executed, by address, and the ways between them."""
        leaders = self._leaders()
        blocks: list[Block] = []
        number: dict[int, int] = {}
        for at in range(len(self.instructions)):
            if not self.counts[at]:
                continue
            if at in leaders or at == 0 or not self.counts[at - 1]:
                blocks.append(Block(at, at, 0, None))
            else:
                blocks[-1] = replace(blocks[-1], last=at)
            number[at] = len(blocks) - 1
        blocks = [self._counted(block) for block in blocks]
        ways: Counter[tuple[int, int, bool]] = Counter()
        missed: Counter[tuple[int, int, bool]] = Counter()
        for source, target, count, mispredicted in edges_within(self.routine):
            ends = number.get(self.index(source)), number.get(self.index(target))
            if ends[0] is not None and ends[1] is not None:
                ways[ends[0], ends[1], True] += count
                missed[ends[0], ends[1], True] += mispredicted
        for i, block in enumerate(blocks[:-1]):
            if blocks[i + 1].first == block.last + 1 and self.through[block.last]:
                ways[i, i + 1, False] += int(self.through[block.last])
        return blocks, [BlockEdge(*key[:2], count, missed[key], key[2])
                        for key, count in sorted(ways.items())]

    def _leaders(self) -> set[int]:
        """Where blocks begin: what branches lead to, and what follows them."""
        start, end = self.routine.start, self.routine.end
        found: set[int] = set()
        for source, target, _, _ in edges_within(self.routine):
            found |= {self.index(source) + 1, self.index(target)}
        found |= {self.index(leaving.source) + 1 for leaving in self.routine.leaving}
        found |= {self.index(arrival.target) for arrival in self.routine.arriving}
        for i, one in enumerate(self.instructions):
            if one.branches:
                found.add(i + 1)
                if one.target is not None and start <= one.target < end and self.counts[i]:
                    found.add(self.index(one.target))
        return found

    def _counted(self, block: Block) -> Block:
        at = slice(block.first, block.last + 1)
        cycles = None
        if self.cycles is not None and self.timed[at].any():
            cycles = float(self.cycles[at].sum())
        return replace(block, count=int(self.counts[at].max()), cycles=cycles)


def _index(instructions: list[Instruction], address: int) -> int:
    low, high = 0, len(instructions)
    while low < high:
        middle = (low + high) // 2
        if instructions[middle].address <= address:
            low = middle + 1
        else:
            high = middle
    return max(low - 1, 0)


def spread(first: NDArray[np.int64], last: NDArray[np.int64], weight: NDArray[np.float64],
           size: int) -> NDArray[np.float64]:
    """Add the weight of each stretch `first` to `last`, both included, to all that it covers.

    Parameters
    ----------
    first, last : ndarray of int64, shape (k,)
        Indices below `size`; a stretch with `last` before `first` covers nothing.
    weight : ndarray of float64, shape (k,)
    size : int

    Returns
    -------
    ndarray of float64, shape (size,)
    """
    real = last >= first
    steps = np.zeros(size + 1)
    np.add.at(steps, first[real], weight[real])
    np.add.at(steps, last[real] + 1, -weight[real])
    return np.cumsum(steps)[:size]


def executed_through(first: NDArray[np.int64], last: NDArray[np.int64],
                     count: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """How often each instruction was followed by the next one without a taken branch.

    Parameters and result as those of `spread`.
    """
    return spread(first, last - 1, count, size)


def annotate(routine: Routine, syntax: str = "att") -> Annotated:
    """Disassemble a routine and count its instructions.

    Parameters
    ----------
    routine : Routine
    syntax : str
        One of `pylbr.profile.disassembly.SYNTAXES`.

    Raises
    ------
    OSError
        The file cannot be read any more.
    ValueError
        Its code is not in the file, or of more than 1 MiB.
    UnsupportedFeature
        There is no disassembler for its machine.
    """
    image = routine.image
    if routine.end - routine.start > _LARGEST:
        raise ValueError(f"{image.path}: {routine} claims {routine.end - routine.start:,} bytes")
    code = image.code(routine.start, routine.end)
    instructions = disassemble(code, routine.start, image.machine, syntax)
    passages = routine.passages
    size = len(instructions)
    first = np.array([_index(instructions, p.first) for p in passages], np.int64)
    last = np.array([_index(instructions, p.last) for p in passages], np.int64)

    def column(name: str) -> NDArray[np.float64]:
        return np.array([getattr(p, name) for p in passages], np.float64)

    counts = spread(first, last, column("count"), size)
    through = executed_through(first, last, column("count"), size)
    timed = spread(first, last, column("timed"), size)
    cycles = None
    if timed.any():
        cycles = spread(first, last, column("cycles") / (last - first + 1), size)
    whole = [np.rint(values).astype(np.int64) for values in (counts, through, timed)]
    return Annotated(routine, instructions, whole[0], whole[1], cycles, whole[2])
