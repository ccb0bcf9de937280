"""Counts over a whole trace: every branch, not only those that a sample shows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lbrcore import BranchClass, BranchFlag
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, EntryFlag
from pylbr.perf.stacks import Mmap, Samples
from pylbr.profile._aggregate import PairTable
from pylbr.profile.address_space import AddressSpaces
from pylbr.profile.aggregate import Profile
from pylbr.profile.dtypes import IP_DTYPE
from pylbr.trace.trace import Chunk, Trace

__all__ = ["collect_trace", "spaces_of"]

_NO_BRANCH = (BranchClass.NOT_TAKEN, BranchClass.ZERO_CALL)
_MOST_CYCLES = 0xFFFF


def _taken(chunk: Chunk, before: int) -> tuple[NDArray[np.void], NDArray[np.uint32], int]:
    """The branches of a chunk that a facility would record, as perf entries, and their tasks.

    Cycles are those since the one before of them, at most FFFFH, as a record has them;
    `before` had passed since the last of the chunk before, the third result since this one's.
    """
    kept = np.arange(len(chunk))
    if "class" in chunk.columns:
        kept = np.flatnonzero(~np.isin(chunk.column("class"), _NO_BRANCH))
    entries = np.empty(len(kept), BRANCH_ENTRY_DTYPE)
    for side in ("from", "to"):
        entries[side] = chunk.column(side)[kept]
    total = np.cumsum(chunk.column("cycles"), dtype="u8") + np.uint64(before)
    cycles = np.minimum(np.diff(total[kept], prepend=np.uint64(0)), np.uint64(_MOST_CYCLES))
    entries["flags"] = cycles << np.uint64(4)
    if "flags" in chunk.columns:
        missed = chunk.column("flags")[kept] & np.uint8(BranchFlag.MISPRED) != 0
        entries["flags"] |= np.where(
            missed, np.uint64(EntryFlag.MISPRED), np.uint64(EntryFlag.PREDICTED)
        )
    since = (int(total[-1]) if len(total) else before) - (int(total[kept[-1]]) if len(kept) else 0)
    task = chunk.task
    return entries, np.zeros(len(kept), "u4") if task is None else task[kept], since


def collect_trace(trace: Trace, update: Callable[[int], object] | None = None) -> Profile:
    """Count the taken branches of a trace, read to its end.

    Branches that were not taken, and CALLs to the next instruction, are no edges, as no
    facility records them.  There are no samples in the result.

    Parameters
    ----------
    trace : Trace
    update : callable, optional
        Called with the number of branches of each chunk.
    """
    edges, runs = PairTable(), PairTable()
    pids = {task.tid: task.pid for task in trace.metadata.tasks}
    newest: dict[int, NDArray[np.void]] = {}
    entries = broken = since = 0
    for chunk in trace.chunks(("from", "to", "cycles", "class", "flags", "task")):
        taken, tasks, since = _taken(chunk, since)
        entries += len(taken)
        for task in np.unique(tasks).tolist():
            stack = taken[tasks == task][::-1]
            pid = pids.get(task, task)
            edges.add_edges(_stack(stack, pid))
            before = newest.get(task, stack[:0])
            broken += runs.add_runs(_stack(np.concatenate([stack, before]), pid))
            newest[task] = stack[:1]
        if update is not None:
            update(len(chunk))
    table = edges.to_array()
    return Profile(
        table, runs.to_array(), np.empty(0, IP_DTYPE), 0, entries, broken,
        spaces_of(trace, np.unique(table["pid"]).tolist()),
        mispredicts_measured=bool(edges.flags & EntryFlag.PREDICTED),
    )


def _stack(entries: NDArray[np.void], pid: int) -> Samples:
    return Samples.build(np.array([0, len(entries)]), entries, pid=pid)


def spaces_of(trace: Trace, pids: list[int]) -> AddressSpaces:
    """The modules of a trace, as mappings of the processes `pids`."""
    spaces = AddressSpaces()
    for module in trace.metadata.modules:
        for pid in pids if module.pid is None else [module.pid]:
            spaces.add(Mmap(
                pid, pid, module.start, module.size, module.file_offset, module.path,
                bytes.fromhex(module.build_id),
            ))  # fmt: skip
    return spaces
