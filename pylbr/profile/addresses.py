"""Address spaces: what file lies where in each process."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from pylbr.trace.stacks import Fork, Mmap, Record

__all__ = ["AddressSpaces", "Mapped"]

_KERNEL = -1
_KERNEL_HALF = 1 << 63


@dataclass(frozen=True, slots=True, order=True)
class Mapped:
    """A piece of a file in memory: ``[start, end)``, beginning at `offset` of the file."""

    start: int
    end: int
    offset: int
    path: str
    build_id: bytes = b""

    def cut(self, start: int, end: int) -> list[Mapped]:
        """What is left when ``[start, end)`` is mapped anew."""
        pieces = []
        if self.start < start:
            pieces.append(self._piece(self.start, min(self.end, start)))
        if self.end > end:
            pieces.append(self._piece(max(self.start, end), self.end))
        return pieces

    def _piece(self, start: int, end: int) -> Mapped:
        return Mapped(start, end, self.offset + start - self.start, self.path, self.build_id)


def _insert(space: list[Mapped], new: Mapped) -> None:
    """Map `new` over what is there."""
    first = bisect_right(space, new.start, key=lambda mapped: mapped.start)
    if first and space[first - 1].end > new.start:
        first -= 1
    last = first
    while last < len(space) and space[last].start < new.end:
        last += 1
    pieces = [piece for old in space[first:last] for piece in old.cut(new.start, new.end)]
    space[first:last] = sorted([*pieces, new])


class AddressSpaces:
    """Mappings of every process, as MMAP, MMAP2 and FORK records tell them.

    A later mapping hides what it covers of the ones before; nothing else removes one, so that
    a lookup after the end of the stream finds the code of processes that are gone.
    """

    def __init__(self) -> None:
        # By start, without overlaps.  A child shares its parent's list until one of both maps
        # something: a shell forks thousands of times.
        self._spaces: dict[int, list[Mapped]] = {}
        self._shared: set[int] = set()

    def add(self, record: Record) -> None:
        """Take note of a mapping or a new process; other records are of no account."""
        if isinstance(record, Mmap) and record.length > 0:
            space = self._spaces.setdefault(record.pid, [])
            if record.pid in self._shared:
                self._shared.discard(record.pid)
                space = self._spaces[record.pid] = list(space)
            _insert(space, Mapped(
                record.start, record.start + record.length, record.file_offset, record.path,
                record.build_id,
            ))  # fmt: skip
        elif isinstance(record, Fork) and record.pid != record.ppid:
            self._spaces[record.pid] = self._spaces.setdefault(record.ppid, [])
            self._shared |= {record.pid, record.ppid}

    def find(self, pid: int, address: int) -> Mapped | None:
        """The mapping that `address` lies in."""
        for owner in (_KERNEL, pid) if address >= _KERNEL_HALF else (pid,):
            space = self._spaces.get(owner, [])
            at = bisect_right(space, address, key=lambda mapped: mapped.start)
            if at and address < space[at - 1].end:
                return space[at - 1]
        return None

    def mappings(self, pid: int) -> list[Mapped]:
        """Mappings of one process, by address."""
        return list(self._spaces.get(pid, ()))

    def pids(self) -> list[int]:
        """Processes with a mapping; -1 is the kernel."""
        return sorted(self._spaces)
