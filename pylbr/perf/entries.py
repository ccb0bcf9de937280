"""Records of the facility as perf hands them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from pylbr.perf._entries import convert
from pylbr.perf.abi import MISC_KERNEL, MISC_USER, BranchSample
from pylbr.perf.batch import SampleBatch
from pylbr.perf.stacks import Samples

__all__ = ["perf_batches", "perf_samples"]

#: Samples converted at once: what they make stays in the cache until it is written.
_CHUNK = 2048


def perf_samples(batch: SampleBatch, branch_sample_type: int) -> Samples:
    """Samples as the kernel's PMI handler leaves them.

    Architectural LBRs, and call stacks, end at the first entry with FROM 0.  FROM all ones
    came from a privilege level that is filtered out; it decodes to no branch and is left out,
    and so is an entry from a kernel address where only user branches are asked for.  Where one
    of these is known to be an IRET, the stack ends: it may have led from the code before it to a
    signal's handler, which would look like a straight way.  (Linux continues.)  A part
    without BR_TYPE is taken to be a legacy one: its whole stack is read, and if nothing is to
    be filtered (ANY, not TYPE_SAVE, both privileges) it stays as it is, empty entries too.

    ``predicted`` is the opposite of ``mispred`` where the processor reports either, cycles are 0
    unless valid, and the type is filled in where the processor records it or TYPE_SAVE asks
    for it: from `classes`, or from BR_TYPE, whose codes for OTHER_BRANCH mean nothing to perf.

    Parameters
    ----------
    batch : SampleBatch
    branch_sample_type : int
        `BranchSample` bits; HW_INDEX and COUNTERS decide which optional arrays there are.

    Notes
    -----
    ``arch/x86/events/intel/lbr.c`` (read, filter), ``arch/x86/events/utils.c`` (types).
    """
    offsets, entries, counters = convert(batch, branch_sample_type)
    hw_idx = None
    if branch_sample_type & BranchSample.HW_INDEX:
        hw_idx = np.full(len(batch), ~np.uint64(0)) if batch.hw_idx is None else batch.hw_idx
    return Samples(
        ip=batch.ip, pid=batch.pid, tid=batch.tid, time=batch.time, cpu=batch.cpu,
        period=batch.period, event=batch.event,
        misc=np.where(batch.ip >> np.uint64(63), MISC_KERNEL, MISC_USER).astype(np.uint16),
        offsets=offsets, entries=entries, hw_idx=hw_idx,
        counters=counters,
    )  # fmt: skip


def perf_batches(batches: Iterable[SampleBatch], branch_sample_type: int) -> Iterator[Samples]:
    """`perf_samples` of each batch, cut into pieces that writers take at full speed.

    `pylbr.profile.decode.TypeDecoder.fill` adds the types that the records lack.
    """
    for batch in batches:
        for first in range(0, len(batch), _CHUNK):
            yield perf_samples(batch.select(slice(first, first + _CHUNK)), branch_sample_type)
