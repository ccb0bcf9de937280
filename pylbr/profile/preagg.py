"""Text for BOLT: ``perf2bolt -pa``.

::

    T <from> <to> <last> <count>             taken branch and the straight run that follows;
                                             <last> is the branch that ends the run;
                                             ffffffffffffffff: the newest of a stack, no run

and, in the form for BOLT before 22, with mispredicts::

    B <from> <to> <count> <mispredicted>     taken branch
    F <first> <last> <count>                 straight run
    f <first> <last> <count>                 the same, begun by a branch from outside

Addresses are hexadecimal without 0x, at the binary's link addresses; one outside of the binary
is ``X:0``.  Runs in the procedure linkage table are left out: BOLT has no use for them, and counts
them as mismatching in this form alone.

``buildid:offset`` is written for no other file: BOLT 22 reads the form, but looks the offset up in
the binary whatever the build-id, so that a branch from another file would become one of its own.
R lines are not written: BOLT 22 finds the binary's own returns itself, and drops the way into the
binary of an R line that begins outside.

Sources: ``bolt/include/bolt/Profile/DataAggregator.h`` and ``DataAggregator.cpp`` of LLVM 16, 19,
22 and 2026.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from pylbr.errors import TraceError
from pylbr.files.output import AtomicFile
from pylbr.profile.link import OUTSIDE, UNKNOWN, LinkProfile

__all__ = ["FORMS", "preagg_lines", "write_preagg"]

#: The first is the default, which BOLT reads from version 22 on; every version reads the second.
FORMS = ("traces", "branches")
_NO_RUN = (1 << 64) - 1


def _address(address: int) -> str:
    return "X:0" if address == OUTSIDE else f"{address:x}"


def preagg_lines(profile: LinkProfile, form: str = "traces") -> Iterator[str]:
    """Lines without their newline, each kind by address; `form` is one of `FORMS`."""
    return _trace_lines(profile) if form == "traces" else _branch_lines(profile)


def _branch_lines(profile: LinkProfile) -> Iterator[str]:
    for (first, last), (count, mispredicted) in profile.edges.items():
        yield f"B {_address(first)} {_address(last)} {count} {mispredicted}"
    for (first, last), (count, entered) in profile.runs.items():
        if profile.image.in_plt(first):
            continue
        if count > entered:
            yield f"F {first:x} {last:x} {count - entered}"
        if entered:
            yield f"f {first:x} {last:x} {entered}"


def _trace_lines(profile: LinkProfile) -> Iterator[str]:
    if any(origin == UNKNOWN for origin, _, _ in profile.traces):
        raise TraceError(
            profile.image.path, "the straight runs come from lines that do not contain what led to "
            "them (F, f), of which no trace lines can be made: add --preagg-form branches")
    without_run = {edge: count for edge, (count, _) in profile.edges.items()}
    lines = {}
    for (origin, first, last), count in profile.traces.items():
        if not profile.image.in_plt(first):
            without_run[origin, first] -= count
            lines[origin, first, last] = count
    lines |= {(*edge, _NO_RUN): count for edge, count in without_run.items() if count}
    for (origin, first, last), count in sorted(lines.items()):
        yield f"T {_address(origin)} {_address(first)} {last:x} {count}"


def write_preagg(
    path: str | os.PathLike[str], profile: LinkProfile, form: str = "traces"
) -> None:
    """Write `profile` for ``perf2bolt -pa``, in one of `FORMS`.

    Raises
    ------
    TraceError
        There is nothing to write, or the file cannot be written; nothing is left under its
        name then.
    """
    with AtomicFile(path) as output:
        empty = True
        for line in preagg_lines(profile, form):
            output.file.write(line.encode() + b"\n")
            empty = False
        if empty:
            raise TraceError(
                path, f"would be empty: no branch was taken within {profile.image.path}")
