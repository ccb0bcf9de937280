"""TDX: the module owns a TD's LBRs, the host owns what the module leaves.

Public documents state that a TD may not have LBRs (XFAM bit 15 is refused) until KVM saves and
restores IA32_LBR_DEPTH properly.  Here a TD has them: the module loads its state on entry, and on
exit saves it and leaves the initial state, as XRSTORS makes it, in which DEPTH is the TD's.  So the
host has to save four things before the entry and restore them after the exit, DEPTH first, since a
write of it resets the records.  `search` leaves any of them out, or takes another order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

__all__ = ["PARTS", "search"]

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


def search(parts: Sequence[str] = PARTS) -> dict[str, list[str]]:
    """All states of a host with and without an event, and a TD.

    Parameters
    ----------
    parts : sequence of str
        Names out of `PARTS`, in the order in which the host restores them.

    Returns
    -------
    dict
        Property -> the shortest way to break it: P1 the TD reads a record of the host, P4 the host
        one of the TD, P5 a control register or DEPTH is not the host's, P7 LER is not, P21 a record
        of the host is missing.
    """
    start = (0, (0, "H", "", ""), (0, "T", "", ""))     # in the TD?, the host's, the TD's registers
    parents: dict[tuple, tuple[tuple, str] | None] = {start: None}
    queue = deque([start])
    broken: dict[str, list[str]] = {}
    while queue:
        state = queue.popleft()
        inside, host, td = state
        who, mine = ("TD", td) if inside else ("host", host)
        ctl, depth, record, ler = mine
        tag = who[0]
        then = {f"{who} wrmsr LBR_CTL {1 - ctl}": (1 - ctl, depth, record, ler)}
        if ctl:
            then[f"{who} branch"] = (ctl, depth, tag, ler)
            if record:
                then[f"{who} exception"] = (ctl, depth, tag, record)
        after = {words: (inside, host, new) if inside else (inside, new, td)
                 for words, new in then.items()}
        found: dict[str, set[str]] = {}
        if inside:
            back = _exit(host, td, parts)
            after["TD exit"] = (0, host, td)
            found["TD exit"] = {
                name for name, wrong in (
                    ("P1", "h" in td[2:]), ("P4", "T" in back[2:]), ("P5", back[:2] != host[:2]),
                    ("P7", back[3] != host[3]), ("P21", back[2] != host[2])) if wrong}
        else:
            after["TD enter"] = (1, host, td)
        for words, new in after.items():
            for name in found.get(words, set()) - broken.keys():
                broken[name] = [*_way(parents, state), words]
            if not found.get(words) and new not in parents:
                parents[new] = (state, words)
                queue.append(new)
    return broken


def _way(parents: dict[tuple, tuple[tuple, str] | None], state: tuple) -> list[str]:
    words = []
    at = parents[state]
    while at:
        words.append(at[1])
        at = parents[at[0]]
    return words[::-1]
