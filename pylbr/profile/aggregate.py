"""Counts over a whole stream of branch stacks: edges, straight runs, mispredicts, functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pylbr.profile._aggregate import PairTable
from pylbr.profile.addresses import AddressSpaces
from pylbr.profile.dtypes import BRANCH_COUNT_DTYPE, IP_DTYPE
from pylbr.profile.symbols import Symbols
from pylbr.trace.stacks import Record, Samples

__all__ = ["FunctionCounts", "Profile", "collect"]


@dataclass(slots=True)
class FunctionCounts:
    """What the samples say of one function.

    Attributes
    ----------
    samples : int
        Samples taken in it.
    branches, mispredicted : int
        Taken branches that leave from an instruction of it.
    entered : int
        Edges to its first byte.
    cycles : int
        Cycles of the straight runs in it.
    """

    function: str
    path: str
    samples: int = 0
    branches: int = 0
    mispredicted: int = 0
    entered: int = 0
    cycles: int = 0


@dataclass(eq=False)
class Profile:
    """Exact counts of a stream.

    Attributes
    ----------
    edges : ndarray of PAIR_DTYPE
        Taken branches, by pid, FROM and TO.
    traces : ndarray of PAIR_DTYPE
        Code between two neighbours of a stack, by pid, first address, address of the branch
        at its end, and FROM of the branch at its beginning.
    runs : ndarray of PAIR_DTYPE
        The same, whatever it began with.
    ips : ndarray of IP_DTYPE
        Samples by pid and instruction pointer.
    samples, entries : int
    broken : int
        Neighbours with FROM before the TO of the one before: no straight code connects them.
    """

    edges: NDArray[np.void]
    traces: NDArray[np.void]
    ips: NDArray[np.void]
    samples: int
    entries: int
    broken: int
    spaces: AddressSpaces = field(default_factory=AddressSpaces)

    @cached_property
    def runs(self) -> NDArray[np.void]:
        """Straight runs of every origin."""
        table = self.traces
        new = np.ones(len(table), bool)
        new[1:] = False
        for name in ("pid", "first", "last"):
            new[1:] |= table[name][1:] != table[name][:-1]
        begins = np.flatnonzero(new)
        result = table[begins]
        result["origin"] = 0
        if len(begins):
            for name in ("count", "mispredicted", "cycles", "timed"):
                result[name] = np.add.reduceat(table[name], begins)
        return result

    @cached_property
    def symbols(self) -> Symbols:
        """Names for the addresses; files are read when first asked for."""
        return Symbols(self.spaces)

    def branches(self) -> NDArray[np.void]:
        """Counts by branch instruction, `BRANCH_COUNT_DTYPE`, most mispredicted first."""
        edges = self.edges
        begins = np.flatnonzero(np.diff(edges["first"]) | np.diff(edges["pid"]).view("u8")) + 1
        begins = np.concatenate([[0], begins]) if len(edges) else begins
        result = np.zeros(len(begins), BRANCH_COUNT_DTYPE)
        result["address"], result["pid"] = edges["first"][begins], edges["pid"][begins]
        if len(begins):
            result["targets"] = np.diff(np.append(begins, len(edges)))
            for column in ("count", "mispredicted"):
                result[column] = np.add.reduceat(edges[column], begins)
        order = np.lexsort((result["address"], -result["mispredicted"].astype("i8")))
        return result[order]

    def functions(self) -> list[FunctionCounts]:
        """Counts by function, the most cycles, then branches, first.

        Addresses that no symbol covers are summed up under an empty name, by file.
        """
        table: dict[tuple[str, str], FunctionCounts] = {}

        def at(pid: int, address: int) -> FunctionCounts:
            place = self.symbols.place(pid, address)
            key = place.path, place.function
            if key not in table:
                table[key] = FunctionCounts(place.function, place.path)
            return table[key]

        for row in self.ips.tolist():
            at(row[1], row[0]).samples += row[2]
        for first, last, _, count, mispredicted, _, _, pid in self.edges.tolist():
            counts = at(pid, first)
            counts.branches += count
            counts.mispredicted += mispredicted
            target = self.symbols.place(pid, last)
            if target.function and target.offset == 0:
                at(pid, last).entered += count
        for _, last, _, _, _, cycles, _, pid in self.runs.tolist():
            at(pid, last).cycles += cycles
        return sorted(
            table.values(), key=lambda f: (-f.cycles, -f.branches, -f.samples, f.function, f.path)
        )


def collect(records: Iterable[Record]) -> Profile:
    """Count a stream of stacks (`pylbr.trace.stacks.Stacks` is one); it is read to its end."""
    edges, runs, ips = PairTable(), PairTable(), PairTable()
    spaces = AddressSpaces()
    samples = entries = broken = 0
    for record in records:
        if not isinstance(record, Samples):
            spaces.add(record)
            continue
        edges.add_edges(record)
        broken += runs.add_runs(record)
        samples += len(record)
        entries += len(record.entries)
        ips.add_ips(record)
    counted = ips.to_array()
    table = np.empty(len(counted), IP_DTYPE)
    table["address"], table["pid"], table["count"] = (
        counted["first"], counted["pid"], counted["count"],
    )  # fmt: skip
    return Profile(edges.to_array(), runs.to_array(), table, samples, entries, broken, spaces)
