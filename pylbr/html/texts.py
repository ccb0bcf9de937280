"""Texts of the page: each once, without what could act on a reader."""

from __future__ import annotations

from typing import Final

from pylbr.printable import printable
from pylbr.tables import ends

__all__ = ["Texts"]

_LONGEST: Final = 400


class Texts:
    """Texts by number.

    Attributes
    ----------
    all : list of str
    """

    def __init__(self) -> None:
        self.all: list[str] = []
        self._numbers: dict[str, int] = {}

    def shown(self, text: str) -> str:
        """A text as the page has it: control characters and those that turn the direction of
        writing escaped, the middle of a very long one left out."""
        return ends(printable(text), _LONGEST)

    def number(self, text: str) -> int:
        """Number of a text."""
        shown = self.shown(text)
        found = self._numbers.setdefault(shown, len(self.all))
        if found == len(self.all):
            self.all.append(shown)
        return found
