"""Profiles for pprof, and collapsed stacks for flame graphs.

A pprof profile is a message of Protocol Buffers in gzip (``profile.proto`` of google/pprof).  Here
a sample is a taken branch: its location is where it leaves from, its values are how often it was
taken and mispredicted, its label ``target`` is where it leads.
"""

from __future__ import annotations

import gzip
import os
from collections import Counter
from collections.abc import Iterable

from pylbr.files.output import AtomicFile
from pylbr.profile.demangle import demangled
from pylbr.profile.link import OUTSIDE, LinkProfile

__all__ = ["Strings", "folded_lines", "message", "packed", "pprof_bytes", "write_folded",
           "write_pprof"]


def _varint(value: int) -> bytes:
    found = bytearray()
    value %= 1 << 64
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """Bytes of a message, of fields by number: integers as varints, bytes with their length."""
    return b"".join(
        _varint(number << 3) + _varint(value) if isinstance(value, int)
        else _varint(number << 3 | 2) + _varint(len(value)) + value
        for number, value in fields
    )


def packed(values: Iterable[int]) -> bytes:
    """Integers as one field of varints."""
    return b"".join(map(_varint, values))


class Strings:
    """The string table: "" first."""

    def __init__(self) -> None:
        self.numbers = {"": 0}

    def __getitem__(self, text: str) -> int:
        """Its number, a new one if it is new."""
        return self.numbers.setdefault(text, len(self.numbers))


def pprof_bytes(profile: LinkProfile) -> bytes:
    """The message, not compressed."""
    strings, image = Strings(), profile.image
    kinds = [message((1, strings[name]), (2, strings["count"]))
             for name in ("taken_branches", "mispredicted")]
    functions: dict[str, int] = {}
    locations: dict[int, int] = {}
    samples, target = [], strings["target"]
    for (first, last), (count, mispredicted) in profile.edges.items():
        if first == OUTSIDE:
            continue
        where = locations.setdefault(first, len(locations) + 1)
        label = [(3, message((1, target), (3, last)))] if last != OUTSIDE else []
        samples.append(message((1, packed([where])), (2, packed([count, mispredicted])), *label))
    places = []
    for address, number in locations.items():
        found = image.function_at(address)
        line = []
        if found is not None:
            function = functions.setdefault(found[0], len(functions) + 1)
            line = [(4, message((1, function)))]
        places.append(message((1, number), (2, 1), (3, address), *line))
    code = next(s for s in image.segments if s.executable)
    mapping = message(
        (1, 1), (2, code.address), (3, code.address + code.size), (4, code.offset),
        (5, strings[os.path.realpath(image.path)]), (6, strings[image.build_id.hex()]), (7, 1))
    names = [message((1, number), (2, strings[demangled(name)]), (3, strings[name]))
             for name, number in functions.items()]
    parts = [(1, kind) for kind in kinds] + [(2, sample) for sample in samples]
    parts += [(3, mapping)] + [(4, place) for place in places] + [(5, name) for name in names]
    parts.append((14, strings["taken_branches"]))  # type: ignore[arg-type]
    return message(*parts, *[(6, text.encode()) for text in strings.numbers])


def folded_lines(profile: LinkProfile) -> list[str]:
    """``binary;function count``: taken branches that leave from each function."""
    counts: Counter[str] = Counter()
    for (first, _), (count, _) in profile.edges.items():
        if first != OUTSIDE:
            found = profile.image.function_at(first)
            counts[demangled(found[0]) if found else f"{first:#x}"] += count
    binary = os.path.basename(profile.image.path)
    return [f"{binary};{name.replace(';', ':')} {count}" for name, count in sorted(counts.items())]


def write_pprof(path: str | os.PathLike[str], profile: LinkProfile) -> None:
    """Write `profile` for pprof: ``go tool pprof``, and what else reads its format.

    Raises
    ------
    TraceError
        The file cannot be written; nothing is left under its name then.
    """
    with AtomicFile(path) as output:
        output.file.write(gzip.compress(pprof_bytes(profile), mtime=0))


def write_folded(path: str | os.PathLike[str], profile: LinkProfile) -> None:
    """Write `profile` as collapsed stacks, which flame graphs and speedscope read.

    Raises
    ------
    TraceError
        The file cannot be written; nothing is left under its name then.
    """
    with AtomicFile(path) as output:
        output.file.write("".join(f"{line}\n" for line in folded_lines(profile)).encode())
