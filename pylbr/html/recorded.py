"""A file counted for the page: its profile, branch history and call stacks in one reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pylbr.errors import TraceError
from pylbr.html.flame import FlameTree
from pylbr.perf.stacks import Samples, Stacks
from pylbr.profile.call_stacks import Chains, stacks_of_trace
from pylbr.profile.file_profile import FileProfile, count_file
from pylbr.profile.history import Paths
from pylbr.trace import Trace, open_any

__all__ = ["count_with_stacks"]


class _Both(Chains):
    """Counts the branch history and call stacks."""

    def __init__(self, events: tuple[Any, ...], length: int) -> None:
        super().__init__(events)
        self.length = length

    def clear(self) -> None:
        super().clear()
        Paths.clear(self)

    def add(self, samples: Samples) -> None:
        super().add(samples)
        Paths.add(self, samples)


def count_with_stacks(
    source: Trace | Stacks, length: int, name: str, flame: dict[str, FlameTree], weight: int = 1,
    update: Callable[[int], object] = lambda _: None,
) -> FileProfile:
    """Count an open file, and add its call stacks to the tree of their unit.

    Parameters
    ----------
    source : Trace or Stacks
    length : int
        Branches in a path of the branch history.
    name : str
        What messages call the file.
    flame : dict of str to FlameTree
        By what is counted, samples or branches; a tree is added where there is none.
    weight : int
    update : callable, optional
        Called with the number of samples or branches that were read.

    Raises
    ------
    CommandError, TraceError
        As `pylbr.profile.file_profile.count_file` does.
    """
    if isinstance(source, Stacks):
        both = _Both(source.metadata.events, length)
        profile = count_file(source, both, update, name)
        if both.stacks:
            tree = flame.setdefault("samples", FlameTree("samples"))
            tree.add(both.stacks, profile.symbols, weight)
        return profile
    profile = count_file(source, 0, update, name)
    try:  # a trace is read once more: its branches have to be followed in order
        with open_any(source.path) as again:
            if isinstance(again, Trace):
                tasks, symbols, _ = stacks_of_trace(again, lambda _: None)
                tree = flame.setdefault("branches", FlameTree("taken branches"))
                for stacks in tasks.values():
                    tree.add(stacks, symbols, weight)
    except TraceError as error:
        profile.symbols.problems.append(f"no flame graph: {error}")
    return profile
