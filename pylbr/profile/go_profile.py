"""Profiles for ``go build -pgo`` (Go 1.21 and newer): who calls whom, from where, how often.

Go reads a CPU profile of pprof: of each sample the stack, of each function the line where it is
declared, and adds up the weights of callers and callees by the distance of the call from that line.
Here a sample is a call: the callee above the place of the call, with what was inlined there; its
weight is how often it was taken, in place of the time spent below it.  Wrappers that the compiler
makes of methods are left out, as Go's own profiles leave them out: what they pass a call on to was
called by their caller.
"""

from __future__ import annotations

import gzip
import os
from collections import Counter, defaultdict
from collections.abc import Iterator

from pylbr.errors import TraceError
from pylbr.files.elf_inlined import Frame, Frames, Scope
from pylbr.files.output import AtomicFile
from pylbr.profile.disassembly import disassemble
from pylbr.profile.link import OUTSIDE, LinkProfile
from pylbr.profile.pprof import Strings, message, packed

__all__ = ["go_profile_bytes", "write_go_profile"]

#: No instruction of x86-64 is longer.
_INSTRUCTION = 15


class _Tables:
    """Functions and locations, numbered as they are met."""

    def __init__(self) -> None:
        self.strings = Strings()
        self._functions: dict[tuple[str, int], int] = {}
        self._locations: dict[tuple[int, tuple[Frame, ...]], int] = {}

    def location(self, address: int, frames: tuple[Frame, ...]) -> int:
        """The number of an address with its frames, the outermost first."""
        for frame in frames:
            self._functions.setdefault((frame.function, frame.declared), len(self._functions) + 1)
        return self._locations.setdefault((address, frames), len(self._locations) + 1)

    def messages(self) -> list[tuple[int, bytes]]:
        """Both tables."""
        made = []
        for (address, frames), number in self._locations.items():
            # What was inlined last comes first.
            lines = [(4, message((1, self._functions[frame.function, frame.declared]),
                                 (2, frame.line))) for frame in reversed(frames)]
            made.append((4, message((1, number), (2, 1), (3, address), *lines)))
        for (name, declared), number in self._functions.items():
            text = self.strings[name]
            made.append((5, message((1, number), (2, text), (3, text), (5, declared))))
        return made


class _Calls:
    """Calls between functions with debug information."""

    def __init__(self, profile: LinkProfile) -> None:
        self._image = profile.image
        addresses = {address for edge in profile.edges for address in edge if address != OUTSIDE}
        extents = {(e.start, e.end) for e in map(profile.image.extent_at, addresses) if e}
        self.frames = Frames(profile.image.path, extents)
        self._calls: list[tuple[int, Scope, int]] = []
        #: First address of a wrapper -> what it passes calls on to.
        self._passed: dict[int, Counter[int]] = defaultdict(Counter)
        for (source, target), (count, _) in profile.edges.items():
            caller, called = map(self.frames.function_at, (source, target))
            if caller is None or called is None or called.ranges[0][0] != target:
                continue
            if caller is called and self._jumps(source):  # a loop from its first instruction on
                continue
            if caller.trampoline:
                self._passed[caller.ranges[0][0]][target] += count
            else:
                self._calls.append((source, called, count))

    def _jumps(self, source: int) -> bool:
        code = self._image.code(source, source + _INSTRUCTION)
        return disassemble(code, source, self._image.machine)[0].branches

    def __iter__(self) -> Iterator[tuple[int, Scope, int]]:
        """Where each call is, what it calls, how often."""
        for source, called, count in self._calls:
            target: Scope | None = called
            for _ in range(8):  # a damaged file may have wrappers that call one another
                if target is None or not target.trampoline:
                    break
                target = self._passed_to(target)
            if target is not None and not target.trampoline:
                yield source, target, count

    def _passed_to(self, wrapper: Scope) -> Scope | None:
        """What a wrapper passes its calls on to, inlined or not."""
        if wrapper.inner:
            return wrapper.inner[0]
        passed = self._passed[wrapper.ranges[0][0]].most_common(1)
        return self.frames.function_at(passed[0][0]) if passed else None


def go_profile_bytes(profile: LinkProfile) -> bytes:
    """The message, not compressed.

    Raises
    ------
    TraceError
        The binary has no line table, or its debug information is damaged; or nothing was called.
    """
    path = profile.image.path
    try:
        calls = _Calls(profile)
    except (OSError, ValueError) as error:
        raise TraceError(path, f"has no usable debug information: {error}") from error
    tables, samples = _Tables(), []
    for source, target, count in calls:
        frames = calls.frames.at(source)
        if frames:
            entry = Frame(target.function, target.declared, target.declared, 0)
            stack = (tables.location(target.ranges[0][0], (entry,)),
                     tables.location(source, frames))
            samples.append((2, message((1, packed(stack)), (2, packed([count, count])))))
    if not samples:
        raise TraceError(path, "has no calls between functions with line tables (DWARF): compile "
                         "with -g, and link without -s and -w")
    text = tables.strings
    kinds = [(1, message((1, text[name]), (2, text[unit])))
             for name, unit in (("samples", "count"), ("cpu", "nanoseconds"))]
    code = next(s for s in profile.image.segments if s.executable)
    mapping = message(
        (1, 1), (2, code.address), (3, code.address + code.size), (4, code.offset),
        (5, text[os.path.realpath(path)]), (6, text[profile.image.build_id.hex()]), (7, 1), (8, 1),
        (9, 1), (10, 1))
    period = message((1, text["cpu"]), (2, text["nanoseconds"]))
    places = tables.messages()
    return message(*kinds, *samples, (3, mapping), *places, (11, period), (12, 1),
                   *[(6, name.encode()) for name in text.numbers])


def write_go_profile(path: str | os.PathLike[str], profile: LinkProfile) -> None:
    """Write `profile` for ``go build -pgo``.

    Raises
    ------
    TraceError
        As `go_profile_bytes`; or the file cannot be written, and nothing is left under its name.
    """
    data = go_profile_bytes(profile)
    with AtomicFile(path) as output:
        output.file.write(gzip.compress(data, mtime=0))
