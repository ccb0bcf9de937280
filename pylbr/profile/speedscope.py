"""Call stacks for speedscope: JSON of its file format, each stack once with its weight."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import Final

from pylbr.errors import TraceError
from pylbr.files.format import WriteOptions
from pylbr.files.output import AtomicFile
from pylbr.perf.stacks import Stacks
from pylbr.profile.aggregate import collect
from pylbr.profile.call_stacks import Chains, Stack, stacks_of_trace
from pylbr.profile.symbols import Place, Symbols
from pylbr.trace.trace import Trace

__all__ = ["write_stacks", "write_trace"]

_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"


def write_stacks(source: Stacks, path: str, options: WriteOptions) -> int:
    """Write the call stacks of samples; returns the samples.

    Raises
    ------
    TraceError
        No sample has a call stack.
    """
    chains = Chains(source.metadata.events)
    profile = collect(source, chains)
    if not chains.stacks:
        raise TraceError(source.path, "has no call stacks: record them (perf record --call-graph "
                         "lbr), or convert a whole trace (pylbr record --full)")
    if chains.without:
        options.note(f"{chains.without:,} of {profile.samples:,} samples have no call stack")
    _write(path, profile.symbols, {"samples": chains.stacks})
    return profile.samples


def write_trace(trace: Trace, path: str, options: WriteOptions) -> int:
    """Write the call stacks of a trace, a profile for each task; returns the branches.

    Raises
    ------
    TraceError
        It has no classes, without which no CALL is known, or no taken branch.
    """
    tasks, symbols, total = stacks_of_trace(trace, options.update)
    _write(path, symbols, {f"task {task}": stacks for task, stacks in tasks.items()})
    return total


def _write(path: str, symbols: Symbols, profiles: dict[str, Counter[Stack]]) -> None:
    frames: dict[tuple[str, str], int] = {}

    def frame(space: int, address: int) -> int:
        place: Place = symbols.place(space, address)
        name = place.function or str(place)
        return frames.setdefault((name, place.path), len(frames))

    shown = []
    for name, stacks in profiles.items():
        counts: Counter[tuple[int, ...]] = Counter()
        for (space, *addresses), count in stacks.items():
            counts[tuple(frame(space, address) for address in addresses)] += count
        rows = sorted(counts.items())
        shown.append({
            "type": "sampled", "name": name, "unit": "none", "startValue": 0,
            "endValue": counts.total(), "samples": [list(stack) for stack, _ in rows],
            "weights": [count for _, count in rows]})
    content = {
        "$schema": _SCHEMA, "exporter": "pylbr", "name": os.path.basename(path),
        "shared": {"frames": [{"name": name, "file": file} if file else {"name": name}
                              for name, file in frames]},
        "profiles": shown,
    }
    with AtomicFile(path) as output:
        output.file.write(json.dumps(content, separators=(",", ":")).encode() + b"\n")
