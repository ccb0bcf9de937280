"""What answers at I/O ports: a UART, the firmware's configuration, and nothing else.

Sources: 16550 registers as PCs have them; QEMU's documentation of fw_cfg (port interface).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

__all__ = ["FIRMWARE_CONFIG", "UART", "FirmwareConfig", "Uart"]

UART, FIRMWARE_CONFIG = range(0x3F8, 0x400), range(0x510, 0x512)
_DATA, _INTERRUPTS, _IDENTIFY, _LINE_CONTROL, _MODEM_CONTROL, _LINE_STATUS = range(6)
_MODEM_STATUS, _SCRATCH = 6, 7
_DIVISOR_LATCH, _TRANSMITTER_EMPTY, _NOTHING_PENDING = 0x80, 0x60, 0x01


class Uart:
    """COM1: what is transmitted arrives at once, and nothing is ever received.

    Parameters
    ----------
    console : callable
        Takes what is transmitted, one byte.
    """

    def __init__(self, console: Callable[[bytes], object]) -> None:
        self._console = console
        self._registers = bytearray(8)
        self._divisor = bytearray(2)

    def _latched(self, register: int) -> bool:
        return register < 2 and bool(self._registers[_LINE_CONTROL] & _DIVISOR_LATCH)

    def read(self, register: int) -> int:
        """Register 0 to 7."""
        if self._latched(register):
            return self._divisor[register]
        fixed = {_DATA: 0, _IDENTIFY: _NOTHING_PENDING, _LINE_STATUS: _TRANSMITTER_EMPTY,
                 _MODEM_STATUS: 0}
        return fixed.get(register, self._registers[register])

    def write(self, register: int, value: int) -> None:
        """Register 0 to 7."""
        if self._latched(register):
            self._divisor[register] = value
        elif register == _DATA:
            self._console(bytes([value]))
        else:
            self._registers[register] = value

    def state(self) -> str:
        """Everything, as JSON can hold it."""
        return (self._registers + self._divisor).hex()

    def load(self, state: str) -> None:
        """Take over what `state` returned; ValueError or TypeError for anything else."""
        data = bytes.fromhex(state)
        if len(data) != 10:
            raise ValueError("no state of a UART")
        self._registers[:], self._divisor[:] = data[:8], data[8:]


class FirmwareConfig:
    """fw_cfg: a selector, 16 bits, and a port that reads the selected item byte by byte.

    Parameters
    ----------
    memory : int
        Bytes.
    """

    def __init__(self, memory: int) -> None:
        one = struct.pack("<H", 1)
        self._items = {
            0x0000: b"QEMU", 0x0001: struct.pack("<I", 1), 0x0003: struct.pack("<Q", memory),
            0x0005: one, 0x000F: one, 0x0019: bytes(4),  # processors, most of them; no files
        }
        self._selected = b""

    def select(self, item: int) -> None:
        """Begin to read an item; one that does not exist reads as zeros."""
        self._selected = self._items.get(item, b"")

    def next(self) -> int:
        """The next byte."""
        byte, self._selected = self._selected[:1], self._selected[1:]
        return byte[0] if byte else 0

    def state(self) -> str:
        """What is still to be read, as JSON can hold it."""
        return self._selected.hex()

    def load(self, state: str) -> None:
        """Take over what `state` returned; ValueError or TypeError for anything else."""
        data = bytes.fromhex(state)
        if len(data) > 8:
            raise ValueError("no item of fw_cfg is that long")
        self._selected = data
