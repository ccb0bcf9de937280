"""A 16550A with its FIFO and its interrupt.

Source: National Semiconductor PC16550D data sheet.  What is transmitted arrives at once; the
baud rate is without effect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

__all__ = ["COM1", "COM2", "Uart"]

COM1, COM2 = range(0x3F8, 0x400), range(0x2F8, 0x300)
_DATA, _ENABLE, _IDENTIFY, _LINE_CONTROL, _MODEM_CONTROL, _LINE_STATUS = range(6)
_MODEM_STATUS, _SCRATCH = 6, 7
_DIVISOR_LATCH = 0x80
_READY, _EMPTY = 0x01, 0x60
_RECEIVED, _TRANSMITTED = 0x01, 0x02
_NOTHING, _EMPTIED, _ARRIVED, _FIFO_ON = 0x01, 0x02, 0x04, 0xC0
_CONTROL_FIFO, _CLEAR_RECEIVED = 0x01, 0x02
_LOOP, _OUT2 = 0x10, 0x08
#: CTS, DSR and DCD: the other end is ready.
_CONNECTED = 0xB0
_MOST_WAITING = 1 << 20


class Uart:
    """A serial port.

    Parameters
    ----------
    console : callable
        Takes what is transmitted, one byte.
    interrupt : callable, optional
        ``interrupt(level)`` is called when the interrupt line changes.
    """

    def __init__(
        self, console: Callable[[bytes], object],
        interrupt: Callable[[bool], object] | None = None,
    ) -> None:
        self._console, self._interrupt = console, interrupt or (lambda level: None)
        self._registers = bytearray(8)
        self._divisor = bytearray(2)
        self._fifo = False
        self._emptied = False  # the transmitter's interrupt is pending
        self._line = False
        self._waiting: deque[int] = deque()

    def receive(self, data: bytes) -> None:
        """Bytes arrive; those that stay unread for a megabyte are lost."""
        self._waiting.extend(data[:_MOST_WAITING - len(self._waiting)])
        self._changed()

    @property
    def _pending(self) -> int:
        """The identification register's answer."""
        enabled = self._registers[_ENABLE]
        if enabled & _RECEIVED and self._waiting:
            return _ARRIVED
        if enabled & _TRANSMITTED and self._emptied:
            return _EMPTIED
        return _NOTHING

    def _changed(self) -> None:
        line = self._pending != _NOTHING and bool(self._registers[_MODEM_CONTROL] & _OUT2)
        if line != self._line:
            self._line = line
            self._interrupt(line)

    def _latched(self, register: int) -> bool:
        return register < 2 and bool(self._registers[_LINE_CONTROL] & _DIVISOR_LATCH)

    def read(self, register: int) -> int:
        """Register 0 to 7."""
        if self._latched(register):
            return self._divisor[register]
        if register == _LINE_STATUS:
            return _EMPTY | (_READY if self._waiting else 0)
        if register == _DATA:
            return self._next()
        if register == _IDENTIFY:
            return self._identify()
        if register == _MODEM_STATUS:
            return self._modem()
        return self._registers[register]

    def _next(self) -> int:
        byte = self._waiting.popleft() if self._waiting else 0
        self._changed()
        return byte

    def _identify(self) -> int:
        pending = self._pending
        if pending == _EMPTIED:
            self._emptied = False
            self._changed()
        return pending | (_FIFO_ON if self._fifo else 0)

    def _modem(self) -> int:
        control = self._registers[_MODEM_CONTROL]
        if not control & _LOOP:
            return _CONNECTED
        return (control & 1) << 5 | (control & 2) << 3 | (control & 12) << 4

    def write(self, register: int, value: int) -> None:
        """Register 0 to 7."""
        if self._latched(register):
            self._divisor[register] = value
        elif register == _DATA:
            self._send(value)
        elif register == _IDENTIFY:
            self._fifo = bool(value & _CONTROL_FIFO)
            if value & _CLEAR_RECEIVED:
                self._waiting.clear()
            self._changed()
        elif register not in (_LINE_STATUS, _MODEM_STATUS):
            old, self._registers[register] = self._registers[register], value
            if register == _ENABLE and value & ~old & _TRANSMITTED:
                self._emptied = True
            self._changed()

    def _send(self, value: int) -> None:
        if self._registers[_MODEM_CONTROL] & _LOOP:
            self.receive(bytes([value]))
        else:
            self._console(bytes([value]))
        self._emptied = False
        self._changed()
        self._emptied = True
        self._changed()

    def state(self) -> str:
        """Everything, as JSON can hold it."""
        return (self._registers + self._divisor + bytes(
            [self._fifo, self._emptied, self._line, *self._waiting])).hex()

    def load(self, state: str) -> None:
        """Take over what `state` returned; ValueError or TypeError for anything else."""
        data = bytes.fromhex(state)
        if not 13 <= len(data) <= 13 + _MOST_WAITING or any(flag > 1 for flag in data[10:13]):
            raise ValueError("no state of a UART")
        self._registers[:], self._divisor[:] = data[:8], data[8:10]
        self._fifo, self._emptied, self._line = (bool(flag) for flag in data[10:13])
        self._waiting = deque(data[13:])
