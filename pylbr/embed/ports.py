"""The I/O ports: which device answers where, and the firmware's configuration.

Source: QEMU's documentation of fw_cfg (port interface).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

__all__ = ["FIRMWARE_CONFIG", "FirmwareConfig", "Ports"]

FIRMWARE_CONFIG = range(0x510, 0x512)
Read = Callable[[int], int]
Write = Callable[[int, int], object]


class Ports:
    """The I/O address space; where no device is, reads show ones."""

    def __init__(self) -> None:
        self._readers: dict[int, tuple[int, Read]] = {}
        self._writers: dict[int, tuple[int, Write]] = {}

    def attach(self, ports: range, read: Read | None, write: Write | None) -> None:
        """Let a device answer; `read` and `write` get the port's number within `ports`."""
        for port in ports:
            if read is not None:
                self._readers[port] = ports.start, read
            if write is not None:
                self._writers[port] = ports.start, write

    def read(self, port: int, size: int) -> int:
        """IN of `size` bytes."""
        mask = (1 << 8 * size) - 1
        first, read = self._readers.get(port, (0, lambda _: mask))
        return read(port - first) & mask

    def write(self, port: int, value: int) -> None:
        """OUT."""
        first, write = self._writers.get(port, (0, lambda _, __: None))
        write(port - first, value)


class FirmwareConfig:
    """fw_cfg: a selector, 16 bits, and a port that reads the selected item byte by byte.

    Parameters
    ----------
    memory : int
        Bytes.
    processors : int
    """

    def __init__(self, memory: int, processors: int = 1) -> None:
        count = struct.pack("<H", processors)
        self._items = {
            0x0000: b"QEMU", 0x0001: struct.pack("<I", 1), 0x0003: struct.pack("<Q", memory),
            0x0005: count, 0x000F: count, 0x0019: bytes(4),  # processors, most of them; no files
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
