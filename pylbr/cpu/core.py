"""Processors that are threads of one core, and what the core has but once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pylbr.arch.features import CpuModel
from pylbr.arch.models import model as named
from pylbr.cpu.events import NO_EVENTS, Events
from pylbr.cpu.processor import Processor
from pylbr.cpu.saved.state import ProcessorState
from pylbr.errors import StateError

__all__ = ["Core", "CoreState", "MAX_THREADS"]

#: A Xeon Phi core has so many.
MAX_THREADS = 4


@dataclass(frozen=True, slots=True)
class CoreState:
    """The states of a core's threads, first thread first."""

    threads: tuple[ProcessorState, ...]


class Core:
    """The threads of one core.

    On models whose ``legacy.select_scope`` is ``"core"`` they share MSR_LBR_SELECT: a write by
    one thread filters the branches of all.  Everything else is each thread's own.

    Parameters
    ----------
    model : CpuModel or str
    events : sequence of Events
        Listeners, one per thread: as many as there are threads, 1 to 4.

    Attributes
    ----------
    model : CpuModel
    threads : tuple of Processor

    Notes
    -----
    The threads of a core are used by one thread of the program at a time.
    """

    def __init__(self, model: CpuModel | str, events: Sequence[Events] = (NO_EVENTS, NO_EVENTS)
                 ) -> None:
        model = named(model) if isinstance(model, str) else model
        self._join(tuple(Processor(model, each) for each in events))

    def _join(self, threads: tuple[Processor, ...]) -> None:
        if not 1 <= len(threads) <= MAX_THREADS:
            raise ValueError(f"core: {len(threads)} threads; a core has 1 to {MAX_THREADS}")
        self.model, self.threads = threads[0].model, threads
        if self.model.legacy and self.model.legacy.select_scope == "core":
            for thread in threads:
                thread.msrs.siblings = tuple(
                    other.msrs for other in threads if other is not thread)

    def reset(self, kind: str = "cold", *, in_c6: bool = False) -> None:
        """RESET of every thread, as `Processor.reset`."""
        for thread in self.threads:
            thread.reset(kind, in_c6=in_c6)

    def copy(self) -> Core:
        """An independent core in the same state."""
        other = object.__new__(Core)
        other._join(tuple(thread.copy() for thread in self.threads))
        return other

    def state(self) -> CoreState:
        """The state as frozen, plain data; nothing changes."""
        return CoreState(tuple(thread.state() for thread in self.threads))

    @classmethod
    def from_state(cls, state: CoreState, events: Sequence[Events] | None = None) -> Core:
        """A core in that state.

        Parameters
        ----------
        state : CoreState
        events : sequence of Events, optional
            One a thread.

        Raises
        ------
        StateError
            For a thread that its model cannot hold, threads of unlike models, or threads that
            share MSR_LBR_SELECT and differ in it.
        """
        saved = state.threads
        if not 1 <= len(saved) <= MAX_THREADS:
            raise StateError(f"core: {len(saved)} threads; a core has 1 to {MAX_THREADS}")
        if any(thread.model != saved[0].model for thread in saved):
            raise StateError("core: the threads are of unlike models")
        model = saved[0].model
        if model.legacy and model.legacy.select_scope == "core":
            selects = [thread.msrs.lbr.ctl for thread in saved]
            for n, select in enumerate(selects):
                if select != selects[0]:
                    raise StateError(
                        f"core: MSR_LBR_SELECT is {selects[0]:#x} in thread 0 and {select:#x} in "
                        f"thread {n}; {model.name} has one per core")
        core = object.__new__(cls)
        core._join(tuple(
            Processor.from_state(thread, each)
            for thread, each in zip(saved, events or (NO_EVENTS,) * len(saved), strict=True)))
        return core
