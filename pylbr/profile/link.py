"""Counts for one binary, at its link addresses: what BOLT's and AutoFDO's texts hold."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pylbr.profile.aggregate import Profile
from pylbr.profile.symbols import ElfImage

__all__ = ["LinkProfile", "link_profile"]

#: An address outside of the binary.
OUTSIDE = -1


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """Counts at link addresses, summed over processes.

    Attributes
    ----------
    image : ElfImage
    edges : dict of (from, to) to (count, mispredicted)
        One of the two may be `OUTSIDE`.
    runs : dict of (first, last) to (count, entered)
        `last` is the address of the branch that ends the run; `entered` of the `count` began
        with a branch from outside of the binary.
    ips : dict of address to count
    """

    image: ElfImage
    edges: dict[tuple[int, int], tuple[int, int]]
    runs: dict[tuple[int, int], tuple[int, int]]
    ips: dict[int, int]


class _Linker:
    """(pid, address) -> link address in one binary."""

    def __init__(self, profile: Profile, path: str) -> None:
        self._spaces = profile.spaces
        self._real = os.path.realpath(path)
        self.image = ElfImage(path)
        self._same: dict[str, bool] = {}
        self._known: dict[tuple[int, int], int] = {}

    def _is_binary(self, path: str) -> bool:
        if path not in self._same:
            self._same[path] = os.path.realpath(path) == self._real
        return self._same[path]

    def address(self, pid: int, address: int) -> int:
        key = pid, address
        if key not in self._known:
            link = None
            mapped = self._spaces.find(pid, address)
            if mapped is not None and self._is_binary(mapped.path):
                link = self.image.link_address(mapped.offset + address - mapped.start)
            self._known[key] = OUTSIDE if link is None else link
        return self._known[key]

    def addresses(self, pids: NDArray[np.int64], addresses: NDArray[np.uint64]) -> list[int]:
        return [
            self.address(p, a) for p, a in zip(pids.tolist(), addresses.tolist(), strict=True)
        ]


def link_profile(profile: Profile, path: str | os.PathLike[str]) -> LinkProfile:
    """The part of `profile` that concerns the binary at `path`.

    Raises
    ------
    OSError, ValueError
        `path` is not a readable ELF file.
    """
    linker = _Linker(profile, os.fspath(path))
    taken: Counter[tuple[int, int]] = Counter()
    missed: Counter[tuple[int, int]] = Counter()
    runs: Counter[tuple[int, int]] = Counter()
    entered: Counter[tuple[int, int]] = Counter()
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
            runs[first, last] += count
            entered[first, last] += count if origin == OUTSIDE else 0
    for address, count in zip(
        linker.addresses(profile.ips["pid"], profile.ips["address"]),
        profile.ips["count"].tolist(), strict=True,
    ):  # fmt: skip
        if address != OUTSIDE:
            ips[address] += count
    edge_counts = {key: (taken[key], missed[key]) for key in sorted(taken)}
    run_counts = {key: (runs[key], entered[key]) for key in sorted(runs)}
    return LinkProfile(linker.image, edge_counts, run_counts, dict(sorted(ips.items())))
