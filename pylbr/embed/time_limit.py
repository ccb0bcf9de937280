"""An end for guests that run for ever: so many seconds of the host."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pylbr.embed.machine import Ending, Machine

__all__ = ["time_limit"]


@contextmanager
def time_limit(machine: Machine, seconds: float | None) -> Iterator[None]:
    """End the runs of `machine` as "limit" when `seconds` are over; None: never."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, machine.interrupt, [
        Ending("limit", 0, f"no end after {seconds:g} seconds")])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
