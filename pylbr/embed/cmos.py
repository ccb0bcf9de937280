"""The real-time clock at ports 70H and 71H: an MC146818 with the machine's time.

Sources: Motorola MC146818 data sheet; ACPI 6.5, 4.8.2.4 (century).  There are no alarms and no
interrupts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

__all__ = ["CENTURY", "CMOS", "EPOCH", "Cmos"]

CMOS = range(0x70, 0x72)
#: Index of the century, which the ACPI tables name.
CENTURY = 0x32
#: When a machine is switched on, unless given otherwise.
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_INDEX, _NMI = 0x7F, 0x80
_RATE, _24_HOURS, _VALID = 0x26, 0x02, 0x80
_SIZE = 128


class Cmos:
    """A clock, and 114 bytes of memory.

    Parameters
    ----------
    seconds : callable
        Seconds since the machine was switched on.
    epoch : datetime
        When that was.
    """

    def __init__(self, seconds: Callable[[], float], epoch: datetime = EPOCH) -> None:
        self._seconds, self._epoch = seconds, epoch
        self._memory = bytearray(_SIZE)
        self._memory[0xA], self._memory[0xB] = _RATE, _24_HOURS
        self._selected = 0

    def read(self, port: int) -> int:
        """Port 0 selects, port 1 shows what is selected."""
        if port == 0:
            return 0xFF
        time = self._time()
        if time is not None:
            return int(f"{time}", 16)  # BCD: so register B reports
        return {0xC: 0, 0xD: _VALID}.get(self._selected, self._memory[self._selected])

    def _time(self) -> int | None:
        """The selected part of the time."""
        now = self._epoch + timedelta(seconds=int(self._seconds()))
        return {
            0: now.second, 2: now.minute, 4: now.hour, 6: now.isoweekday() % 7 + 1, 7: now.day,
            8: now.month, 9: now.year % 100, CENTURY: now.year // 100,
        }.get(self._selected)

    def write(self, port: int, value: int) -> None:
        """Select, or write the memory; the time cannot be set."""
        if port == 0:
            self._selected = value & _INDEX
        elif self._selected not in (0xA, 0xB, 0xC, 0xD):
            self._memory[self._selected] = value

    def state(self) -> str:
        """Everything, as JSON can hold it."""
        return (bytes([self._selected]) + self._memory).hex()

    def load(self, state: str) -> None:
        """Take over what `state` returned; ValueError or TypeError for anything else."""
        data = bytes.fromhex(state)
        if len(data) != 1 + _SIZE or data[0] & _NMI:
            raise ValueError("no state of a CMOS clock")
        self._selected, self._memory[:] = data[0], data[1:]
