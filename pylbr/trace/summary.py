"""What a trace or a file of stacks holds, in a form for printing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from lbrcore import BranchClass, BranchFlag
from pylbr.perf.stacks import Comm, Mmap, Samples, Stacks
from pylbr.trace.trace import Trace

__all__ = ["describe_stacks", "describe_trace"]


#: The column that a sum is taken of, where it has another name.
_COLUMN = {"mispredicted": "flags"}


def describe_trace(
    source: Trace, update: Callable[[int], object] | None = None
) -> dict[str, Any]:
    """Metadata of a trace and, if `update` is given, counts of everything in it.

    `update` is called with the number of branches of each chunk.  A sum of a column that the
    trace does not have is None.
    """
    head = source.metadata
    found: dict[str, Any] = {
        "branches": source.count, "columns": list(source.columns), "model": head.model,
        "provenance": dict(head.provenance),
        "modules": [
            {"range": f"{m.start:#x}-{m.start + m.size:#x}", "path": m.path,
             "offset": f"{m.file_offset:#x}", "build_id": m.build_id, "pid": m.pid}
            for m in head.modules
        ],
        "tasks": [asdict(task) for task in head.tasks],
    }
    return found | (_count(source, update) if update else {})


def _count(source: Trace, update: Callable[[int], object]) -> dict[str, Any]:
    classes, tasks, cpus = Counter[int](), set[int](), set[int]()
    branches = 0
    sums = {"instructions": 0, "cycles": 0, "mispredicted": 0}
    logged = np.zeros(4, np.uint64)
    low, high = 2**64, 0
    for chunk in source.chunks():
        counts = np.bincount(chunk.column("class"), minlength=16)
        classes.update(dict(enumerate(counts.tolist())))
        branches += len(chunk)
        for name in ("instructions", "cycles"):
            sums[name] += int(chunk.column(name).sum(dtype=np.uint64))
        if "events" in source.columns:
            logged += chunk.column("events").sum(axis=0, dtype=np.uint64)
        missed = chunk.column("flags") & np.uint8(BranchFlag.MISPRED)
        sums["mispredicted"] += int(np.count_nonzero(missed))
        tasks |= set() if chunk.task is None else set(np.unique(chunk.task).tolist())
        cpus |= set() if chunk.cpu is None else set(np.unique(chunk.cpu).tolist())
        if len(chunk):
            low = min(low, int(chunk.column("from").min()), int(chunk.column("to").min()))
            high = max(high, int(chunk.column("from").max()), int(chunk.column("to").max()))
        for name in source.columns:
            chunk.column(name)  # reads and checks what was not needed above
        update(len(chunk))
    return {
        "branches": branches,
        "classes": {BranchClass(kind).name: count for kind, count in sorted(classes.items())
                    if count},
        **{name: total if _COLUMN.get(name, name) in source.columns else None
           for name, total in sums.items()},
        "logged": logged.tolist() if "events" in source.columns else None,
        "addresses": f"{low:#x}-{high:#x}" if branches else "",
        "task_ids": sorted(tasks), "cpus": sorted(cpus),
    }


def describe_stacks(
    source: Stacks, update: Callable[[int], object] = lambda count: None
) -> dict[str, Any]:
    """Head of a file of stacks and counts of its records; reads it to its end."""
    head = source.metadata
    kinds, depths, names = Counter[str](), Counter[int](), dict[int, str]()
    mapped: dict[str, int] = {}
    samples = entries = logged = 0
    first, last = 2**64, 0
    for record in source:
        if isinstance(record, Samples):
            samples += len(record)
            entries += len(record.entries)
            logged += 0 if record.counters is None else int(np.count_nonzero(record.counters))
            depths.update(np.diff(record.offsets).tolist())
            if len(record):
                first, last = min(first, int(record.time.min())), max(last, int(record.time.max()))
            update(len(record))
            continue
        kinds[type(record).__name__] += 1
        if isinstance(record, Comm):
            names[record.tid] = record.name
        elif isinstance(record, Mmap):
            mapped[record.path] = mapped.get(record.path, 0) + 1
    return {
        "samples": samples, "entries": entries, "logged": logged,
        "stacks": [{"depth": f"{count:,} of depth {depth}"}
                   for depth, count in sorted(depths.items())],
        "seconds": f"{(last - first) / 1e9:.6f}" if samples and last else "",
        "events": [
            {"name": event.name or f"type {event.type} config {event.config:#x}",
             "period": f"period {event.period:,}",
             "branches": f"branch_sample_type {event.branch_sample_type:#x}"}
            for event in head.events
        ],
        "records": dict(kinds),
        "machine": head.cpu_description, "cpuid": head.cpuid, "kernel": head.os_release,
        "command": " ".join(head.command_line),
        "modules": [{"path": path, "maps": f"mapped {count} times" if count > 1 else ""}
                    for path, count in mapped.items()],
        "tasks": [{"tid": tid, "name": name} for tid, name in names.items()],
    }
