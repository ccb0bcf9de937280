"""TDX: the module owns a TD's LBRs, the host owns what the module leaves.

Public documents state that a TD may not have LBRs (XFAM bit 15 is refused) until KVM saves and
restores IA32_LBR_DEPTH properly.  Here a TD has them: the module loads its state on entry, and on
exit saves it and leaves the initial state, as XRSTORS makes it, in which DEPTH is the TD's.  So the
host has to save four things before the entry and restore them after the exit, DEPTH first, since a
write of it resets the records.  `search` leaves any of them out, or takes another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pylbr.verify import plain_search
from pylbr.verify.plain_search import Found, State

__all__ = ["PARTS", "TITLES", "search"]

#: Properties, as in `pylbr.verify.properties`.
TITLES = {
    "P1": "the TD reads a record of the host",
    "P4": "the host reads a record of the TD",
    "P5": "LBR_CTL or DEPTH is not what the host set",
    "P7": "LER is not the host's",
    "P21": "a record of the host is missing",
}
#: What the host has to put back, in this order.
PARTS = ("depth", "records", "ler", "ctl")

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

    def _exit(self) -> None:
        host, td, back = self.host, self.td, _exit(self.host, self.td, self.parts)
        self.inside = 0
        self.broken = {name for name, wrong in (
            ("P1", "h" in td[2:]), ("P4", "T" in back[2:]), ("P5", back[:2] != host[:2]),
            ("P7", back[3] != host[3]), ("P21", back[2] != host[2])) if wrong}

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


def search(parts: Sequence[str] = PARTS) -> Found:
    """All states of a host with and without an event, and a TD.

    Parameters
    ----------
    parts : sequence of str
        Names out of `PARTS`, in the order in which the host restores them.
    """
    # in the TD?, the host's registers, the TD's
    start = (0, (0, "H", "", ""), (0, "T", "", ""))
    return plain_search.search(lambda state: _World(state, parts), start)
