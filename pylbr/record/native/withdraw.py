"""Takes the blob out of a stopped process again."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pylbr.record.native.batch import STACK, STACK_ROOM, Call, swap_stacks
from pylbr.record.native.blob import HANDLER_SIZE, NATIVE_SLOTS, Blob
from pylbr.record.native.frames import NO_STACK, Frame, frames
from pylbr.record.native.inject import ACTION, GUARDED, Injection
from pylbr.record.native.patches import CALL
from pylbr.record.native.perf import SIGNAL
from pylbr.record.native.ptrace import Tracee, settle
from pylbr.record.native.ranges import mappings
from pylbr.record.native.ticks import is_tick

__all__ = ["inside", "withdraw"]

_MMAP, _MUNMAP, _SIGACTION, _SIGTIMEDWAIT = 9, 11, 13, 128
_READ, _WRITE, _PRIVATE, _ANONYMOUS = 1, 2, 2, 0x20
_PAGE: Final = 4096
_EVERY: Final = (1 << 64) - 1


def inside(tracees: Sequence[Tracee], injection: Injection) -> list[Tracee]:
    """Those of the threads that execute code of the recorder.

    None sleeps there: the blob makes no system call that waits.
    """
    return [t for t in tracees if _is_in(t.registers().rip, injection.own)]


def withdraw(
    tracees: Sequence[Tracee], blob: Blob, injection: Injection, blocked: Sequence[int]
) -> bool:
    """Take the blob out of a process whose threads are all stopped, none of them in it.

    Parameters
    ----------
    tracees : sequence of Tracee
    blob : Blob
    injection : Injection
    blocked : sequence of int
        Threads that blocked the tick signal before the recorder unblocked it.

    Returns
    -------
    bool
        False: its memory stays mapped, since a handler of a signal will return through it.
        Nothing leads there otherwise.
    """
    return _Withdrawal(tracees, blob, injection).run(blocked)


def _is_in(address: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(low <= address < high for low, high in ranges)


@dataclass(slots=True)
class _Withdrawal:
    tracees: Sequence[Tracee]
    blob: Blob
    injection: Injection

    def run(self, blocked: Sequence[int]) -> bool:
        first, own, batch = self.tracees[0], self.injection.own, self.injection.batch
        found = mappings(first.tid)
        saved = [(t, t.registers(), t.swap_mask(_EVERY)) for t in self.tracees]
        for site in self.injection.patched:
            first.write(site, CALL)
        for tracee in self.tracees:
            self._discard_tick(tracee)
        self._restore_actions()
        needed = False
        for tracee, registers, _ in saved:
            needed |= _is_in(registers.rsp, own)
            for frame in frames(tracee, registers.rsp, found):
                needed |= _is_in(frame.returns, own) or _is_in(frame.rip, own)
                self._forget_stack(tracee, frame)
        self._take_stacks()
        if not needed:
            (page, end), *others = own
            batch.checked(first, *((_MUNMAP, low, high - low) for low, high in others))
            first.call(_MUNMAP, page, end - page)  # the code of `batch`
        for tracee, _, mask in saved:
            tracee.swap_mask(mask | (1 << SIGNAL - 1) * (tracee.tid in blocked))
        settle([saved[0][:2]])
        return not needed

    def _symbol(self, name: str) -> int:
        return self.injection.base + self.blob.symbols[name]

    def _discard_tick(self, tracee: Tracee) -> None:
        """Take back a tick that is on its way: it would reach a handler of the program."""
        if any(is_tick(info) for info in tracee.pending()):
            scratch = self._symbol("scratch")
            tracee.write(scratch, struct.pack("<QQQ", 1 << SIGNAL - 1, 0, 0))  # set, no waiting
            self.injection.batch.run(tracee, [(_SIGTIMEDWAIT, scratch, 0, scratch + 8, 8)])

    def _restore_actions(self) -> None:
        """Give the kernel what the program had asked for."""
        first, batch = self.tracees[0], self.injection.batch
        scratch, handlers = self._symbol("scratch"), self._symbol("handlers")
        fields = self.blob.types["state"].fields
        assert fields is not None
        at = self._symbol("state") + fields["slots"][1]
        slots = np.frombuffer(first.read(at, fields["slots"][0].itemsize), self.blob.types["slot"])
        asked = [(number, scratch + i * ACTION.size)
                 for i, number in enumerate((SIGNAL, *GUARDED))]
        batch.checked(first, *((_SIGACTION, number, 0, at, 8) for number, at in asked))
        given: list[Call] = []
        for number, at in asked:
            handler, *_ = ACTION.unpack(first.read(at, ACTION.size))
            if handlers <= handler < handlers + NATIVE_SLOTS * HANDLER_SIZE:
                slot = slots[(handler - handlers) // HANDLER_SIZE]
                words = (int(slot[name]) for name in ("handler", "flags", "restorer", "mask"))
                first.write(at, ACTION.pack(*words))
                given.append((_SIGACTION, number, at, 0, 8))
        if given:
            batch.checked(first, *given)

    def _is_own_stack(self, stack: int) -> bool:
        start, size, count = self.injection.threads
        return start <= stack < start + count * size

    def _forget_stack(self, tracee: Tracee, frame: Frame) -> None:
        """A handler's return would set the recorder's alternate stack again."""
        if self._is_own_stack(frame.stack):
            tracee.write(frame.stack_at, NO_STACK)

    def _take_stacks(self) -> None:
        """Disable the alternate stacks of threads that are the recorder's; one that is on it keeps
        it, and so its memory stays."""
        first, batch = self.tracees[0], self.injection.batch
        size = -(-len(self.tracees) * STACK_ROOM // _PAGE) * _PAGE
        (room,) = batch.checked(first, (
            _MMAP, 0, size, _READ | _WRITE, _PRIVATE | _ANONYMOUS, -1, 0))
        swap_stacks(
            batch,
            ((tracee, room + i * STACK_ROOM, NO_STACK)
             for i, tracee in enumerate(self.tracees)),
            lambda old: not self._is_own_stack(STACK.unpack(old)[0]),
        )
        batch.checked(first, (_MUNMAP, room, size))
