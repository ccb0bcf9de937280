"""Counts for one binary, at its link addresses: what BOLT's and AutoFDO's texts hold."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pylbr.errors import TraceError
from pylbr.files.elf import ElfImage
from pylbr.profile.aggregate import Profile

__all__ = ["OUTSIDE", "UNKNOWN", "LinkProfile", "link_profile"]

#: An address outside of the binary.
OUTSIDE = -1
#: In place of the origin of a straight run, where its source does not contain it.
UNKNOWN = -2
_MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """Counts at link addresses, summed over processes.

    Attributes
    ----------
    image : ElfImage
    edges : dict of (from, to) to (count, mispredicted)
        One of the two may be `OUTSIDE`.
    traces : dict of (origin, first, last) to count
        Straight code: FROM of the branch that leads to it, which may be `OUTSIDE`, its first
        address, and that of the branch that ends it.
    ips : dict of address to count
    branches : int
        Taken branches of the whole profile, those that the binary has no part in included.
    """

    image: ElfImage
    edges: dict[tuple[int, int], tuple[int, int]]
    traces: dict[tuple[int, int, int], int]
    ips: dict[int, int]
    branches: int = 0

    @property
    def runs(self) -> dict[tuple[int, int], tuple[int, int]]:
        """(first, last) to (count, entered): `entered` of the `count` began outside."""
        counts: Counter[tuple[int, int]] = Counter()
        entered: Counter[tuple[int, int]] = Counter()
        for (origin, first, last), count in self.traces.items():
            counts[first, last] += count
            entered[first, last] += count if origin == OUTSIDE else 0
        return {key: (counts[key], entered[key]) for key in sorted(counts)}

    @property
    def within(self) -> dict[tuple[int, int], int]:
        """(from, to) to count, of branches with both ends in the binary."""
        return {key: count for key, (count, _) in self.edges.items() if OUTSIDE not in key}

    @property
    def inside(self) -> int:
        """Taken branches that leave from the binary or lead to it."""
        return sum(count for count, _ in self.edges.values())


class _Linker:
    """(address space, address) -> link address in one binary."""

    def __init__(self, profile: Profile, path: str) -> None:
        self._spaces = profile.spaces
        try:
            self.image = ElfImage(path)
        except OSError as error:
            raise TraceError(path, f"cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise TraceError(path, f"is no ELF file of 64 bits: {error}") from error
        self._files = matching_files(self.image, profile)
        self._known: dict[tuple[int, int], int] = {}

    def address(self, space: int, address: int) -> int:
        key = space, address
        if key not in self._known:
            link = None
            mapped = self._spaces.find(space, address)
            if mapped is not None and (mapped.path, mapped.build_id) in self._files:
                link = self.image.link_address(mapped.offset + address - mapped.start)
            self._known[key] = OUTSIDE if link is None else link
        return self._known[key]

    def addresses(self, spaces: NDArray[np.int64], addresses: NDArray[np.uint64]) -> list[int]:
        return [
            self.address(s, a) for s, a in zip(spaces.tolist(), addresses.tolist(), strict=True)
        ]


def _same_build(one: bytes, other: bytes) -> bool:
    """Whether two build-ids are known and equal, as far as the shorter one goes."""
    size = min(len(one), len(other))
    return size > 0 and one[:size] == other[:size]


def matching_files(image: ElfImage, profile: Profile) -> set[tuple[str, bytes]]:
    """(path, build-id) of what is mapped of the binary: by build-id, path, unique base name.

    Raises
    ------
    TraceError
        Nothing that is mapped matches.
    """
    files = profile.spaces.files()
    if not files:
        raise TraceError(
            image.path, "cannot be found: the recording has no mappings, which map addresses "
            "to files (perf script prints them with --show-mmap-events)"
        )
    own, real = image.build_id, os.path.realpath(image.path)
    found = {file for file in files if _same_build(file[1], own)}
    if found:
        return found
    named = {file for file in files if os.path.realpath(file[0]) == real}
    named = named or {
        file for file in files if os.path.basename(file[0]) == os.path.basename(real)
    }
    others = {build for _, build in named if build and own}
    if others:
        raise TraceError(
            image.path, f"has the build-id {own.hex()}; what was recorded under that name has "
            + ", ".join(sorted(build.hex() for build in others))
        )
    if len({path for path, _ in named}) == 1:
        return named
    if named:
        paths = ", ".join(sorted(path for path, _ in named))
        raise TraceError(image.path, f"may be any of {paths}, by its name; give its own path")
    raise TraceError(
        image.path, f"was not recorded under this path or name, nor with its build-id "
        f"({own.hex() or 'it has none'}); the samples are in {_places(profile)}"
    )


def _places(profile: Profile) -> str:
    """The files that most branches leave from, with their share."""
    edges, counts = profile.edges, Counter[str]()
    for space, address, count in edges[["pid", "first", "count"]].tolist():
        mapped = profile.spaces.find(space, address)
        counts[mapped.path if mapped else "nothing that is mapped"] += count
    if not counts:
        return "no file: there are no branches"
    names = [
        f"{path} ({count / counts.total():.0%})"
        for path, count in counts.most_common(_MOST_NAMES)
    ]
    return ", ".join(names) + (", ..." if len(counts) > _MOST_NAMES else "")


def link_profile(profile: Profile, path: str | os.PathLike[str]) -> LinkProfile:
    """The part of `profile` that concerns the binary at `path`.

    Raises
    ------
    OSError, ValueError
        `path` is not a readable ELF file.
    TraceError
        It is none of the files that were recorded.
    """
    linker = _Linker(profile, os.fspath(path))
    taken: Counter[tuple[int, int]] = Counter()
    missed: Counter[tuple[int, int]] = Counter()
    traces: Counter[tuple[int, int, int]] = Counter()
    ips: Counter[int] = Counter()
    edges = profile.edges
    for first, last, count, mispredicted in zip(
        linker.addresses(edges["pid"], edges["first"]),
        linker.addresses(edges["pid"], edges["last"]),
        edges["count"].tolist(), edges["mispredicted"].tolist(), strict=True,
    ):  # fmt: skip
        if (first, last) != (OUTSIDE, OUTSIDE):
            taken[first, last] += count
            missed[first, last] += mispredicted
    table = profile.traces
    columns = [linker.addresses(table["pid"], table[n]) for n in ("first", "last", "origin")]
    for first, last, origin, count in zip(*columns, table["count"].tolist(), strict=True):
        if OUTSIDE not in (first, last):
            traces[origin, first, last] += count
    for address, count in zip(
        linker.addresses(profile.ips["pid"], profile.ips["address"]),
        profile.ips["count"].tolist(), strict=True,
    ):  # fmt: skip
        if address != OUTSIDE:
            ips[address] += count
    edge_counts = {key: (taken[key], missed[key]) for key in sorted(taken)}
    return LinkProfile(
        linker.image, edge_counts, dict(sorted(traces.items())), dict(sorted(ips.items())),
        int(edges["count"].sum()),
    )  # fmt: skip
