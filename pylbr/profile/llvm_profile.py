"""LLVM's sample profile as text, which ``clang -fprofile-sample-use`` and ``llvm-profdata`` read.

A function has its number of samples and how often it was entered; then each line, as its distance
from that of the declaration, with the discriminator where there is one, the most executions of an
instruction of it, and what was called there; functions that were inlined are within::

    main:1512:1
     3: 100
     4.2: 60 helper:60
     6: inlined_one:300
      1: 100

The text is, byte by byte, what llvm-profgen 19 makes of the same samples: an instruction has what
the straight runs over it add up to, times the number of copies that unrolling made of it, a line of
a function that is not inlined at least what was called there, a function the sum over its bytes,
and all of its lines are there as soon as it ran.
Sources: ``SampleProfReader.h`` and ``llvm/tools/llvm-profgen/ProfileGenerator.cpp`` of LLVM 19.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from pylbr.errors import TraceError
from pylbr.files.elf_inlined import Frame, Frames
from pylbr.files.output import AtomicFile
from pylbr.profile.disassembly import disassemble
from pylbr.profile.link import OUTSIDE, LinkProfile

__all__ = ["FunctionSamples", "base_discriminator", "copies", "function_samples", "llvm_text",
           "write_llvm_profile"]

_LINES: Final = 0xFFFF
#: What compilers add to the name of a function that they copied or split.
_SUFFIXES: Final = (".llvm.", ".part.")


@dataclass
class FunctionSamples:
    """Counts of one function, or of one that was inlined at one place.

    Attributes
    ----------
    total, head : int
        Samples in it, and how often it was entered.
    body : dict of (line, discriminator) to count
    calls : dict of (line, discriminator) to Counter of name
    inlined : dict of (line, discriminator) to dict of name to FunctionSamples
    """

    total: int = 0
    head: int = 0
    body: dict[tuple[int, int], int] = field(default_factory=dict)
    calls: dict[tuple[int, int], Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter))
    inlined: dict[tuple[int, int], dict[str, FunctionSamples]] = field(
        default_factory=lambda: defaultdict(dict))


def base_discriminator(value: int) -> int:
    """The part of a discriminator, as LLVM packs it, that differs between blocks of a line."""
    if value & 1:
        return 0
    value >>= 1
    return (value >> 1 & 0xFE0) | (value & 0x1F) if value & 0x20 else value & 0x1F


def copies(value: int) -> int:
    """How many of an instruction unrolling and vectorizing made, as its discriminator has it."""
    rest = value >> 1 if value & 1 else value >> (14 if value & 0x40 else 7)
    return base_discriminator(rest) or 1


def _canonical(name: str) -> str:
    """The name that the function had before the compiler copied or split it."""
    for suffix in _SUFFIXES:
        at = name.rfind(suffix)
        if at > 0:
            name = name[:at]
    return name


def _place(frame: Frame) -> tuple[int, int]:
    """(line, discriminator) in its function."""
    return frame.line - frame.declared & _LINES, base_discriminator(frame.discriminator)


class _Profile:
    """All functions, filled step by step."""

    def __init__(self, profile: LinkProfile) -> None:
        self._image = profile.image
        self._runs = profile.runs
        self._edges = profile.edges
        addresses = {address for run in self._runs for address in run}
        addresses |= {address for edge in self._edges for address in edge if address != OUTSIDE}
        extents = {(e.start, e.end) for e in map(profile.image.extent_at, addresses) if e}
        path = profile.image.path
        self._frames = Frames(path, extents)
        if all(self._frames.function_at(start) is None for start, _ in extents):
            debug = profile.image.debug_file()
            if debug:
                self._frames = Frames(debug, extents)
        self.functions: dict[str, FunctionSamples] = defaultdict(FunctionSamples)

    def leaf(self, frames: tuple[Frame, ...], count: int) -> FunctionSamples:
        """Where an instruction counts, which adds to the totals of all that it is in."""
        found = self.functions[_canonical(frames[0].function)]
        found.total += count
        for outer, frame in zip(frames, frames[1:], strict=False):
            found = found.inlined[_place(outer)].setdefault(
                _canonical(frame.function), FunctionSamples())
            found.total += count
        return found

    def count_runs(self) -> None:
        """Lines of the functions that were sampled."""
        changes: Counter[int] = Counter()
        for (first, last), (count, _) in self._runs.items():
            changes[first] += count
            changes[last + 1] -= count
        places = sorted(changes)
        heights = [0, *accumulate(changes[place] for place in places)]
        for address, size in self._instructions():
            # Changes up to and with this address: what runs over its first byte.
            count = heights[bisect_left(places, address + 1)]
            frames = self._frames.at(address)
            if frames:
                samples, place = self.leaf(frames, count * size), _place(frames[-1])
                count *= copies(frames[-1].discriminator)
                samples.body[place] = max(samples.body.get(place, 0), count)

    def _instructions(self) -> Iterator[tuple[int, int]]:
        """Address and size of all instructions of the functions in which a run begins or ends."""
        ranges: set[tuple[int, int]] = set()
        for run in self._runs:
            for address in run:
                function = self._frames.function_at(address)
                ranges |= set(function.ranges) if function else set()
        for start, end in sorted(ranges):
            code = self._image.code(start, end)
            for one in disassemble(code, start, self._image.machine):
                yield one.address, one.size

    def count_branches(self) -> None:
        """Entries of functions, and calls where they are."""
        for (source, target), (count, _) in self._edges.items():
            if target == OUTSIDE:
                continue
            found = self._frames.function_at(target)
            if found is None:
                continue
            name = _canonical(found.function)
            # Where DWARF has but a part of the name, it is known as the only one of that name.
            ranges = self._frames.ranges[found.function]
            alone = len(ranges) == 1 and ranges[0][0] == target
            if not alone and name not in map(_canonical, self._image.names_at(target)):
                continue
            frames = self._frames.at(source) if source != OUTSIDE else ()
            if frames:
                self.leaf(frames, 0).calls[_place(frames[-1])][name] += count
            self.functions[name].head += count


def function_samples(profile: LinkProfile) -> dict[str, FunctionSamples]:
    """Samples of every function that ran, by its linkage name.

    Raises
    ------
    TraceError
        The binary has no line table, its debug information is damaged, or its code cannot be read.
    """
    path = profile.image.path
    try:
        found = _Profile(profile)
        found.count_runs()
        found.count_branches()
    except (OSError, ValueError) as error:
        raise TraceError(path, f"has no usable debug information: {error}") from error
    if not found.functions:
        raise TraceError(path, "has no line table (DWARF) of the code that ran: compile with -g")
    return dict(found.functions)


def _lines(name: str, samples: FunctionSamples, depth: int) -> Iterator[str]:
    head = f":{samples.head}" if depth == 0 else ""
    yield f"{name}:{samples.total}{head}"
    yield from _body(samples, depth + 1)


def _body(samples: FunctionSamples, depth: int) -> Iterator[str]:
    margin = " " * depth
    for place in sorted({*samples.body, *samples.calls}):
        called = sorted(samples.calls.get(place, Counter()).items(), key=lambda c: (-c[1], c[0]))
        targets = "".join(f" {name}:{count}" for name, count in called)
        count = samples.body.get(place, 0)
        if depth == 1:
            count = max(count, sum(count for _, count in called))
        yield f"{margin}{_shown(place)}: {count}{targets}"
    for place in sorted(samples.inlined):
        for name, inner in sorted(samples.inlined[place].items()):
            first, *rest = _lines(name, inner, depth)
            yield f"{margin}{_shown(place)}: {first}"
            yield from rest


def _shown(place: tuple[int, int]) -> str:
    return f"{place[0]}.{place[1]}" if place[1] else str(place[0])


def llvm_text(functions: dict[str, FunctionSamples]) -> str:
    """The whole file, the functions with the most samples first."""
    order = sorted(functions.items(), key=lambda pair: (-pair[1].total, pair[0]))
    return "".join(f"{line}\n" for name, samples in order for line in _lines(name, samples, 0))


def write_llvm_profile(path: str | os.PathLike[str], profile: LinkProfile) -> None:
    """Write `profile` as LLVM's sample profile.

    Raises
    ------
    TraceError
        As `function_samples`; or the file cannot be written, and nothing is left under its name.
    """
    text = llvm_text(function_samples(profile))
    with AtomicFile(path) as output:
        output.file.write(text.encode())
