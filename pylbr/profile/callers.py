"""Callers of functions: taken branches to the first byte of a function, by function."""

from __future__ import annotations

from dataclasses import dataclass

from pylbr.profile.aggregate import Profile

__all__ = ["Call", "calls_of"]


@dataclass(slots=True)
class Call:
    """Entries of one function from another; a tail call is one, too.

    Files and functions are those of `pylbr.profile.symbols.Place`; the caller's function is empty
    where no symbol covers the branch.
    """

    caller: str
    caller_file: str
    callee: str
    callee_file: str
    count: int = 0
    mispredicted: int = 0


def calls_of(profile: Profile) -> list[Call]:
    """Pairs of caller and callee, the most frequent first.

    A branch from a function to its own first byte is left out: it may be a call or a loop.
    """
    found: dict[tuple[str, str, str, str], Call] = {}
    for first, last, _, count, mispredicted, _, _, space in profile.edges.tolist():
        target = profile.symbols.place(space, last)
        if not target.function or target.offset:
            continue
        source = profile.symbols.place(space, first)
        key = source.function, source.path, target.function, target.path
        if key[:2] == key[2:]:
            continue
        call = found.setdefault(key, Call(*key))
        call.count += count
        call.mispredicted += mispredicted
    return sorted(found.values(), key=lambda c: (-c.count, c.callee, c.caller, c.callee_file,
                                                 c.caller_file))
