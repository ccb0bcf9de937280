"""Text for BOLT: ``perf2bolt -pa``.

::

    B <from> <to> <count> <mispredicted>     taken branch
    F <first> <last> <count>                 straight run; <last> is the branch that ends it
    f <first> <last> <count>                 the same, begun by a branch from outside

Addresses are hexadecimal without 0x, at the binary's link addresses; one outside of the binary
is ``X:0``.  Runs in the procedure linkage table are left out: BOLT has no use for them, and counts
them as mismatching in this form alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from pylbr.profile.link import OUTSIDE, LinkProfile
from pylbr.trace.output import AtomicFile

__all__ = ["preagg_lines", "write_preagg"]


def _address(address: int) -> str:
    return "X:0" if address == OUTSIDE else f"{address:x}"


def preagg_lines(profile: LinkProfile) -> Iterator[str]:
    """Lines without their newline; edges first, each kind by address."""
    for (first, last), (count, mispredicted) in profile.edges.items():
        yield f"B {_address(first)} {_address(last)} {count} {mispredicted}"
    for (first, last), (count, entered) in profile.runs.items():
        if profile.image.in_plt(first):
            continue
        if count > entered:
            yield f"F {first:x} {last:x} {count - entered}"
        if entered:
            yield f"f {first:x} {last:x} {entered}"


def write_preagg(path: str | os.PathLike[str], profile: LinkProfile) -> None:
    """Write `profile` for ``perf2bolt -pa``.

    Raises
    ------
    TraceError
        The file cannot be written; nothing is left under its name then.
    """
    with AtomicFile(path) as output:
        for line in preagg_lines(profile):
            output.file.write(line.encode() + b"\n")
