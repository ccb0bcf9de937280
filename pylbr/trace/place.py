"""Places of the files of a trace that is a directory: what shows that one is missing or moved.

Each file has its number, the fingerprint of the one before it, and whether it is the last.  The
fingerprint is of the digests of all columns, so that the file of another trace, with as many
branches, does not fit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pylbr.errors import TraceError
from pylbr.files.json_text import decode_json

__all__ = ["DIGEST_KEY", "PLACE_KEY", "Place", "check_places", "fingerprint"]

DIGEST_KEY: Final = b"pylbr.digests"
PLACE_KEY: Final = b"pylbr.part"


class Place(NamedTuple):
    """The place of a file among those of its trace.

    Attributes
    ----------
    number : int
        From 0.
    after : str
        Fingerprint of the file before it; empty for the first.
    last : bool
    """

    number: int
    after: str
    last: bool

    def encode(self) -> bytes:
        """As the file's metadata have it."""
        return json.dumps(list(self)).encode()

    @classmethod
    def decode(cls, text: bytes) -> Place:
        """The place in a file's metadata.

        Raises
        ------
        ValueError
        """
        found = decode_json(text)
        if not isinstance(found, list) or [type(x) for x in found] != [int, str, bool]:
            raise ValueError("its place among the parts is damaged")
        return cls(*found)


def fingerprint(keys: Mapping[bytes, bytes]) -> str:
    """The fingerprint of a file, by its metadata."""
    return hashlib.sha256(keys[PLACE_KEY] + keys[DIGEST_KEY]).hexdigest()[:32]


def check_places(
    directory: object, paths: Sequence[Path], keys: Sequence[Mapping[bytes, bytes]]
) -> None:
    """Compare the places of files, in the order in which they are read.

    Parameters
    ----------
    directory : path-like
    paths : sequence of Path
    keys : sequence of mapping
        The metadata of each.  Files of other programs, all of them without a place, pass.

    Raises
    ------
    TraceError
        One is missing, there twice, not where it was written, or of another trace.
    """
    placed = [PLACE_KEY in one for one in keys]
    if not any(placed):
        return
    if not all(placed):
        raise TraceError(paths[placed.index(False)], "is no part of the trace that the other files "
                         "of its directory are; keep it apart")
    places = [Place.decode(one[PLACE_KEY]) for one in keys]
    seen: dict[int, Path] = {}
    for expected, (path, place) in enumerate(zip(paths, places, strict=True)):
        number = place.number
        if number in seen:
            raise TraceError(path, f"is part {number} of its trace, which {seen[number].name} is, "
                             "too; remove one of them")
        seen[number] = path
        if number != expected:
            moved = any(other.number == expected for other in places)
            raise TraceError(path, f"is part {number} of its trace, and in the order of names it "
                             f"is read as part {expected}" + (
                                 "; give the files their names again" if moved else
                                 f", which is missing from {directory}"))
        before = fingerprint(keys[expected - 1]) if expected else ""
        if place.after != before:
            raise TraceError(path, f"did not follow {paths[expected - 1].name} when it was "
                             "written: one of them is of another trace")
    if not places[-1].last:
        raise TraceError(directory, f"ends with {paths[-1].name}, but its trace does not: part "
                         f"{len(places)} is missing")
