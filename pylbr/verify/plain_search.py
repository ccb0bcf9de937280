"""Search and replay of models small enough for plain Python.

A world is unpacked of a state, a tuple that can be hashed, and lists what can happen next as words.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from pylbr.errors import StateError

__all__ = ["Found", "Ground", "Played", "Registers", "State", "World", "play", "search"]

State = tuple


@dataclass(frozen=True)
class Registers:
    """What the processor has, to be printed.

    Attributes
    ----------
    owner : str
        Who runs.
    records : tuple of str
        Newest first; ``-`` for an empty entry.
    recording : bool
    rest : str
        The other registers, in words.
    """

    owner: str
    records: tuple[str, ...]
    recording: bool
    rest: str = ""


class World(Protocol):
    """One state, unpacked.

    Attributes
    ----------
    broken : set of str
        Properties that the last action broke.
    seen : str or None
        What it read.
    """

    broken: set[str]
    seen: str | None

    def state(self) -> State:
        """The state, packed."""
        ...

    def registers(self) -> Registers:
        """What the processor has, to be printed."""
        ...

    def successors(self) -> Iterator[tuple[str, World]]:
        """Words of what can happen, and the world after it."""
        ...


#: What makes a world of a state, and the first state.
Ground = tuple[Callable[[State], World], State]


@dataclass(frozen=True)
class Played:
    """What a written run came to.

    Attributes
    ----------
    reads : tuple of str
        The record that each read saw: whose it is, or nothing; ``#GP`` for a fault.
    broken : tuple of str
        Properties that broke, in order.
    """

    reads: tuple[str, ...]
    broken: tuple[str, ...]


@dataclass
class Found:
    """What a search came to.

    Attributes
    ----------
    states : int
    broken : dict
        Property -> the shortest way to break it, as words.
    transitions : int
    diameter : int
        Actions to the farthest state.
    """

    states: int
    broken: dict[str, list[str]] = field(default_factory=dict)
    transitions: int = 0
    diameter: int = 0


def play(world: World, words: Iterable[str]) -> Played:
    """Run what is written, in the words that `search` prints.

    Raises
    ------
    StateError
        Something cannot happen where it stands.
    """
    reads: list[str] = []
    broken: list[str] = []
    for number, word in enumerate(words, 1):
        possible = dict(world.successors())
        if word not in possible:
            raise StateError(f"step {number}: {word!r} cannot happen here; possible are "
                             f"{', '.join(possible)}")
        world = possible[word]
        broken += sorted(world.broken - {*broken})
        if world.seen is not None:
            reads.append(world.seen)
    return Played(tuple(reads), tuple(broken))


def search(unpack: Callable[[State], World], first: State, until: str | None = None) -> Found:
    """All states, breadth first; what follows a broken property is not searched.

    Parameters
    ----------
    until : str, optional
        End as soon as this property is broken.
    """
    parents: dict[State, tuple[State, str] | None] = {first: None}
    queue = deque([(first, 0)])
    found = Found(0)
    while queue and until not in found.broken:
        state, found.diameter = queue.popleft()
        for words, world in unpack(state).successors():
            found.transitions += 1
            after = world.state()
            for name in world.broken - found.broken.keys():
                found.broken[name] = [*_way(parents, state), words]
            if not world.broken and after not in parents:
                parents[after] = (state, words)
                queue.append((after, found.diameter + 1))
    found.states = len(parents)
    return found


def _way(parents: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    words = []
    at = parents[state]
    while at:
        words.append(at[1])
        at = parents[at[0]]
    return words[::-1]
