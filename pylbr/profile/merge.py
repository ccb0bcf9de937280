"""One profile of many recordings: counts at the link addresses of one binary, summed up.

Each input is counted by itself, in this process or in others, and sums do not depend on an order:
the result is the same for every number of workers.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final

from pylbr.errors import TraceError
from pylbr.files.elf import ElfImage
from pylbr.files.source import ByteSource, compression_of
from pylbr.perf.stacks import Stacks
from pylbr.profile.aggregate import collect
from pylbr.profile.link import OUTSIDE, UNKNOWN, LinkProfile, link_profile
from pylbr.profile.remote import fetched
from pylbr.profile.whole import collect_trace
from pylbr.trace.formats import open_any

__all__ = ["Counts", "count_input", "is_preaggregated", "merge_inputs"]

_NO_RUN: Final = (1 << 64) - 1
_LINE: Final = re.compile(
    rb"(?:T (X:0|[0-9a-f]+) (X:0|[0-9a-f]+) ([0-9a-f]+) (\d+)"
    rb"|B (X:0|[0-9a-f]+) (X:0|[0-9a-f]+) (\d+) (\d+)|([Ff]) ([0-9a-f]+) ([0-9a-f]+) (\d+))\s*$")
_STEP: Final = 1 << 20
#: Inputs that a worker adds up at most, and how often each worker is asked at least.
_GROUP: Final = 16
_SHARES: Final = 4


@dataclass(slots=True)
class Counts:
    """Counts of some inputs; fields as those of `LinkProfile`.

    Attributes
    ----------
    edges : Counter of (from, to)
    mispredicted : Counter of (from, to)
    traces : Counter of (origin, first, last)
    ips : Counter of address
    branches, samples : int
    """

    edges: Counter[tuple[int, int]] = field(default_factory=Counter)
    mispredicted: Counter[tuple[int, int]] = field(default_factory=Counter)
    traces: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    ips: Counter[int] = field(default_factory=Counter)
    branches: int = 0
    samples: int = 0

    def add(self, other: Counts, weight: int = 1) -> None:
        """Add the counts of others, `weight` times."""
        for name in ("edges", "mispredicted", "traces", "ips"):
            mine, theirs = getattr(self, name), getattr(other, name)
            for key, count in theirs.items():
                mine[key] += count * weight
        self.branches += other.branches * weight
        self.samples += other.samples * weight

    def profile(self, image: ElfImage) -> LinkProfile:
        """As the writers take it."""
        edges = {key: (self.edges[key], self.mispredicted[key]) for key in sorted(self.edges)}
        return LinkProfile(image, edges, dict(sorted(self.traces.items())),
                           dict(sorted(self.ips.items())), self.branches)


def count_input(path: str, binary: str) -> Counts:
    """Counts of one file, or of what a URL names: stacks, a trace, or pre-aggregated text.

    Raises
    ------
    TraceError
        It cannot be read, or `binary` is none of the files that were recorded.
    """
    with fetched([path]) as (here,):
        return _count_file(here, binary)


def is_preaggregated(path: str) -> bool:
    """Whether a file holds pre-aggregated text, by its first line."""
    if os.path.isdir(path):
        return False
    with ByteSource(path) as source:
        line = source.read(200).split(b"\n")[0]
    return _LINE.match(line) is not None and not compression_of(line)


def _count_file(path: str, binary: str) -> Counts:
    if is_preaggregated(path):
        return _read_preaggregated(path)
    with open_any(path) as source:
        profile = collect(source) if isinstance(source, Stacks) else collect_trace(source)
    try:
        linked = link_profile(profile, binary)
    except TraceError as error:
        raise TraceError(path, str(error)) from error
    counts = Counts(traces=Counter(linked.traces), ips=Counter(linked.ips),
                    branches=linked.branches, samples=profile.samples)
    for key, (count, mispredicted) in linked.edges.items():
        counts.edges[key] = count
        if mispredicted:
            counts.mispredicted[key] = mispredicted
    return counts


def _lines(path: str) -> Iterator[bytes]:
    with ByteSource(path) as source:
        rest = b""
        while data := source.read(_STEP):
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
        if rest:
            yield rest


def _read_preaggregated(path: str) -> Counts:
    counts = Counts()
    for number, line in enumerate(_lines(path), 1):
        found = _LINE.match(line)
        if found is None:
            raise TraceError(path, f"line {number} is no line of pre-aggregated text: "
                             f"{line[:60].decode(errors='replace')!r}")
        groups = found.groups()
        if groups[0] is not None:
            first, last = _address(groups[0]), _address(groups[1])
            end, count = int(groups[2], 16), int(groups[3])
            counts.edges[first, last] += count
            counts.branches += count
            if end != _NO_RUN:
                counts.traces[first, last, end] += count
        elif groups[4] is not None:
            edge = _address(groups[4]), _address(groups[5])
            counts.edges[edge] += int(groups[6])
            counts.mispredicted[edge] += int(groups[7])
            counts.branches += int(groups[6])
        else:
            origin = OUTSIDE if groups[8] == b"f" else UNKNOWN
            counts.traces[origin, int(groups[9], 16), int(groups[10], 16)] += int(groups[11])
    return counts


def _address(text: bytes) -> int:
    return OUTSIDE if text == b"X:0" else int(text, 16)


def merge_inputs(
    inputs: Iterable[tuple[str, int]], binary: str, executor: Executor | None = None,
    update: Callable[[str], object] = lambda path: None,
    count: Callable[[str, str], Counts] | None = None, workers: int = 1,
) -> Counts:
    """Counts of all inputs, each times its weight.

    Each worker adds up what it counts; of some inputs one after the other one sum arrives here.

    Parameters
    ----------
    inputs : iterable of (path, weight)
    binary : str
        The ELF file that the counts are about.
    executor : concurrent.futures.Executor, optional
        What counts the inputs; this process by default.  Any will do whose workers see the same
        files.
    update : callable, optional
        Called with the path of each input once it is counted.
    count : callable, optional
        Counts one input, as `count_input` does, the default.
    workers : int
        Inputs that the executor counts at a time.

    Raises
    ------
    TraceError
        As `count_input`, of the first input in order that fails.
    """
    pairs = list(inputs)
    total = Counts()
    count = count or count_input
    if executor is None:
        for path, weight in pairs:
            total.add(count(path, binary), weight)
            update(path)
        return total
    size = max(1, min(_GROUP, len(pairs) // (_SHARES * workers)))
    groups = [pairs[i:i + size] for i in range(0, len(pairs), size)]
    futures = [executor.submit(_count_group, group, binary, count) for group in groups]
    try:
        for future, group in zip(futures, groups, strict=True):
            total.add(future.result())
            for path, _ in group:
                update(path)
    finally:
        for future in futures:
            future.cancel()
    return total


def _count_group(
    pairs: list[tuple[str, int]], binary: str, count: Callable[[str, str], Counts]
) -> Counts:
    """The sum of some inputs."""
    total = Counts()
    for path, weight in pairs:
        total.add(count(path, binary), weight)
    return total
