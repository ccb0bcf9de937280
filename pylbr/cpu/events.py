"""What a processor reports to its listener."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["NO_EVENTS", "Events"]


class Events(Protocol):
    """Receives what a processor reports; it may use the `Processor`, `cpu`, meanwhile."""

    def pmi(self, cpu: Any) -> bool | None:
        """A performance-monitoring interrupt; True stops the batch right after the branch."""

    def pebs(self, cpu: Any, counter: int, record: bytes) -> int | None:
        """An adaptive PEBS record; the value returned reloads the counter.

        `counter` is its bit in IA32_PERF_GLOBAL_CTRL.
        """


class _NoEvents:
    def pmi(self, cpu: Any) -> bool | None:
        return None

    def pebs(self, cpu: Any, counter: int, record: bytes) -> int | None:
        return None


#: Default listener: ignores every event.
NO_EVENTS = _NoEvents()
