"""Address spaces: which file is mapped where in each process, and from when on.

A process has one address space until it executes another program, or maps something else where
code was; each of these has an identifier, which takes the place of the pid wherever addresses are
counted.  The first one of a process has the pid itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pylbr.perf.stacks import Comm, Fork, Mmap, Record, Samples

__all__ = ["AddressSpaces", "Mapped"]

_KERNEL = -1
_KERNEL_HALF = 1 << 63
#: Identifiers of further spaces go down from here, where no pid is.
_FIRST_FURTHER = -2


@dataclass(frozen=True, slots=True, order=True)
class Mapped:
    """A piece of a file in memory: ``[start, end)``, beginning at `offset` of the file."""

    start: int
    end: int
    offset: int
    path: str
    build_id: bytes = b""

    def cut(self, start: int, end: int) -> list[Mapped]:
        """What is left when ``[start, end)`` is mapped again."""
        pieces = []
        if self.start < start:
            pieces.append(self._piece(self.start, min(self.end, start)))
        if self.end > end:
            pieces.append(self._piece(max(self.start, end), self.end))
        return pieces

    def _piece(self, start: int, end: int) -> Mapped:
        return Mapped(start, end, self.offset + start - self.start, self.path, self.build_id)

    def agrees(self, other: Mapped) -> bool:
        """Whether an address in both is the same byte of the same file, or of none."""
        if self.path != other.path:
            return False
        return self.offset - self.start == other.offset - other.start or self.path.startswith("//")


def _overlapped(space: list[Mapped], new: Mapped) -> slice:
    """The mappings that `new` covers a part of."""
    first = bisect_right(space, new.start, key=lambda mapped: mapped.start)
    if first and space[first - 1].end > new.start:
        first -= 1
    last = first
    while last < len(space) and space[last].start < new.end:
        last += 1
    return slice(first, last)


class AddressSpaces:
    """Mappings of every process over time, as MMAP, MMAP2, FORK and COMM records give them.

    Records may come in any order of time: those that change nothing that was there before are
    taken as they come, and one that is too late for that sets `late`; `in_order` then gives the
    spaces with all records sorted by time.  Where samples have no time, the order of the stream
    is that of time.

    Parameters
    ----------
    build_ids : mapping of str to bytes, optional
        Build-ids of files whose mappings come without.

    Attributes
    ----------
    late : bool
        A record was earlier than a sample or record that it should have come before.
    """

    def __init__(self, build_ids: Mapping[str, bytes] | None = None) -> None:
        self._build_ids = build_ids or {}
        self._log: list[Mmap | Fork | Comm] = []
        self._applied = 0
        self._timed: bool | None = None  # until there is a sample to decide it
        self.late = False
        # By identifier, each list by start and without overlaps.  A child shares its parent's
        # list until one of both maps something: a shell forks thousands of times.
        self._spaces: dict[int, list[Mapped]] = {}
        self._shared: set[int] = set()
        # Of processes with several spaces: when each began (the first at 0), and identifiers.
        self._begins: dict[int, list[int]] = {}
        self._ids: dict[int, list[int]] = {}
        self._pids: dict[int, int] = {}
        # Of each process: the latest time of a sample or record, and of a FORK from it.
        self._latest: dict[int, int] = {}
        self._forked: dict[int, int] = {}
        self._sampled: set[int] = set()  # identifiers with samples; kept where there is no time
        self._mapping: set[int] = set()
        self._complete = False
        self._with_pid = self._without_pid = False
        self._owner: int | None = None  # of samples without a pid

    # Records --------------------------------------------------------------------------

    def add(self, record: Record) -> None:
        """Take note of a mapping, a new process or an exec; other records have no effect."""
        if not self._complete and (
            (isinstance(record, Mmap) and record.length > 0)
            or (isinstance(record, Fork) and record.pid != record.ppid)
            or (isinstance(record, Comm) and record.exec_)
        ):
            self._log.append(record)

    def in_order(self) -> AddressSpaces:
        """The spaces for a second reading of the stream, whose records may all be added again.

        They have all records from the beginning, sorted by time: at the same time FORK, exec,
        mapping.
        """
        ordered = AddressSpaces(self._build_ids)
        ordered._timed = self._timed
        ordered._owner = next(iter(self.processes()), None)
        if self._timed:
            rank: dict[type, int] = {Fork: 0, Comm: 1, Mmap: 2}
            ordered._log = sorted(self._log, key=lambda r: (r.time, rank[type(r)]))
            ordered._apply()
            ordered._complete = True
        return ordered

    def _apply(self) -> None:
        """Bring the spaces up to date."""
        if self._timed is None and self._log:
            # A FORK has a time even where nothing else has.
            self._timed = any(r.time for r in self._log if not isinstance(r, Fork))
        while self._applied < len(self._log):
            record = self._log[self._applied]
            self._applied += 1
            time = record.time if self._timed else 0
            if isinstance(record, Mmap):
                self._map(record, time)
            elif isinstance(record, Fork):
                self._fork(record, time)
            elif isinstance(record, Comm):
                self._exec(record.pid, time)

    def _at(self, pid: int, time: int) -> tuple[int, bool]:
        """Identifier of the space of a process at a time, and whether it is the last one."""
        begins = self._begins.get(pid)
        if begins is None:
            return pid, True
        at = max(bisect_right(begins, time) - 1, 0)
        return self._ids[pid][at], at == len(begins) - 1

    def _map(self, record: Mmap, time: int) -> None:
        pid = record.pid
        new = Mapped(
            record.start, record.start + record.length, record.file_offset, record.path,
            record.build_id or self._build_ids.get(record.path, b""),
        )  # fmt: skip
        self._mapping.add(pid)
        space, last = self._at(pid, time)
        there = self._spaces.get(space, [])
        if pid == _KERNEL:
            pass  # one space at all times: a module in another's place hides it
        elif any(not old.agrees(new) for old in there[_overlapped(there, new)]):
            if time < self._latest.get(pid, 0):
                self.late = True
                return
            space = self._next(pid, time, there)
        elif not last or time < self._forked.get(pid, 0):
            self.late = True
            return
        self._latest[pid] = max(time, self._latest.get(pid, 0))
        self._insert(space, new)

    def _insert(self, space: int, new: Mapped) -> None:
        """Map `new` over what is there."""
        table = self._spaces.setdefault(space, [])
        if space in self._shared:
            self._shared.discard(space)
            table = self._spaces[space] = list(table)
        covered = _overlapped(table, new)
        pieces = [piece for old in table[covered] for piece in old.cut(new.start, new.end)]
        table[covered] = sorted([*pieces, new])

    def _next(self, pid: int, time: int, table: list[Mapped]) -> int:
        """The space of a process from `time` on, which begins with a copy of `table`.

        It is a further one if the process may have been sampled in the one before.
        """
        space, _ = self._at(pid, time)
        begin = self._begins.get(pid, [0])[-1]
        if time > begin if self._timed else space in self._sampled:
            further = _FIRST_FURTHER - len(self._pids)
            self._pids[further] = pid
            self._begins.setdefault(pid, [0]).append(time)
            self._ids.setdefault(pid, [pid]).append(further)
            space = further
        self._spaces[space] = list(table)
        self._shared.discard(space)
        return space

    def _exec(self, pid: int, time: int) -> None:
        space, _ = self._at(pid, time)
        begin = self._begins.get(pid, [0])[-1]
        if not self._spaces.get(space) or (self._timed and time == begin):
            return  # nothing that could go
        if time < self._latest.get(pid, 0):
            self.late = True
            return
        self._latest[pid] = time
        self._next(pid, time, [])

    def _fork(self, record: Fork, time: int) -> None:
        pid, parent = record.pid, record.ppid
        if time < self._latest.get(pid, 0):
            self.late = True
            return
        origin, _ = self._at(parent, time)
        table = self._spaces.setdefault(origin, [])
        space, _ = self._at(pid, time)
        if pid in self._latest or self._spaces.get(space):
            space = self._next(pid, time, [])  # the pid is used again
        self._spaces[space] = table
        self._shared |= {space, origin}
        self._latest[pid] = time
        self._forked[parent] = max(time, self._forked.get(parent, 0))

    # Samples --------------------------------------------------------------------------

    def keyed(self, samples: Samples) -> Samples:
        """The samples with the identifier of their space, at their time, in place of the pid.

        Samples without a pid are of the only process with mappings, if there is one.
        """
        if not len(samples):
            return samples
        if self._timed is None:
            self._timed = bool(samples.time.any())
        self._apply()
        pid = samples.pid
        self._with_pid = self._with_pid or bool(pid.any())
        if not self._with_pid and 0 not in self._mapping:
            self._without_pid = True
            owners = self.processes()
            owner = owners[0] if len(owners) == 1 else self._owner
            if owner is not None:
                pid = np.full(len(pid), owner, np.int32)
            else:
                self._sampled.add(0)
        spaces = self._at_times(pid, samples.time)
        return samples if spaces is samples.pid else replace(samples, pid=spaces)

    def _at_times(self, pid: NDArray[np.int32], time: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Identifiers for samples; `pid` itself where all are in their first spaces."""
        if (pid == pid[0]).all():
            return self._spaces_of(int(pid[0]), time, pid)
        order = np.argsort(pid, kind="stable")
        cuts = np.flatnonzero(np.diff(pid[order])) + 1
        result = pid
        for rows in np.split(order, cuts):
            own = pid[rows]
            found = self._spaces_of(int(own[0]), time[rows], own)
            if found is not own:
                result = result.copy() if result is pid else result
                result[rows] = found
        return result

    def _spaces_of(
        self, pid: int, time: NDArray[np.uint64], default: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        begins = self._begins.get(pid)
        if not self._timed:
            space, _ = self._at(pid, 0)
            self._sampled.add(space)
            return default if begins is None else np.full(len(default), space, np.int32)
        self._latest[pid] = max(int(time.max()), self._latest.get(pid, 0))
        if begins is None:
            return default
        at = np.searchsorted(np.array(begins, "u8"), time, side="right") - 1
        return np.array(self._ids[pid], np.int32)[np.maximum(at, 0)]

    def settle(self) -> str:
        """To be called after the last record.

        Returns
        -------
        str
            Empty, or why the samples cannot be attributed to processes.
        """
        self._apply()
        owners = self.processes()
        if self._with_pid or not self._without_pid or not owners:
            return ""
        if len(owners) > 1:
            names = ", ".join(map(str, owners[:5])) + (", ..." if len(owners) > 5 else "")
            return (
                f"its samples have no pid, and {len(owners)} processes are mapped ({names}); "
                "print the pid too (perf script -F +pid)"
            )
        self.late |= 0 in self._sampled
        return ""

    # Lookup ---------------------------------------------------------------------------

    def find(self, space: int, address: int) -> Mapped | None:
        """The mapping that `address` lies in, in the space with that identifier."""
        self._apply()
        for owner in (_KERNEL, space) if address >= _KERNEL_HALF else (space,):
            table = self._spaces.get(owner, [])
            at = bisect_right(table, address, key=lambda mapped: mapped.start)
            if at and address < table[at - 1].end:
                return table[at - 1]
        return None

    def pid_of(self, space: int) -> int:
        """The process of a space."""
        return self._pids.get(space, space)

    def processes(self) -> list[int]:
        """Processes that mapped something themselves, without the kernel."""
        self._apply()
        return sorted(self._mapping - {_KERNEL})

    def mappings(self, space: int) -> list[Mapped]:
        """Mappings of one space, by address."""
        self._apply()
        return list(self._spaces.get(space, ()))

    def spaces(self) -> list[int]:
        """Identifiers of all spaces; -1 is the kernel's."""
        self._apply()
        return sorted(self._spaces)

    def files(self) -> dict[tuple[str, bytes], None]:
        """Every (path, build-id) that is mapped anywhere, in the order of the spaces."""
        self._apply()
        return dict.fromkeys(
            (mapped.path, mapped.build_id) for table in self._spaces.values() for mapped in table
        )
