"""The I/O APIC: its registers, for guests that mask its pins.  No device is attached.

Source: Intel 82093AA data sheet.
"""

from __future__ import annotations

__all__ = ["IOAPIC_BASE", "IoApic"]

IOAPIC_BASE = 0xFEC00000
_SELECT, _WINDOW = 0x00, 0x10
_ID, _VERSION, _FIRST = 0x00, 0x01, 0x10
_PINS = 24
_MASKED = 1 << 16
_READ_ONLY_BITS = 1 << 12 | 1 << 14


class IoApic:
    """One I/O APIC, pins masked at first."""

    def __init__(self) -> None:
        self._selected = 0
        self._identity = 0
        self._pins = [_MASKED, 0] * _PINS

    def read(self, offset: int) -> int:
        """A register of the page, 32 bits."""
        number = self._selected - _FIRST
        if offset == _SELECT:
            return self._selected
        if offset != _WINDOW:
            return 0
        if 0 <= number < 2 * _PINS:
            return self._pins[number]
        return {_ID: self._identity, _VERSION: (_PINS - 1) << 16 | 0x20}.get(self._selected, 0)

    def write(self, offset: int, value: int) -> None:
        """Write a register of the page."""
        number = self._selected - _FIRST
        if offset == _SELECT:
            self._selected = value & 0xFF
        elif offset == _WINDOW and 0 <= number < 2 * _PINS:
            self._pins[number] = value & 0xFFFFFFFF & ~(_READ_ONLY_BITS if not number & 1 else 0)
        elif offset == _WINDOW and self._selected == _ID:
            self._identity = value & 0x0F000000

    def state(self) -> list[int]:
        """Everything, as JSON can hold it."""
        return [self._selected, self._identity, *self._pins]

    def load(self, state: list[int]) -> None:
        """Take over what `state` returned; ValueError or TypeError for anything else."""
        if not isinstance(state, list) or len(state) != 2 + 2 * _PINS or not all(
                isinstance(word, int) and 0 <= word < 1 << 32 for word in state):
            raise ValueError("no state of an I/O APIC")
        self._selected, self._identity, *self._pins = state
