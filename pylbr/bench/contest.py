"""What a row of the suite measures: ours and its alternatives, called turn by turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from pylbr.bench.statistics import Spread, ratios, spread
from pylbr.errors import UnsupportedFeature

__all__ = [
    "Contender", "Contest", "Measured", "Row", "RowResult", "Setting", "measure", "measure_row",
]

#: A turn of a quick call lasts this long, so that the clock and the loop do not show.
_TURN: Final = 0.02
_MOST_CALLS: Final = 1 << 16
_ROUNDS: Final = {True: (3, 9), False: (5, 25)}  # by `Setting.quick`: fewest, most
_SECONDS: Final = {True: 1.6, False: 12.0}


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how large a row is measured.

    Attributes
    ----------
    directory : Path
        For the files of the row; it is removed after it.
    quick : bool
        The small form, of all rows in two to three minutes.
    """

    directory: Path
    quick: bool = True

    @property
    def rounds(self) -> tuple[int, int]:
        """Fewest and most turns of each contender."""
        return _ROUNDS[self.quick]

    @property
    def seconds(self) -> float:
        """After these no round begins, unless there are too few."""
        return _SECONDS[self.quick]


@dataclass(frozen=True, slots=True)
class Contender:
    """One of those that are compared.

    Attributes
    ----------
    call : callable, or str
        Does the work; a float that it returns is the measured value: CPU seconds of a child, or a
        size.  A string is why it cannot be measured here.
    items : float
        What one call does, in units of the contest.
    once : bool
        It is many times slower than the others: measured in one round alone.
    """

    call: Callable[[], object] | str
    items: float = 1.0
    once: bool = False


@dataclass(frozen=True)
class Contest:
    """Ours beside its alternatives.

    Attributes
    ----------
    unit : str
        Of items; of a size, its own.
    ours : Contender
    beside : dict of str to Contender
    kind : {"rate", "size"}
        Rates are items per second, more is better; of a size less is.
    clock : callable
        Seconds, of those contenders whose call returns none.
    close : list of callable
        Called when the row is done.
    """

    unit: str
    ours: Contender
    beside: dict[str, Contender]
    kind: Literal["rate", "size"] = "rate"
    clock: Callable[[], float] = time.perf_counter
    close: list[Callable[[], object]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the suite.

    Attributes
    ----------
    name : str
        As ``area.what``.
    title : str
    prepare : callable
        The contest, made in a `Setting`; raises `UnsupportedFeature` with what is missing.
    """

    name: str
    title: str
    prepare: Callable[[Setting], Contest]

    @property
    def area(self) -> str:
        """The part of the suite that it belongs to."""
        return self.name.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Measured:
    """One contender's figures, or why there are none.

    Attributes
    ----------
    name : str
    values : tuple of float
        Rates or sizes, one per round.
    ratio : Spread or None
        Ours over this one, of the same rounds.
    why : str
        Where `values` is empty.
    """

    name: str
    values: tuple[float, ...] = ()
    ratio: Spread | None = None
    why: str = ""

    @property
    def spread(self) -> Spread | None:
        """Median and quartiles."""
        return spread(self.values) if self.values else None


@dataclass(frozen=True, slots=True)
class RowResult:
    """What a row came to; ours is the first of `contenders`."""

    row: Row
    unit: str
    kind: str
    contenders: tuple[Measured, ...]
    seconds: float


def measure_row(row: Row, setting: Setting) -> RowResult:
    """Prepare a row and measure it.  Tools that are missing are in the result, with their names."""
    begin = time.perf_counter()
    try:
        contest = row.prepare(setting)
    except UnsupportedFeature as error:
        return RowResult(row, "", "rate", (Measured("pylbr", why=str(error)),),
                         time.perf_counter() - begin)
    try:
        found = measure(contest, setting)
    finally:
        for close in contest.close:
            close()
    return RowResult(row, contest.unit, contest.kind, found, time.perf_counter() - begin)


def measure(contest: Contest, setting: Setting) -> tuple[Measured, ...]:
    """Call the contenders turn by turn, so that what else the machine does is the same for all."""
    everyone = {"pylbr": contest.ours, **contest.beside}
    missing = {name: one.call for name, one in everyone.items() if isinstance(one.call, str)}
    values: dict[str, list[float]] = {name: [] for name in everyone if name not in missing}
    calls: dict[str, int] = {}
    for turn in _turns(setting, contest.kind == "size"):
        for name in [*values]:
            one = everyone[name]
            if one.once and turn:
                continue
            try:
                if turn == 0:
                    calls[name] = _calls(one, contest)
                values[name].append(_value(one, contest, calls[name]))
            except UnsupportedFeature as error:  # found out when it is called
                missing[name] = str(error)
                del values[name]
        if all(everyone[name].once for name in values):
            break
    ours = values.get("pylbr")
    return tuple(
        Measured(name, why=" ".join(missing[name].split())) if name in missing else
        Measured(name, tuple(values[name]),
                 ratios(ours, values[name]) if ours and name != "pylbr" else None)
        for name in everyone)


def _turns(setting: Setting, one: bool) -> Iterator[int]:
    """Rounds until the time is up; a size does not change."""
    fewest, most = (1, 1) if one else setting.rounds
    begin = time.perf_counter()
    for turn in range(most):
        if turn >= fewest and time.perf_counter() - begin > setting.seconds:
            return
        yield turn


def _calls(one: Contender, contest: Contest) -> int:
    """How often a turn calls; the first call, which may have to fill caches, is not counted."""
    if contest.kind == "size" or one.once:
        return 1
    assert callable(one.call)
    begin = time.perf_counter()
    if isinstance(one.call(), float):
        return 1
    took = time.perf_counter() - begin
    return max(1, min(_MOST_CALLS, round(_TURN / max(took, 1e-9))))


def _value(one: Contender, contest: Contest, calls: int) -> float:
    assert callable(one.call)
    begin = contest.clock()
    for _ in range(calls):
        found = one.call()
    took = contest.clock() - begin
    if contest.kind == "size":
        assert isinstance(found, float)
        return found
    seconds = found if isinstance(found, float) else took / calls
    return one.items / max(seconds, 1e-9)
