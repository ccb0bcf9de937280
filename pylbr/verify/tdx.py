"""TDX: the module owns a TD's LBRs, the host owns what the module leaves.

Public documents state that a TD may not have LBRs (XFAM bit 15 is refused) until KVM saves and
restores IA32_LBR_DEPTH properly.  Here a TD has them: the module loads its state on entry, and on
exit saves it and leaves the initial state, as XRSTORS makes it, in which DEPTH is the TD's.  So the
host has to save four things before the entry and restore them after the exit, DEPTH first, since a
write of it resets the records.  `search` leaves any of them out, or takes another order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pylbr.verify import plain_search
from pylbr.verify.plain_search import Found, Ground, Registers, State

__all__ = ["FLAWS", "PARTS", "TITLES", "ground", "parts_without", "search"]

#: Properties: two of whose records are seen, and one for each thing that the host has to save.
TITLES = {
    "P1": "the TD reads a record of the host",
    "P4": "the host reads a record of the TD",
    "DEPTH": "after the TD's exit IA32_LBR_DEPTH is not what the host had set",
    "RECORDS": "after the TD's exit a record of the host is missing",
    "LER": "after the TD's exit the LER registers are not the host's",
    "CTL": "after the TD's exit IA32_LBR_CTL is not what the host had set",
}
#: What the host has to put back, in this order.
PARTS = ("depth", "records", "ler", "ctl")
#: What can be wrong with the host's part.
FLAWS = {
    "no-depth": "the host does not restore IA32_LBR_DEPTH",
    "no-records": "the host does not restore the records",
    "no-ler": "the host does not restore the LER registers",
    "no-ctl": "the host does not restore IA32_LBR_CTL",
    "depth-last": "the host restores IA32_LBR_DEPTH after all else, which resets the records",
}

#: Registers: LBREn, depth, newest record, LER; the host's depth is "H", the TD's "T".
_Registers = tuple[int, str, str, str]


def _exit(saved: _Registers, td: _Registers, parts: Sequence[str]) -> _Registers:
    """The host's part after TDEXIT, by WRMSR of each register."""
    ctl, depth, record, ler = 0, td[1], "", ""
    for part in parts:
        if part == "depth":
            if saved[1] != depth:
                record = ""
            depth = saved[1]
        elif part == "records":
            record = saved[2]
        elif part == "ler":
            ler = saved[3]
        else:
            ctl = saved[0]
    return ctl, depth, record, ler


class _World:
    """One state, unpacked: whether the TD runs, the host's and the TD's registers."""

    def __init__(self, state: State, parts: Sequence[str]) -> None:
        self.inside, self.host, self.td = state
        self.parts = parts
        self.broken: set[str] = set()
        self.seen: str | None = None

    def state(self) -> State:
        return self.inside, self.host, self.td

    def registers(self) -> Registers:
        ctl, depth, record, ler = self.td if self.inside else self.host
        return Registers("TD" if self.inside else "host", (record or "-",), bool(ctl),
                         f"LER {ler or '-'}, DEPTH of the {'host' if depth == 'H' else 'TD'}")

    def _exit(self) -> None:
        host, td, back = self.host, self.td, _exit(self.host, self.td, self.parts)
        self.inside, self.host = 0, back
        self.broken = {name for name, wrong in (
            ("P1", "h" in td[2:]), ("P4", "T" in back[2:]), ("DEPTH", back[1] != host[1]),
            ("RECORDS", back[2] != host[2]), ("LER", back[3] != host[3]),
            ("CTL", back[0] != host[0])) if wrong}

    def successors(self) -> Iterator[tuple[str, _World]]:
        who, mine = ("TD", self.td) if self.inside else ("host", self.host)
        ctl, depth, record, ler = mine
        then = {f"{who} wrmsr LBR_CTL {1 - ctl}": (1 - ctl, depth, record, ler)}
        if ctl:
            then[f"{who} branch"] = (ctl, depth, who[0], ler)
            if record:
                then[f"{who} exception"] = (ctl, depth, who[0], record)
        for words, new in then.items():
            yield words, _World((self.inside, self.host, new) if self.inside else
                                (self.inside, new, self.td), self.parts)
        over = _World(self.state(), self.parts)
        if self.inside:
            over._exit()
            yield "TD exit", over
        else:
            over.inside = 1
            yield "TD enter", over


def parts_without(flaws: Iterable[str]) -> tuple[str, ...]:
    """What a host with these flaws restores, in its order."""
    flaws = set(flaws)
    parts = [part for part in PARTS if f"no-{part}" not in flaws]
    if "depth-last" in flaws and "depth" in parts:
        parts = [*parts[1:], "depth"]
    return tuple(parts)


def ground(parts: Sequence[str] = PARTS) -> Ground:
    """The worlds of a host that restores these parts, and the first state: nothing recorded, the
    TD not entered."""
    # in the TD?, the host's registers, the TD's
    start = (0, (0, "H", "", ""), (0, "T", "", ""))
    return lambda state: _World(state, parts), start


def search(parts: Sequence[str] = PARTS) -> Found:
    """All states of a host with and without an event, and a TD.

    Parameters
    ----------
    parts : sequence of str
        Names out of `PARTS`, in the order in which the host restores them.
    """
    return plain_search.search(*ground(parts))
