"""Counts over a whole stream of branch stacks: edges, straight runs, mispredicts, functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pylbr.errors import TraceError
from pylbr.perf.abi import EntryFlag
from pylbr.perf.stacks import Record, Samples, Stacks
from pylbr.profile._aggregate import PairTable
from pylbr.profile.address_space import AddressSpaces
from pylbr.profile.dtypes import BRANCH_COUNT_DTYPE, IP_DTYPE
from pylbr.profile.history import Paths
from pylbr.profile.symbols import Symbols

__all__ = ["FunctionCounts", "Profile", "collect"]

_TOLD = EntryFlag.MISPRED | EntryFlag.PREDICTED


@dataclass(slots=True)
class FunctionCounts:
    """What the samples show of one function.

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
    spaces : AddressSpaces
        What the ``pid`` of the tables refers to: the identifier of an address space, which
        `AddressSpaces.pid_of` gives the process of.
    not_taken : int
        Entries of branches that were not taken; they are counted nowhere else.
    mispredicts_measured : bool
        Whether any entry has its prediction.
    by_place : bool
        Addresses are numbers of places, as `pylbr.profile.added` makes them of several inputs.
    """

    edges: NDArray[np.void]
    traces: NDArray[np.void]
    ips: NDArray[np.void]
    samples: int
    entries: int
    broken: int
    spaces: AddressSpaces = field(default_factory=AddressSpaces)
    not_taken: int = 0
    mispredicts_measured: bool = True
    by_place: bool = False

    @property
    def cycles_measured(self) -> bool:
        """Whether any entry has a count of cycles."""
        return bool(self.edges["timed"].any())

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


class _Counts:
    """Tables of one reading of a stream."""

    def __init__(self, build_ids: Mapping[str, bytes], spaces: AddressSpaces | None = None) -> None:
        self.edges, self.runs, self.ips = PairTable(), PairTable(), PairTable()
        self.spaces = AddressSpaces(build_ids) if spaces is None else spaces
        self.samples = self.entries = self.broken = 0

    def read(self, records: Iterable[Record], watch: Callable[[Samples], object] | None) -> None:
        """Count until the end, or until it proves to be in vain."""
        for record in records:
            if not isinstance(record, Samples):
                self.spaces.add(record)
                continue
            keyed = self.spaces.keyed(record)
            if self.spaces.late:
                continue
            self.entries += self.edges.add_edges(keyed)
            self.broken += self.runs.add_runs(keyed)
            self.ips.add_ips(keyed)
            self.samples += len(keyed)
            if watch is not None:
                watch(keyed)

    def profile(self) -> Profile:
        counted = self.ips.to_array()
        table = np.empty(len(counted), IP_DTYPE)
        table["address"], table["pid"], table["count"] = (
            counted["first"], counted["pid"], counted["count"],
        )  # fmt: skip
        return Profile(
            self.edges.to_array(), self.runs.to_array(), table, self.samples, self.entries,
            self.broken, self.spaces, self.edges.not_taken,
            mispredicts_measured=bool(self.edges.flags & _TOLD),
        )  # fmt: skip


def collect(records: Iterable[Record], paths: Paths | None = None) -> Profile:
    """Count a stream of stacks, read to its end.

    Where a mapping or task that concerns samples comes after them in the stream, though not in
    time, the stream is read once more.

    Parameters
    ----------
    records : iterable of Record
        A `pylbr.perf.stacks.Stacks`, or anything else that yields records.
    paths : Paths, optional
        Counts the branch history as well.

    Raises
    ------
    TraceError
        The stream has to be read once more and cannot be, or samples without a pid may be of
        several processes.
    """
    path = records.path if isinstance(records, Stacks) else "<memory>"
    build_ids = records.build_ids if isinstance(records, Stacks) else {}
    watch = None if paths is None else paths.add
    counts = _Counts(build_ids)
    counts.read(records, watch)
    fault = counts.spaces.settle()
    if fault:
        raise TraceError(path, fault)
    if counts.spaces.late:
        counts = _Counts(build_ids, counts.spaces.in_order())
        if paths is not None:
            paths.clear()
        with _once_more(records, path) as again:
            counts.read(again, watch)
        if counts.spaces.late:
            raise TraceError(path, "its mappings and tasks contradict each other")
    return counts.profile()


def _once_more(records: Iterable[Record], path: str) -> AbstractContextManager[Iterable[Record]]:
    """The same stream from its beginning."""
    if isinstance(records, Stacks):
        if records.reopen is not None:
            return records.reopen()
    elif iter(records) is not records:
        return nullcontext(records)
    raise TraceError(
        path, "its records are not in the order of time and have to be read twice; "
        "give a file that can be"
    )
