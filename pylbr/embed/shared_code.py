"""Code that an engine has translated, in memory that other engines write, too.

An engine notices its own writes to code that it has translated, and not those of another engine
over the same memory.  So its pages are copied when it stops running, and compared when it
continues: if one has changed meanwhile, the engine translates everything again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pylbr.embed.code_pages import CodePages
from pylbr.embed.engine import Engine

__all__ = ["SharedCode"]


class SharedCode:
    """The code of one engine.

    Parameters
    ----------
    engine : Engine
    pages : CodePages
        Its pages with code.
    memory : ndarray
        The guest's memory from 0, as uint64 of shape (pages, 512).

    Attributes
    ----------
    flushes : int
        How often all was to be translated again.
    """

    def __init__(self, engine: Engine, pages: CodePages, memory: npt.NDArray[np.uint64]) -> None:
        self._engine, self._pages, self._memory = engine, pages, memory
        self._numbers = np.empty(0, np.intp)
        self._copy = memory[:0]
        self.flushes = 0

    def leave(self) -> None:
        """The engine has stopped, and others will run."""
        self._numbers = np.flatnonzero(np.frombuffer(self._pages.pages, np.uint8))
        self._copy = self._memory[self._numbers]

    def enter(self) -> None:
        """The engine is about to continue."""
        if self._pages.unknown or not np.array_equal(self._memory[self._numbers], self._copy):
            self._engine.uc.ctl_flush_tb()  # type: ignore[attr-defined]
            self._pages.forget()
            self.flushes += 1
