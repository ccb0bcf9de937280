"""The console of a Linux guest: shown, its last lines kept, an oops and a panic noticed."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from pylbr.embed.machine import Ending, Fault, Machine

__all__ = ["Console"]

_KEPT, _LONGEST = 60, 1000
_PANIC, _PANIC_ENDS = "Kernel panic - not syncing", "---[ end Kernel panic"
#: First lines of reports of exceptions in the kernel, after the time (Linux, arch/x86: mm/fault.c,
#: kernel/traps.c).
_OOPS = re.compile(r"(?:^|\] )(?:BUG: (?:kernel NULL pointer|unable to handle|stack guard page)"
                   r"|kernel BUG at |general protection fault|invalid opcode: |divide error: "
                   r"|Oops: )")


class Console:
    """Takes what a guest prints.

    Parameters
    ----------
    show : callable, optional
        Takes it, too.

    Attributes
    ----------
    show : callable or None
        As given; may be set later.
    lines : deque of str
        The last ones.
    panic : str
        The line that reports one; empty if there was none.
    fault : Fault or None
        The exception in the kernel that it has reported first.  Its own report has further ones.
    """

    def __init__(self, show: Callable[[bytes], object] | None = None) -> None:
        self.show = show
        self._line = bytearray()
        self._machine: Machine | None = None
        self.lines: deque[str] = deque(maxlen=_KEPT)
        self.panic = ""
        self.fault: Fault | None = None

    def watch(self, machine: Machine) -> None:
        """End the run of `machine` as "panic" when its kernel has reported one."""
        self._machine = machine

    def __call__(self, data: bytes) -> None:
        if self.show:
            self.show(data)
        for byte in data:
            if byte == 10 or len(self._line) == _LONGEST:
                self._ended(self._line.decode("utf-8", "replace").rstrip("\r"))
                self._line.clear()
            if byte != 10:
                self._line.append(byte)

    def _ended(self, line: str) -> None:
        self.lines.append(line)
        if self.fault is None and self._machine is not None and _OOPS.search(line):
            self.fault = self._machine.running.fault
        if _PANIC in line and _PANIC_ENDS not in line:
            self.panic = line[line.index(_PANIC):]
        elif _PANIC_ENDS in line and self._machine is not None:
            self._machine.stop(Ending("panic", 0, self.panic or "kernel panic"))
