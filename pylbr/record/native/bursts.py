"""How many windows a tick makes: a tick costs more than a window."""

from __future__ import annotations

from typing import Final

from pylbr.record.engine import Request

__all__ = ["GAP", "MOST", "TICK_SECONDS", "Pace", "described", "least_period", "windows_per_tick"]

#: Taken branches between two windows of a tick, on average: half to one and a half times as many.
GAP: Final = 128
MOST: Final = 8
#: CPU time of a tick, of a window, and of a gap, as measured on a virtual machine.
TICK_SECONDS: Final = 20e-6
_WINDOW_SECONDS: Final = 5e-6
_GAP_SECONDS: Final = 5e-6
#: Nanoseconds between ticks from which on they are cheap enough to make one window each.
_RARE: Final = 400_000
_SECOND: Final = 1_000_000_000
#: From so many ticks on their pace is looked at; shares of skipped ones to change it for.
_TICKS: Final = 100
_TOO_MANY, _FEW = 0.2, 0.02


def least_period(overhead: float, burst: int) -> int:
    """Nanoseconds between ticks that cost so many percent of a thread's time; 100: any."""
    if overhead >= 100:
        return 0
    cost = TICK_SECONDS + burst * _WINDOW_SECONDS + (burst - 1) * _GAP_SECONDS
    return int(cost * _SECOND * 100 / overhead)


def windows_per_tick(request: Request) -> int:
    """The windows of each tick, where a recording asks for so many stacks per second."""
    if request.burst:
        return request.burst
    return next((
        burst for burst in range(1, MOST)
        if burst * request.period >= max(_RARE, least_period(request.overhead, burst))
    ), MOST)


def described(request: Request) -> str:
    """For the head of a file."""
    burst = windows_per_tick(request)
    return "1 per tick" if burst == 1 else (
        f"up to {burst} per tick, {GAP // 2} to {GAP * 3 // 2} taken branches apart"
    )


class Pace:
    """How often threads tick, and how many windows a tick makes.

    It begins with one window per tick, however many will be made later: a program that ends soon
    has few ticks, and its code is new to the recorder, so that a window costs more than a tick.

    Parameters
    ----------
    request : Request
    shortest : int
        Fewest nanoseconds between ticks that the clock allows.

    Attributes
    ----------
    period : int
        Nanoseconds between ticks.
    burst : int
        Windows of each.
    """

    def __init__(self, request: Request, shortest: int) -> None:
        self._request, self._shortest = request, shortest
        self.burst = request.burst or 1
        self.period = max(self.burst * request.period, self._least)
        self._counts = 0, 0, 0

    @property
    def _least(self) -> int:
        return max(self._shortest, least_period(self._request.overhead, self.burst))

    @property
    def each(self) -> int:
        """Nanoseconds between stacks, where every tick makes all of its windows."""
        return self.period // self.burst

    def adapt(self, made: int, ticks: int, resting: int) -> bool:
        """Tick less often where windows are skipped to keep the overhead low: ticks cost, too;
        more often where ticks end before they have made all of their windows.

        Parameters
        ----------
        made, ticks, resting : int
            Windows that were made, the ticks that made them, and ticks without any because the
            overhead is used up; from the beginning.

        Returns
        -------
        bool
            `period` or `burst` has changed.
        """
        counts = made, ticks, resting
        made, ticks, resting = (
            now - before for now, before in zip(counts, self._counts, strict=True)
        )
        if ticks + resting < _TICKS:
            return False
        self._counts, before = counts, (self.period, self.burst)
        if self.burst != windows_per_tick(self._request):
            self.burst = windows_per_tick(self._request)
            self.period = max(self.burst * self._request.period, self._least)
            return True
        share = resting / (ticks + resting)
        if share > _TOO_MANY:
            self.period = int(self.period / (1 - min(share, 0.75)))
        elif share < _FEW:
            self.period = int(self.period * 0.9)
        # As many windows as are made of a tick, not as could be, make the rate.
        shortest = int(made / ticks * self._request.period) if ticks else self.period
        self.period = max(self.period, shortest, self._least)
        return (self.period, self.burst) != before
