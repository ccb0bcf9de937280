"""The slow, obvious twins of what `pylbr.perf` has compiled for its writers."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lbrcore import BranchClass
from pylbr.arch.bits import (
    INFO_BR_TYPE,
    INFO_CYC_CNT_VALID,
    INFO_IN_TSX,
    INFO_MISPRED,
    INFO_TSX_ABORT,
)
from pylbr.perf.abi import (
    BRANCH_COUNTER_BITS,
    BRANCH_COUNTERS,
    BRANCH_ENTRY_DTYPE,
    BRANCH_TYPE_NAMES,
    NEW_TYPE_NAMES,
    SPEC_NAMES,
    BranchSample,
    BranchType,
    EntryFlag,
    Record,
    SampleType,
    branch_type,
    entry_flags,
)
from pylbr.perf.batch import SampleBatch
from pylbr.perf.sample_layout import SampleLayout
from pylbr.perf.stacks import Samples

__all__ = ["convert", "format_stacks", "pack_samples", "sample_record"]

_ALL_ONES = (1 << 64) - 1


def _flags(info: int, mask: int, known: int | None, typed: bool) -> int:
    valid = info & INFO_CYC_CNT_VALID or not mask & INFO_CYC_CNT_VALID
    kind = 0
    if typed:
        if known is None and mask & INFO_BR_TYPE:
            known = info >> 56 & 0xF
            known = known if known <= BranchClass.NEAR_RET else None
        kind = branch_type(BranchClass(known)) if known is not None and known < 16 else 0
    return entry_flags(
        mispredicted=bool(mask & info & INFO_MISPRED),
        predicted=bool(mask & INFO_MISPRED and not info & INFO_MISPRED),
        in_tx=bool(mask & info & INFO_IN_TSX),
        abort=bool(mask & info & INFO_TSX_ABORT),
        cycles=info & mask & 0xFFFF if valid else 0,
        kind=kind,
    )


def convert(
    batch: SampleBatch, branch_sample_type: int
) -> tuple[NDArray[np.int64], NDArray[np.void], NDArray[np.uint64] | None]:
    """Twin of `pylbr.perf._entries.convert`."""
    typed = bool(batch.info_mask & INFO_BR_TYPE or branch_sample_type & BranchSample.TYPE_SAVE)
    user = bool(branch_sample_type & BranchSample.USER)
    kernel = bool(branch_sample_type & BranchSample.KERNEL)
    has_type = bool(batch.info_mask & INFO_BR_TYPE)
    stop_at_zero = has_type or branch_sample_type & BranchSample.CALL_STACK
    any_branch = branch_sample_type & BranchSample.ANY
    as_it_is = not stop_at_zero and not typed and user == kernel and any_branch
    offsets, entries, counters = [0], [], []
    for start, nr in zip(batch.starts.tolist(), batch.nr.tolist(), strict=True):
        for at in range(start, start + nr):
            source, target, info = (int(word) for word in batch.entries[at])
            known = None if batch.classes is None else int(batch.classes[at])
            if not as_it_is:
                if source == 0 and stop_at_zero:
                    break
                if source in (0, _ALL_ONES) or (user and not kernel and source >> 63):
                    if source and known == BranchClass.IRET:
                        break
                    continue
            entries.append((source, target, _flags(info, batch.info_mask, known, typed)))
            counters.append(info >> 32 & (1 << BRANCH_COUNTERS * BRANCH_COUNTER_BITS) - 1)
        offsets.append(len(entries))
    logged = branch_sample_type & BranchSample.COUNTERS
    return (
        np.array(offsets, "i8"), np.array(entries, BRANCH_ENTRY_DTYPE),
        np.array(counters, "u8") if logged else None,
    )  # fmt: skip


def sample_record(samples: Samples, i: int, layout: SampleLayout) -> bytes:
    """SAMPLE record of sample `i`."""
    kind, event_id = layout.sample_type, layout.ids[samples.event[i]]
    body = struct.pack("<Q", event_id) if kind & SampleType.IDENTIFIER else b""
    body += struct.pack("<Qii", samples.ip[i], samples.pid[i], samples.tid[i])
    if kind & SampleType.TIME:
        body += struct.pack("<Q", samples.time[i])
    if kind & SampleType.ID:
        body += struct.pack("<Q", event_id)
    if kind & SampleType.CPU:
        body += struct.pack("<Q", samples.cpu[i])
    if kind & SampleType.PERIOD:
        body += struct.pack("<Q", samples.period[i])
    if kind & SampleType.CALLCHAIN:
        chain = np.zeros(0, "u8")
        if samples.chain is not None and samples.chain_offsets is not None:
            chain = samples.chain[samples.chain_offsets[i] : samples.chain_offsets[i + 1]]
        body += struct.pack("<Q", len(chain)) + chain.tobytes()
    first, end = samples.offsets[i], samples.offsets[i + 1]
    body += struct.pack("<Q", end - first)
    if layout.branch_sample_type & BranchSample.HW_INDEX:
        body += struct.pack("<Q", _ALL_ONES if samples.hw_idx is None else samples.hw_idx[i])
    body += samples.entries[first:end].tobytes()
    if layout.branch_sample_type & BranchSample.COUNTERS:
        counters = samples.counters
        body += bytes(8 * (end - first)) if counters is None else counters[first:end].tobytes()
    if len(body) + 8 >= 1 << 16:
        raise ValueError(f"sample {i}: {end - first} entries do not fit in a record")
    return struct.pack("<IHH", Record.SAMPLE, samples.misc[i], 8 + len(body)) + body


def pack_samples(
    out: NDArray[np.uint64], first: int, samples: Samples, layout: SampleLayout
) -> tuple[int, int]:
    """Twin of `pylbr.perf._data_writer.pack_samples`."""
    used = 0
    for i in range(first, len(samples)):
        if samples.event[i] >= len(layout.ids):
            raise ValueError(f"sample {i}: event {samples.event[i]} is not one of them")
        words = np.frombuffer(sample_record(samples, i, layout), "u8")
        if used + len(words) > len(out):
            return i, used
        out[used : used + len(words)] = words
        used += len(words)
    return len(samples), used


def _entry_text(source: int, target: int, flags: int, spec: bool) -> str:
    hit = "P" if flags & 2 else "M" if flags & 1 else "-"
    hit += "N" * bool(flags & EntryFlag.NOT_TAKEN)
    kind, new = flags >> 20 & 15, flags >> 26 & 15
    name = BRANCH_TYPE_NAMES[kind]
    if kind == BranchType.EXTEND_ABI:
        name = NEW_TYPE_NAMES[new] if new < len(NEW_TYPE_NAMES) else ""
    fields = [
        f"{source:#x}", f"{target:#x}", hit, "X" if flags & 4 else "-",
        "A" if flags & 8 else "-", str(flags >> 4 & 0xFFFF), name,
    ]  # fmt: skip
    return f" {'/'.join(fields + [SPEC_NAMES[flags >> 24 & 3]] * spec)} "


def format_stacks(
    samples: Samples, prefixes: Sequence[bytes] | None, ip: bool, brstack: bool, spec: bool
) -> bytes:
    """Twin of `pylbr.perf._script_writer.format_stacks`."""
    lines = []
    for i in range(len(samples)):
        line = prefixes[i] if prefixes is not None else b""
        if ip:
            line += f" {samples.ip[i]:16x}".encode()
        if brstack:
            stack = samples.stack(i).tolist()
            line += "".join(_entry_text(a, b, flags, spec) for a, b, flags in stack).encode()
        lines.append(line + b"\n")
    return b"".join(lines)
