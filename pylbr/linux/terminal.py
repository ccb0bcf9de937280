"""Standard input as the terminal of a guest's first serial port."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from pylbr.embed.machine import Machine

__all__ = ["connected"]

_PIECE, _MOST = 4096, 1 << 16


@contextmanager
def connected(machine: Machine) -> Iterator[None]:
    """Standard input reaches the guest meanwhile: each key of a terminal, a file or pipe whole.

    The guest's terminal echoes; ours does not.  Ctrl-C reaches the guest, too.
    """
    if not os.isatty(sys.stdin.fileno()):
        # At once, so that the guest does the same each time; it reads to the end of the file.
        machine.uart.receive(sys.stdin.buffer.read(_MOST) + b"\x04")
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def arrived(seconds: float) -> bytes:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        return os.read(descriptor, _PIECE) if ready else b""

    tty.setraw(descriptor, termios.TCSADRAIN)
    machine.input = arrived
    try:
        yield
    finally:
        machine.input = None
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
