"""The slow, obvious twin of ``pylbr.x86.blocks``, for tests and comparisons of speed.

It sees the same blocks and reports the same branches, one Python call per block.
"""

from __future__ import annotations

from collections.abc import Callable

from lbrcore.dtypes import BranchClass
from pylbr.x86.facts import (
    BLOCK_FLUSH,
    BLOCK_REP,
    BLOCK_STORE,
    CONDITION_32BIT,
    CONDITION_JRCXZ,
    CONDITION_LOOP,
    CONDITION_LOOPE,
    CONDITION_LOOPNE,
    BlockFacts,
)

__all__ = ["ReferenceBlocks", "condition_holds"]

_OF, _SF, _ZF, _PF, _CF = 0x800, 0x80, 0x40, 0x4, 0x1


def condition_holds(condition: int, flags: int, count: int) -> bool:
    """Was a conditional branch taken?

    Parameters
    ----------
    condition : int
        0..15 as in the opcode of Jcc (SDM vol. 2, appendix B), 16..19 LOOPNE, LOOPE, LOOP and
        JRCXZ, plus 32 if they count in ECX.
    flags, count : int
        RFLAGS and RCX after the instruction.
    """
    if condition & CONDITION_32BIT:
        count &= 0xFFFFFFFF
    kind = condition & 31
    zero, sign, overflow = bool(flags & _ZF), bool(flags & _SF), bool(flags & _OF)
    if kind >= CONDITION_LOOPNE:
        return {
            CONDITION_LOOPNE: count != 0 and not zero, CONDITION_LOOPE: count != 0 and zero,
            CONDITION_LOOP: count != 0, CONDITION_JRCXZ: count == 0,
        }[kind]
    base = (
        overflow, bool(flags & _CF), zero, bool(flags & (_CF | _ZF)), sign, bool(flags & _PF),
        sign != overflow, zero or sign != overflow,
    )[kind >> 1]
    return base != bool(kind & 1)


class ReferenceBlocks:
    """Twin of `pylbr.x86.blocks.BlockRecorder`.

    Parameters
    ----------
    record : callable
        Takes (from, to, class, cpl_from, cpl_to, instructions since the last call).
    classify : callable
        Takes (address, size), returns `BlockFacts`, or None if the block will be entered again.
    registers : callable
        Returns (CS, RFLAGS, RCX); RFLAGS is None if the host cannot read them.
    log_not_taken : bool
        Report conditional branches that fell through, as the log of the twin does.
    """

    def __init__(
        self,
        record: Callable[[int, int, int, int, int, int], None],
        classify: Callable[[int, int], BlockFacts | None],
        registers: Callable[[], tuple[int, int | None, int]],
        log_not_taken: bool = True,
    ) -> None:
        self._record, self._classify, self._registers = record, classify, registers
        self._log_not_taken = log_not_taken
        self._known: dict[int, tuple[int, BlockFacts]] = {}
        self._previous: tuple[int, int, BlockFacts] | None = None
        self._event: tuple[int, int | None, int | None] | None = None
        self._marked = 0
        self.cpl = self.instructions = self.taken = self.not_taken = self.unexplained = 0

    def enter(self, address: int, size: int) -> None:
        """The emulator is about to execute the `size` bytes at `address`."""
        if self._previous and self._previous[2][5] & BLOCK_FLUSH:
            self._known.clear()
        known = self._known.get(address)
        if known is None or known[0] != size:
            facts = self._classify(address, size)
            if facts is None:
                return
            known = self._known[address] = size, facts
        if self._previous:
            start, end, _ = self._previous
            self._leave(address, bool(known[1][5] & BLOCK_STORE) and (
                start < address < end or start == address and end - start > size))
        elif self._event:
            self._finish(address)
        self._previous = address, address + size, known[1]

    def translated(self, address: int) -> None:
        """The block at `address` was retranslated."""
        self._known.pop(address, None)

    def interrupted(self, address: int, cls: int | None, served: bool = False) -> None:
        """An exception or interrupt of class `cls` was raised at `address`."""
        resume = address if served else None
        if self._previous:
            start, end, facts = self._previous
            if cls == BranchClass.SOFT_INT and address == end:
                self.instructions += facts[0]
                address = facts[1]
            elif start <= address < end:
                if address > start:
                    self.instructions += self._executed(start, address)
            else:
                self._leave(address, False)
        elif self._event:
            self._finish(address)
        self._previous, self._event = None, (address, cls, resume)

    def _executed(self, start: int, end: int) -> int:
        facts = self._classify(start, end - start)
        assert facts is not None
        return facts[0]

    def _leave(self, to: int, cut: bool) -> None:
        assert self._previous is not None
        start, end, (count, last, cls, target, condition, flags) = self._previous
        if cut:
            self.instructions += self._executed(start, to) if to > start else 0
            return
        self.instructions += count
        if cls is None or cls == BranchClass.ZERO_CALL:
            if flags & BLOCK_REP and to == last:
                self.instructions -= 1
            elif to != (end if cls is None else target):
                self.unexplained += 1
        elif cls > BranchClass.NEAR_RET:
            if to != end or cls not in (BranchClass.SYSCALL, BranchClass.SOFT_INT):
                self._tell(last, to, cls, self._registers()[0] & 3)
        elif cls == BranchClass.COND and to == end and (
            target != to or not self._holds(condition)
        ):
            self.not_taken += 1
            if self._log_not_taken:
                self._tell(last, to, BranchClass.NOT_TAKEN, self.cpl)
        elif target is not None and to != target:
            self.unexplained += 1
        else:
            self._tell(last, to, cls, self.cpl)

    def _holds(self, condition: int) -> bool:
        """Was a branch to the next instruction taken?  Without flags, it counts as not taken."""
        _, flags, count = self._registers()
        return flags is not None and condition_holds(condition, flags, count)

    def _finish(self, to: int) -> None:
        assert self._event is not None
        (source, cls, resume), self._event = self._event, None
        if resume is not None and resume <= to <= resume + 15:
            return
        if cls is None:
            self.cpl = self._registers()[0] & 3
        else:
            self._tell(source, to, cls, self._registers()[0] & 3)

    def _tell(self, source: int, to: int, cls: int, cpl: int) -> None:
        self.taken += cls not in (BranchClass.NOT_TAKEN, BranchClass.ZERO_CALL)
        self._record(source, to, cls, self.cpl, cpl, self.instructions - self._marked)
        self._marked, self.cpl = self.instructions, cpl
