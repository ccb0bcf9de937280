"""Profiles of several recordings added up, whatever address a file had in each of them.

In place of an address the tables of the sum have the number of a place: a file and the address in
it.  What is in no file (the vDSO, code of a JIT, the kernel) is one place for each process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pylbr.files.elf import ElfImage
from pylbr.profile.address_space import AddressSpaces
from pylbr.profile.aggregate import Profile
from pylbr.profile.dtypes import IP_DTYPE, PAIR_DTYPE
from pylbr.profile.file_profile import FileProfile
from pylbr.profile.history import Paths
from pylbr.profile.symbols import Place, Symbols

__all__ = ["Sum"]

#: Place, build-id of a file that could not be read, and input and process of what is in no file.
_Key = tuple[Place, bytes, int, int]
_COLUMNS: Final = ("count", "mispredicted", "cycles", "timed")
#: Counts of a row: those of `_COLUMNS`.
_Row = tuple[int, int, int, int]
_Table = dict[tuple[int, int, int], _Row]


class Sum:
    """The sum of some profiles; no longer than the distinct places and branches in them.

    Parameters
    ----------
    paths : Paths, optional
        Where the branch history is added up.
    """

    def __init__(self, paths: Paths | None = None) -> None:
        self._paths = paths
        self._numbers: dict[_Key, int] = {}
        self._edges: _Table = {}
        self._traces: _Table = {}
        self._ips: Counter[int] = Counter()
        self._inputs = self._samples = self._entries = self._broken = self._not_taken = 0
        self._measured = True
        self._problems: dict[str, None] = {}

    def add(self, profile: Profile, weight: int = 1, paths: Paths | None = None) -> None:
        """Add the counts of one, and of its `paths`, `weight` times."""
        known: dict[tuple[int, int], int] = {}

        def number(space: int, address: int) -> int:
            found = known.get((space, address))
            if found is None:
                key = self._key(profile, space, address)
                found = self._numbers.setdefault(key, len(self._numbers))
                known[space, address] = found
            return found

        for table, rows in ((self._edges, profile.edges), (self._traces, profile.traces)):
            for row in rows[["pid", "first", "last", "origin", *_COLUMNS]].tolist():
                # An edge has no origin: 0 stands for none.
                at = (number(row[0], row[1]), number(row[0], row[2]),
                      number(row[0], row[3]) if table is self._traces else 0)
                _increase(table, at, row[4:], weight)
        for address, space, count in profile.ips.tolist():
            self._ips[number(space, address)] += count * weight
        if paths is not None and self._paths is not None:
            for count, places in paths.moved(number, weight):
                self._paths.add_path(places, count)
        self._samples += profile.samples * weight
        self._entries += profile.entries * weight
        self._broken += profile.broken * weight
        self._not_taken += profile.not_taken * weight
        # A rate over branches of which some were not measured would be too low.
        self._measured &= profile.mispredicts_measured
        self._problems |= dict.fromkeys(profile.symbols.problems)
        self._inputs += 1

    def _key(self, profile: Profile, space: int, address: int) -> _Key:
        place = profile.symbols.place(space, address)
        if not place.path.startswith("/"):
            return place, b"", self._inputs + 1, space
        if place.function:
            return place, b"", 0, 0
        mapped = profile.spaces.find(space, address)
        build_id = mapped.build_id if mapped else b""
        # Addresses of a file that cannot be read say nothing without its build.
        unread = profile.symbols.image(place.path, build_id) is None
        return place, build_id if unread else b"", 0, 0

    def profile(self, name: str) -> FileProfile:
        """The sum, called `name`."""
        found = FileProfile(
            _array(self._edges), _array(self._traces), _ips(self._ips), self._samples,
            self._entries, self._broken, AddressSpaces(), self._not_taken, self._measured, True,
            name, self._paths)
        # In place of the property that would look addresses up.
        found.__dict__["symbols"] = _Places([key[0] for key in self._numbers], self._problems)
        return found


class _Places(Symbols):
    """Places by number."""

    def __init__(self, places: list[Place], problems: Iterable[str]) -> None:
        super().__init__(AddressSpaces())
        self._places = places
        self.problems = list(problems)

    def place(self, pid: int, address: int) -> Place:
        return self._places[address]

    def image_at(self, pid: int, address: int) -> ElfImage | None:
        place = self._places[address]
        return self.image(place.path) if place.linked else None


def _increase(table: _Table, at: tuple[int, int, int], counts: _Row, weight: int) -> None:
    one, two, three, four = table.get(at, (0, 0, 0, 0))
    table[at] = (one + counts[0] * weight, two + counts[1] * weight,
                 three + counts[2] * weight, four + counts[3] * weight)


def _array(table: _Table) -> NDArray[np.void]:
    result = np.zeros(len(table), PAIR_DTYPE)
    for row, ((first, last, origin), counts) in zip(result, sorted(table.items()), strict=True):
        row["first"], row["last"], row["origin"] = first, last, origin
        for name, count in zip(_COLUMNS, counts, strict=True):
            row[name] = count
    return result


def _ips(counts: Counter[int]) -> NDArray[np.void]:
    result = np.zeros(len(counts), IP_DTYPE)
    for row, (address, count) in zip(result, sorted(counts.items()), strict=True):
        row["address"], row["count"] = address, count
    return result
