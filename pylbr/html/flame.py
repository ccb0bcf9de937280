"""Call stacks added up into the tree of a flame graph."""

from __future__ import annotations

from collections import Counter
from typing import Final

from pylbr.profile.call_stacks import Stack
from pylbr.profile.symbols import Symbols

__all__ = ["FlameTree"]

#: Frames on the page, and the depth to which a stack is shown; what is cut off counts in the frame
#: that it is cut off from.
_MOST: Final = 8000
_DEEPEST: Final = 200
Frame = tuple[str, str]


class FlameTree:
    """Frames by the stack that leads to them.

    Parameters
    ----------
    unit : str
        What the counts are of.

    Attributes
    ----------
    total : int
    """

    def __init__(self, unit: str) -> None:
        self.unit, self.total = unit, 0
        self._nodes: dict[tuple[int, Frame], int] = {}
        self._values: list[int] = []

    def add(self, stacks: Counter[Stack], symbols: Symbols, weight: int = 1) -> None:
        """Count stacks of addresses, the outermost first, each after its address space."""
        known: dict[tuple[int, int], Frame] = {}
        for (space, *addresses), count in stacks.items():
            self.total += count * weight
            at = -1
            for address in addresses[:_DEEPEST]:
                frame = known.get((space, address))
                if frame is None:
                    place = symbols.place(space, address)
                    frame = known[space, address] = place.function or str(place), place.path
                at = self._nodes.setdefault((at, frame), len(self._values))
                if at == len(self._values):
                    self._values.append(0)
                self._values[at] += count * weight

    def nodes(self) -> list[tuple[int, str, str, int]]:
        """(parent, function, file, count) of the frames with the largest counts, parents first.

        The first is the root, of no parent (-1).
        """
        order = sorted(self._nodes.items(), key=lambda item: (-self._values[item[1]], item[1]))
        number: dict[int, int] = {-1: 0}
        result = [(-1, "all", "", self.total)]
        for (parent, (name, file)), at in order[:_MOST]:
            # A parent has no smaller count and an earlier number: it is there already.
            number[at] = len(result)
            result.append((number[parent], name, file, self._values[at]))
        return result
