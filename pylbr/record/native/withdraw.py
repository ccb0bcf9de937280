"""Takes the blob out of a stopped process again."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np

from pylbr.record.native.blob import HANDLER_SIZE, NATIVE_SLOTS, Blob
from pylbr.record.native.frames import NO_STACK, Frame, frames
from pylbr.record.native.inject import GUARDED, Injection
from pylbr.record.native.patches import CALL
from pylbr.record.native.perf import SIGNAL
from pylbr.record.native.ptrace import Tracee, settle
from pylbr.record.native.ranges import mappings
from pylbr.record.native.ticks import is_tick

__all__ = ["inside", "withdraw"]

_MUNMAP, _SIGACTION, _SIGALTSTACK, _SIGTIMEDWAIT = 11, 13, 131, 128
_EVERY: Final = (1 << 64) - 1
_STACK: Final = struct.Struct("<QQQ")  # stack_t


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
        first, own = self.tracees[0], self.injection.own
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
            self._take_stack(tracee)
        if not needed:
            for low, high in own:
                first.call(_MUNMAP, low, high - low)
        for tracee, _, mask in saved:
            tracee.swap_mask(mask | (1 << SIGNAL - 1) * (tracee.tid in blocked))
        settle((tracee, registers) for tracee, registers, _ in saved)
        return not needed

    def _symbol(self, name: str) -> int:
        return self.injection.base + self.blob.symbols[name]

    def _discard_tick(self, tracee: Tracee) -> None:
        """Take back a tick that is on its way: it would reach a handler of the program."""
        if any(is_tick(info) for info in tracee.pending()):
            scratch = self._symbol("scratch")
            tracee.write(scratch, struct.pack("<QQQ", 1 << SIGNAL - 1, 0, 0))  # set, no waiting
            with suppress(OSError):
                tracee.call(_SIGTIMEDWAIT, scratch, 0, scratch + 8, 8)

    def _restore_actions(self) -> None:
        """Give the kernel what the program had asked for."""
        first = self.tracees[0]
        scratch, handlers = self._symbol("scratch"), self._symbol("handlers")
        fields = self.blob.types["state"].fields
        assert fields is not None
        at = self._symbol("state") + fields["slots"][1]
        slots = np.frombuffer(first.read(at, fields["slots"][0].itemsize), self.blob.types["slot"])
        for number in (SIGNAL, *GUARDED):
            first.call(_SIGACTION, number, 0, scratch, 8)
            handler, *_ = struct.unpack("<4Q", first.read(scratch, 32))
            if handlers <= handler < handlers + NATIVE_SLOTS * HANDLER_SIZE:
                slot = slots[(handler - handlers) // HANDLER_SIZE]
                words = (int(slot[name]) for name in ("handler", "flags", "restorer", "mask"))
                first.write(scratch, struct.pack("<4Q", *words))
                first.call(_SIGACTION, number, scratch, 0, 8)

    def _is_own_stack(self, stack: int) -> bool:
        start, size, count = self.injection.threads
        return start <= stack < start + count * size

    def _forget_stack(self, tracee: Tracee, frame: Frame) -> None:
        """A handler's return would set the recorder's alternate stack again."""
        if self._is_own_stack(frame.stack):
            tracee.write(frame.stack_at, NO_STACK)

    def _take_stack(self, tracee: Tracee) -> None:
        """Disable the alternate stack of a thread if it is the recorder's."""
        scratch = self._symbol("scratch")
        tracee.call(_SIGALTSTACK, 0, scratch)
        stack, _, _ = _STACK.unpack(tracee.read(scratch, _STACK.size))
        if self._is_own_stack(stack):
            tracee.write(scratch, NO_STACK)
            with suppress(OSError):  # it is on it; so its memory stays
                tracee.call(_SIGALTSTACK, scratch, 0)
