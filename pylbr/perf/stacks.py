"""Files of branch stacks: what a profiler recorded, sample by sample.

A trace holds every branch; a file of stacks holds, at each sample, the newest few.  The
two are different things and no code here turns one into the other.

A stream of stacks is `StacksMetadata` and then records in the order of the file: batches
of samples (`Samples`) and, between them, the kernel's records of mappings and tasks
(`Mmap`, `Comm`, `Fork`, `Exit`, `Lost`).  The writers of `pylbr.profile` take the same stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from pylbr.errors import TraceError
from pylbr.files.closing import Closing
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, SampleType
from pylbr.printable import printable

__all__ = [
    "BuildId", "Comm", "Event", "Exit", "Fork", "Lost", "Mmap", "Record", "Samples", "Stacks",
    "StacksMetadata", "with_branches",
]

#: Samples that a notebook shows.
_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Mmap:
    """A file mapped into a process (PERF_RECORD_MMAP, MMAP2).

    Attributes
    ----------
    pid, tid : int
        -1 as `pid` for the kernel and its modules.
    start, length, file_offset : int
        Linear address and size of the mapping in bytes, and where in the file it begins.
    build_id : bytes
        Empty if the record has none; then `major` to `generation` name the inode.
    """

    pid: int
    tid: int
    start: int
    length: int
    file_offset: int
    path: str
    build_id: bytes = b""
    major: int = 0
    minor: int = 0
    inode: int = 0
    generation: int = 0
    prot: int = 5
    flags: int = 2
    misc: int = 2
    time: int = 0
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class Comm:
    """A task's name (PERF_RECORD_COMM); `exec_` if by execve."""

    pid: int
    tid: int
    name: str
    exec_: bool = False
    time: int = 0
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class _Task:
    pid: int
    ppid: int
    tid: int
    ptid: int
    time: int = 0
    cpu: int = 0


@dataclass(frozen=True, slots=True)
class Fork(_Task):
    """A new task (PERF_RECORD_FORK): `pid` and `tid`, begun by `ppid` and `ptid`."""


@dataclass(frozen=True, slots=True)
class Exit(_Task):
    """A task's end (PERF_RECORD_EXIT); fields as `Fork`."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Records that the kernel could not store (PERF_RECORD_LOST, LOST_SAMPLES)."""

    count: int
    time: int = 0


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples in a row.  Every array has one element per sample unless stated otherwise.

    Attributes
    ----------
    ip, time, period : (n,) uint64 array
        Linear address, nanoseconds, event count since the previous sample.
    pid, tid : (n,) int32 array
    cpu : (n,) uint32 array
    event : (n,) uint16 array
        Index into `StacksMetadata.events`.
    misc : (n,) uint16 array
        ``misc`` of the record's header: privilege in the low three bits.
    offsets : (n + 1,) int64 array
        Sample ``i`` owns ``entries[offsets[i]:offsets[i + 1]]``.
    entries : (k,) array of `abi.BRANCH_ENTRY_DTYPE`
        Newest first within each sample.
    hw_idx : (n,) uint64 array or None
        Present if the event asked for HW_INDEX.
    counters : (k,) uint64 array or None
        Present if the event asked for COUNTERS: what each of the logged events counted in the
        entry, two bits each, saturated at 3; the event of the lowest counter is in bits 1:0.
    chain_offsets : (n + 1,) int64 array or None
        Call chains: sample ``i`` owns ``chain[chain_offsets[i]:chain_offsets[i + 1]]``.
    chain : (c,) uint64 array or None
    """

    ip: np.ndarray
    pid: np.ndarray
    tid: np.ndarray
    time: np.ndarray
    cpu: np.ndarray
    period: np.ndarray
    event: np.ndarray
    misc: np.ndarray
    offsets: np.ndarray
    entries: np.ndarray
    hw_idx: np.ndarray | None = None
    counters: np.ndarray | None = None
    chain_offsets: np.ndarray | None = None
    chain: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ip)

    def __repr__(self) -> str:
        pids = ", ".join(map(str, np.unique(self.pid)[:5].tolist()))
        more = ", ..." if len(np.unique(self.pid)) > 5 else ""
        entries = int(self.offsets[-1] - self.offsets[0])
        return f"Samples: {len(self):,} with {entries:,} entries" + (
            f", of process {pids}{more}" if pids else "")

    def _repr_html_(self) -> str:
        from pylbr.tables import Table  # not before: it takes long to load

        rows = []
        for i in range(min(len(self), _SHOWN)):
            stack = self.stack(i)
            newest = (f"{stack['from'][0]:#x}", f"{stack['to'][0]:#x}") if len(stack) else ("", "")
            rows.append((str(i), f"{self.ip[i]:#x}", str(self.pid[i]), str(self.tid[i]),
                         str(self.time[i]), str(len(stack)), *newest))
        head = ("#", "ip", "pid", "tid", "time", "entries", "newest from", "to")
        more = f" (the first {_SHOWN})" if len(self) > _SHOWN else ""
        table = Table(rows, head, frozenset(range(len(head))))._repr_html_()
        return f"<div><p>{self!r}{more}</p>\n{table}</div>"

    def stack(self, i: int) -> np.ndarray:
        """Entries of sample `i`, newest first (a view)."""
        return self.entries[self.offsets[i]:self.offsets[i + 1]]

    @classmethod
    def build(
        cls, offsets: np.ndarray, entries: np.ndarray, *, ip: object = 0, pid: object = 0,
        tid: object = 0, time: object = 0, cpu: object = 0, period: object = 1,
        event: object = 0, misc: object = 2, **optional: Any,
    ) -> Samples:
        """Samples from whatever the source has; a scalar stands for all samples."""
        n = len(offsets) - 1
        columns = {
            "ip": (ip, np.uint64), "pid": (pid, np.int32), "tid": (tid, np.int32),
            "time": (time, np.uint64), "cpu": (cpu, np.uint32), "period": (period, np.uint64),
            "event": (event, np.uint16), "misc": (misc, np.uint16),
        }
        arrays: dict[str, Any] = {
            name: np.ascontiguousarray(np.broadcast_to(np.asarray(value, dtype), (n,)))
            for name, (value, dtype) in columns.items()
        }
        return cls(
            offsets=np.ascontiguousarray(offsets, np.int64),
            entries=np.ascontiguousarray(entries, BRANCH_ENTRY_DTYPE), **arrays, **optional,
        )


#: What a stream of stacks is made of.
Record = Samples | Mmap | Comm | Fork | Exit | Lost


@dataclass(frozen=True, slots=True)
class Event:
    """What was sampled: the parts of ``perf_event_attr`` that readers and writers need.

    Attributes
    ----------
    name : str
        As the file's EVENT_DESC names it; may be empty.
    type, config : int
        ``PERF_TYPE_*`` and the event's code.
    period : int
        Fixed period, or the frequency in hertz if `flags` has AttrFlag.FREQ.
    sample_type, read_format, branch_sample_type, flags : int
        `abi.SampleType`, `ReadFormat`, `BranchSample`, `AttrFlag`.
    ids : tuple of int
        Kernel ids of the event's instances, by which samples name it.
    attr : bytes
        The structure as the file has it; empty if the source was text.
    """

    name: str = ""
    type: int = 0
    config: int = 0
    period: int = 0
    sample_type: int = int(SampleType.IP | SampleType.TID | SampleType.BRANCH_STACK)
    read_format: int = 0
    branch_sample_type: int = 0
    flags: int = 0
    ids: tuple[int, ...] = ()
    attr: bytes = b""


@dataclass(frozen=True, slots=True)
class BuildId:
    """Build-id of a file that was mapped while recording (feature BUILD_ID)."""

    path: str
    build_id: bytes
    pid: int = -1
    misc: int = 2


@dataclass(frozen=True, slots=True)
class StacksMetadata:
    """What the head of a file of stacks contains; empty where the format has no place for it."""

    events: tuple[Event, ...] = ()
    hostname: str = ""
    os_release: str = ""
    perf_version: str = ""
    arch: str = ""
    cpu_description: str = ""
    cpuid: str = ""
    command_line: tuple[str, ...] = ()
    cpus_online: int = 0
    cpus_available: int = 0
    total_memory: int = 0
    build_ids: tuple[BuildId, ...] = ()
    #: Names and values of what the processor's PMU can do.
    pmu_capabilities: tuple[tuple[str, str], ...] = ()
    #: Features present in the source whose content is not kept, by name.
    other_features: tuple[str, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)


class Stacks(Closing):
    """An open stream of stacks: metadata, then records, once.

    Parameters
    ----------
    metadata : StacksMetadata
    records : iterable of Record
        In the order of the source.  perf writes each CPU's buffer in turn, so that
        `time` may step back.
    path : object
        What the records come from, for messages.
    close : callable, optional
        Called at the end.

    Attributes
    ----------
    reopen : callable or None
        Gives the same stream from its beginning, where the source can be read twice.
    build_ids : dict of str to bytes
        Build-ids by path, as far as the head of the file has them.
    """

    def __init__(
        self, metadata: StacksMetadata, records: Iterable[Record], path: object = "<memory>",
        close: Callable[[], None] | None = None,
    ) -> None:
        self._metadata = metadata
        self.path = str(path)
        self._records = iter(records)
        self._close = close
        self.reopen: Callable[[], Stacks] | None = None
        self.build_ids = {build.path: build.build_id for build in metadata.build_ids}

    @property
    def metadata(self) -> StacksMetadata:
        """What the head of the file contains."""
        return self._metadata

    def __iter__(self) -> Iterator[Record]:
        return self._records

    def __repr__(self) -> str:
        events = ", ".join(event.name or f"type {event.type}, config {event.config:#x}"
                           for event in self._metadata.events)
        command = " ".join(self._metadata.command_line)
        return printable(f"Stacks {self.path!r}" + (f"; events: {events}" if events else "")
                         + (f"; recorded by: {command}" if command else ""))

    def samples(self) -> Iterator[Samples]:
        """The batches of samples alone."""
        return (record for record in self._records if isinstance(record, Samples))

    def close(self) -> None:
        """Close the source; a second call does nothing."""
        if self._close is not None:
            self._close()
            self._close = None


def with_branches(source: Stacks, context: str) -> Iterator[Record]:
    """The records of `source`; at its end a fault if there was no branch in them.

    Parameters
    ----------
    source : Stacks
    context : str
        What cannot be done then, for the message.

    Raises
    ------
    TraceError
        No sample, or none that holds a branch: nothing found is no result.
    """
    samples = 0
    found = False
    for record in source:
        yield record
        if isinstance(record, Samples):
            samples += len(record)
            # Entries 0 -> 0 are places that were never filled.
            found = found or bool(np.any(record.entries["from"] | record.entries["to"]))
    if not found:
        what = f"{samples:,} samples without one branch" if samples else "no samples"
        raise TraceError(source.path, f"holds {what}: {context}")
