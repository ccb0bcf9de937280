"""System calls that a stopped thread makes one after the other, with a single stop at their end.

Each stop costs a wait for a processor, on a busy machine of milliseconds.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pylbr.record.native.ptrace import Registers, Tracee

__all__ = ["STACK", "STACK_ROOM", "Batch", "Call", "swap_stacks"]

#: Number and arguments.
Call = tuple[int, ...]

#: Makes the EBP calls of the table at RBX, 64 bytes each: RAX, RDI, RSI, RDX, R10, R8, R9 and room
#: for the result.  Then it sends its own thread `_SIGNAL` (getpid, gettid, tgkill), and waits.
_CODE: Final = bytes.fromhex(
    "488b03 488b7b08 488b7310 488b5318 4c8b5320 4c8b4328 4c8b4b30 0f05 48894338"
    "4883c340 ffcd 75d7 b827000000 0f05 89c7 b8ba000000 0f05 89c6 ba10000000 b8ea000000 0f05 ebfe"
)
#: SIGSTKFLT, which Linux never sends; the thread stops before it is delivered.
_SIGNAL: Final = 16
_OPEN: Final = (1 << 64) - 1 & ~(1 << _SIGNAL - 1)
_ENTRY: Final = struct.Struct("<8Q")
STACK: Final = struct.Struct("<QQQ")  # stack_t: address, flags, size
#: Bytes of memory that `swap_stacks` needs for a thread.
STACK_ROOM: Final = _ENTRY.size + 2 * STACK.size
_SIGALTSTACK: Final = 131
_EMPTY: Final = 128
_TABLE: Final = 256


@dataclass(frozen=True, slots=True)
class _Begun:
    tracee: Tracee
    registers: Registers
    mask: int
    table: int
    count: int


class Batch:
    """The code that makes them, in a page of the process that can be written and executed.

    Parameters
    ----------
    tracee : Tracee
    page : int
        Address of the page, which holds nothing else.

    Attributes
    ----------
    empty : int
        Address of an empty string.
    """

    def __init__(self, tracee: Tracee, page: int) -> None:
        tracee.write(page, _CODE)
        self._page, self.empty = page, page + _EMPTY

    def run(self, tracee: Tracee, calls: Sequence[Call]) -> list[int]:
        """What calls of a stopped thread return: its registers and mask are as before then.

        Raises
        ------
        TraceeGone
        """
        return self.finish(self.begin(tracee, calls, self._page + _TABLE))

    def checked(self, tracee: Tracee, *calls: Call) -> list[int]:
        """As `run`, but no call may fail.

        Raises
        ------
        OSError
        TraceeGone
        """
        results = self.run(tracee, calls)
        for result in results:
            if -4096 < result < 0:
                raise OSError(-result, os.strerror(-result))
        return results

    def begin(self, tracee: Tracee, calls: Sequence[Call], table: int) -> _Begun:
        """Let a thread make calls; `table`: 64 bytes for each in its memory."""
        rows = [_ENTRY.pack(*(n % 2**64 for n in (*call, *(0,) * (8 - len(call)))))
                for call in calls]
        if table == self._page + _TABLE and len(rows) * _ENTRY.size > 4096 - _TABLE:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        tracee.write(table, b"".join(rows))
        begun = _Begun(tracee, tracee.registers(), tracee.swap_mask(_OPEN), table, len(calls))
        registers = Registers.from_buffer_copy(begun.registers)
        registers.rip, registers.rbx, registers.rbp = self._page, table, len(calls)
        registers.orig_rax = 2**64 - 1
        tracee.set_registers(registers)
        tracee.go_on()
        return begun

    def finish(self, begun: _Begun) -> list[int]:
        """Wait for what `begin` began; what the calls return.

        Raises
        ------
        TraceeGone
        """
        tracee = begun.tracee
        tracee.wait_for_signal(_SIGNAL, self._page + len(_CODE) - 2)
        tracee.set_registers(begun.registers)
        tracee.swap_mask(begun.mask)
        data = tracee.read(begun.table, begun.count * _ENTRY.size)
        return [struct.unpack_from("<q", row, 56)[0]
                for row in (data[at:at + _ENTRY.size] for at in range(0, len(data), _ENTRY.size))]


def swap_stacks(
    batch: Batch, threads: Iterable[tuple[Tracee, int, bytes]], keep: Callable[[bytes], bool]
) -> None:
    """Set the alternate stacks of stopped threads, all at a time.

    Parameters
    ----------
    batch : Batch
    threads : iterable of (Tracee, int, bytes)
        Each with the address of `STACK_ROOM` bytes and the stack, packed by `STACK`.
    keep : callable
        Whether a thread gets the stack back that it had, packed.  A thread that is on its
        alternate stack keeps it.
    """
    begun = []
    for tracee, room, stack in threads:
        new, old = room + _ENTRY.size, room + _ENTRY.size + STACK.size
        tracee.write(new, stack)
        begun.append((tracee, room, old, batch.begin(tracee, [(_SIGALTSTACK, new, old)], room)))
    again = []
    for tracee, room, old, running in begun:
        (result,) = batch.finish(running)
        if not result and keep(tracee.read(old, STACK.size)):
            again.append(batch.begin(tracee, [(_SIGALTSTACK, old, 0)], room))
    for running in again:
        batch.finish(running)
