"""The I/O APIC: registers, and the interrupts of what is attached to its pins.

Source: Intel 82093AA data sheet.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["IOAPIC_BASE", "PINS", "IoApic"]

IOAPIC_BASE = 0xFEC00000
PINS = 24
_SELECT, _WINDOW, _EOI = 0x00, 0x10, 0x40
_ID, _VERSION, _FIRST = 0x00, 0x01, 0x10
_REMOTE_IRR, _LEVEL, _MASKED = 1 << 14, 1 << 15, 1 << 16
_READ_ONLY_BITS = 1 << 12 | _REMOTE_IRR


class IoApic:
    """One I/O APIC, pins masked at first.

    Parameters
    ----------
    deliver : callable, optional
        Takes the low half of the redirection entry of a pin that interrupts, and its destination.
    """

    def __init__(self, deliver: Callable[[int, int], object] | None = None) -> None:
        self._deliver = deliver or (lambda entry, destination: None)
        self._selected = 0
        self._identity = 0
        self._pins = [_MASKED, 0] * PINS
        self._lines = 0

    def line(self, pin: int, level: bool) -> None:
        """A device drives a pin."""
        rises = level and not self._lines >> pin & 1
        self._lines = self._lines & ~(1 << pin) | level << pin
        entry = self._pins[2 * pin]
        if rises and not entry & (_MASKED | _LEVEL):
            self._deliver(entry, self._pins[2 * pin + 1] >> 24)
        self._levels()

    def _levels(self) -> None:
        """Deliver level-triggered pins that are high and not in service."""
        for pin in range(PINS):
            entry = self._pins[2 * pin]
            if self._lines >> pin & 1 and entry & _LEVEL and not entry & (_MASKED | _REMOTE_IRR):
                self._pins[2 * pin] |= _REMOTE_IRR
                self._deliver(entry, self._pins[2 * pin + 1] >> 24)

    def end(self, vector: int) -> None:
        """The processor has ended the interrupt `vector`."""
        ended = [pin for pin in range(PINS) if self._pins[2 * pin] & _REMOTE_IRR
                 and self._pins[2 * pin] & 0xFF == vector]
        for pin in ended:
            self._pins[2 * pin] &= ~_REMOTE_IRR
        if ended:
            self._levels()

    def read(self, offset: int) -> int:
        """A register of the page, 32 bits."""
        number = self._selected - _FIRST
        if offset == _SELECT:
            return self._selected
        if offset != _WINDOW:
            return 0
        if 0 <= number < 2 * PINS:
            return self._pins[number]
        return {_ID: self._identity, _VERSION: (PINS - 1) << 16 | 0x20}.get(self._selected, 0)

    def write(self, offset: int, value: int) -> None:
        """Write a register of the page."""
        number = self._selected - _FIRST
        if offset == _SELECT:
            self._selected = value & 0xFF
        elif offset == _EOI:
            self.end(value & 0xFF)
        elif offset == _WINDOW and 0 <= number < 2 * PINS:
            kept = _READ_ONLY_BITS if not number & 1 else 0
            if not value & _LEVEL:
                kept &= ~_REMOTE_IRR  # an edge has none
            self._pins[number] = value & 0xFFFFFFFF & ~_READ_ONLY_BITS | (
                self._pins[number] & kept) if not number & 1 else value & 0xFFFFFFFF
            self._levels()
        elif offset == _WINDOW and self._selected == _ID:
            self._identity = value & 0x0F000000

    def state(self) -> list[int]:
        """Everything, as JSON can hold it."""
        return [self._selected, self._identity, self._lines, *self._pins]

    def load(self, state: list[int]) -> None:
        """Take over what `state` returned; ValueError or TypeError for anything else."""
        if not isinstance(state, list) or len(state) != 3 + 2 * PINS or not all(
                isinstance(word, int) and 0 <= word < 1 << 32 for word in state):
            raise ValueError("no state of an I/O APIC")
        self._selected, self._identity, self._lines, *self._pins = state
