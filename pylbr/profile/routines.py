"""Functions, and code without a name, with the branches and straight runs counted in each.

Addresses are link addresses of the file that a routine is in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pylbr.files.elf import ElfImage
from pylbr.profile.aggregate import Profile
from pylbr.profile.symbols import Place

__all__ = ["Arrival", "Leaving", "Passage", "Routine", "edges_within", "routines_of"]

#: Bytes on both sides of an address that no symbol and no call frame covers.
_WINDOW: Final = 1 << 12


@dataclass(frozen=True, slots=True)
class Leaving:
    """Taken branches from one instruction of a routine to one place."""

    source: int
    target: Place
    count: int
    mispredicted: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """Taken branches from elsewhere to one instruction of a routine."""

    source: Place
    target: int
    count: int
    mispredicted: int


@dataclass(frozen=True, slots=True)
class Passage:
    """Straight runs through a routine: `cycles` in `timed` of the `count`."""

    first: int
    last: int
    count: int
    cycles: int
    timed: int


@dataclass(eq=False, slots=True)
class Routine:
    """One function, or a stretch of code that has no name.

    Attributes
    ----------
    image : ElfImage
    name : str
        Demangled; empty if the file has none.
    start, end : int
        Link addresses; `end` is past the last byte.
    leaving, arriving, passages : list of Leaving, Arrival, Passage
    samples : int
    """

    image: ElfImage
    name: str
    start: int
    end: int
    leaving: list[Leaving] = field(default_factory=list)
    arriving: list[Arrival] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    samples: int = 0

    @property
    def cycles(self) -> int:
        """Cycles of the runs in it."""
        return sum(p.cycles for p in self.passages)

    @property
    def branches(self) -> int:
        """Taken branches from its instructions."""
        return sum(leaving.count for leaving in self.leaving)

    @property
    def mispredicted(self) -> int:
        """Those of them that were mispredicted."""
        return sum(leaving.mispredicted for leaving in self.leaving)

    @property
    def entered(self) -> int:
        """Taken branches to its first byte."""
        return (sum(a.count for a in self.arriving if a.target == self.start)
                + sum(e.count for e in self.leaving
                      if self.holds(e.target) and e.target.address == self.start))

    def holds(self, place: Place) -> bool:
        """Whether a place is in it."""
        return (place.linked and place.path == self.image.path
                and self.start <= place.address < self.end)

    def __str__(self) -> str:
        return self.name or f"{self.start:#x}..{self.end:#x}"


class _Routines:
    """Routines by the places in them."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self.all: dict[tuple[str, int], Routine] = {}
        self._known: dict[tuple[int, int], tuple[Place, Routine | None]] = {}

    def at(self, space: int, address: int) -> tuple[Place, Routine | None]:
        """The place of an address, and the routine that it is in, if that can be read."""
        key = space, address
        if key not in self._known:
            place = self._profile.symbols.place(space, address)
            self._known[key] = place, self._routine(space, address, place)
        return self._known[key]

    def _routine(self, space: int, address: int, place: Place) -> Routine | None:
        if not place.linked:
            return None
        image = self._profile.symbols.image_at(space, address)
        if image is None:
            return None
        extent = image.extent_at(place.address)
        if extent is None:
            start = place.address // _WINDOW * _WINDOW
            start, end = start, start + _WINDOW
        else:
            start, end = extent.start, extent.end
        key = place.path, start
        if key not in self.all:
            self.all[key] = Routine(image, place.function, start, end)
        return self.all[key]


def routines_of(profile: Profile) -> list[Routine]:
    """Routines of all files that can be read, the most cycles, then branches, first.

    A run that reaches from one routine into the next counts in both as far as it is in them, and
    its cycles in the one where it ends.
    """
    found = _Routines(profile)
    for first, last, _, count, mispredicted, _, _, space in profile.edges.tolist():
        source, left = found.at(space, first)
        target, reached = found.at(space, last)
        if left is not None:
            left.leaving.append(Leaving(source.address, target, count, mispredicted))
        if reached is not None and reached is not left:
            reached.arriving.append(Arrival(source, target.address, count, mispredicted))
    for first, last, _, count, _, cycles, timed, space in profile.runs.tolist():
        begin, entered = found.at(space, first)
        end, left = found.at(space, last)
        if left is None:
            continue
        start = begin.address if entered is left else left.start
        left.passages.append(Passage(start, end.address, count, cycles, timed))
        if entered is not None and entered is not left and entered.image is left.image:
            entered.passages.append(Passage(begin.address, entered.end - 1, count, 0, 0))
    for address, space, count in profile.ips.tolist():
        _, routine = found.at(space, address)
        if routine is not None:
            routine.samples += count
    return sorted(found.all.values(),
                  key=lambda r: (-r.cycles, -r.branches, -r.samples, r.image.path, r.start))


def edges_within(routine: Routine) -> Iterator[tuple[int, int, int, int]]:
    """(from, to, count, mispredicted) of taken branches with both ends in a routine."""
    for one in routine.leaving:
        if routine.holds(one.target):
            yield one.source, one.target.address, one.count, one.mispredicted
