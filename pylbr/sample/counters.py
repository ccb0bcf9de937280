"""Which counter of the processor counts which event, and what they log into records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lbrcore.events import CountedEvent, Unit
from lbrcore.rows import Rows
from pylbr.arch.features import CpuModel
from pylbr.errors import ConfigurationError
from pylbr.perf.events import SampledEvent

__all__ = ["assign", "logged"]

#: A count of logged events in IA32_LBR_x_INFO has two bits.
_MOST = 3


def assign(events: Sequence[SampledEvent], model: CpuModel) -> tuple[int | None, ...]:
    """The general counter of each event, in their order; None for an event of no counter.

    Raises
    ------
    ConfigurationError
        There are too few counters, or they are too narrow for a period (Linux: max_period).
    """
    places: list[int | None] = []
    used = 0
    pmu = model.pmu
    most = (1 << ((pmu.counter_width if pmu.full_width_writes else 32) - 1)) - 1
    for event in events:
        if event.select is None:
            places.append(None)
            continue
        if used == pmu.counters:
            raise ConfigurationError(
                f"event {event.name!r}: {model.name} has {pmu.counters} general counters; "
                "sample fewer events at once")
        if event.counted.period + event.counted.jitter > most:
            raise ConfigurationError(
                f"event {event.name!r}: counters of {model.name} take periods up to {most}")
        places.append(used)
        used += 1
    return tuple(places)


def logged(
    columns: Mapping[str, NDArray[np.generic] | int | str], events: Sequence[CountedEvent],
    places: Sequence[int | None],
) -> NDArray[np.uint8]:
    """The `events` column that a processor makes of a trace with these counters.

    Counters that sample log what they count; the rest of the first four log what the trace
    has for them.

    Parameters
    ----------
    columns : mapping
        As `lbrcore.rows.Rows` takes it.
    events, places : sequence
        The events, and their counters as `assign` has them.

    Returns
    -------
    ndarray of u1, shape (n, 4)
    """
    rows = Rows(columns)
    branches = rows.gather(0, len(rows))
    found: NDArray[np.uint8] = branches["events"].copy()
    for event, place in zip(events, places, strict=True):
        if place is not None and place < found.shape[1]:
            found[:, place] = _amounts(branches, event)
    return found


def _amounts(branches: NDArray[np.void], event: CountedEvent) -> NDArray[np.uint64]:
    """What each branch adds to the count of an event, as far as a record shows it."""
    counts = np.ones(len(branches), bool)
    for name, table in (
        ("class", event.classes), ("flags", event.flags), ("cpl_from", event.cpls)
    ):
        counts &= (table >> branches[name].astype(np.uint32) & 1).astype(bool)
    amount = {
        Unit.INSTRUCTIONS: branches["instructions"], Unit.CYCLES: branches["cycles"],
    }.get(event.unit, np.ones(len(branches), np.uint32))
    return np.minimum(counts * amount, _MOST)
