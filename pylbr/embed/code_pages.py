"""Pages with code that an engine has translated, in memory that other engines write, too.

An engine notices its own writes to code that it has translated, and not those of another engine
over the same memory.  So its pages are copied when it stops running, and compared when it
continues: if one has changed meanwhile, the engine translates everything again.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

import numpy as np
import numpy.typing as npt
from unicorn import UC_HOOK_EDGE_GENERATED
from unicorn import x86_const as reg

from pylbr.embed.engine import PAGE, Engine, GuestFault

__all__ = ["CodePages"]


class _Block(ctypes.Structure):
    """uc_tb."""

    _fields_ = (("pc", ctypes.c_uint64), ("icount", ctypes.c_uint16), ("size", ctypes.c_uint16))


_TRANSLATED = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.POINTER(_Block), ctypes.c_void_p, ctypes.c_void_p)


class CodePages:
    """The pages of one engine.

    Parameters
    ----------
    engine : Engine
    memory : ndarray
        The guest's memory from 0, as uint64 of shape (pages, 512).

    Attributes
    ----------
    flushes : int
        How often all was to be translated again.
    """

    def __init__(self, engine: Engine, memory: npt.NDArray[np.uint64]) -> None:
        self._engine, self._memory = engine, memory
        self._pages: set[int] = set()
        self._unknown = False
        self._numbers = np.empty(0, np.intp)
        self._copy = memory[:0]
        self.flushes = 0
        self._hook = _TRANSLATED(self._translated)
        engine.hook(UC_HOOK_EDGE_GENERATED, ctypes.cast(self._hook, ctypes.c_void_p).value or 0, 0)

    def _translated(self, engine: int, block: ctypes._Pointer[_Block], *_: object) -> None:
        translated = block.contents
        self._add(translated.pc, translated.size)

    def _add(self, address: int, size: int) -> None:
        try:
            for page in range(address // PAGE, (address + size - 1) // PAGE + 1):
                self._pages.add(self._engine.translate(page * PAGE) // PAGE)
        except GuestFault:
            self._unknown = True

    def leave(self) -> None:
        """The engine has stopped, and others will run."""
        inside = [page for page in self._pages if page < len(self._memory)]
        self._numbers = np.array(inside, np.intp)
        self._copy = self._memory[self._numbers]

    def enter(self) -> None:
        """The engine is about to continue."""
        if self._unknown or not np.array_equal(self._memory[self._numbers], self._copy):
            self._engine.uc.ctl_flush_tb()  # type: ignore[attr-defined]
            self._pages.clear()
            self._unknown = False
            self.flushes += 1
        # The engine does not report the block that it begins with, which may end in the next page.
        rip = self._engine.uc.reg_read(reg.UC_X86_REG_RIP)
        self._add(rip, 1)
        with suppress(GuestFault):
            self._pages.add(self._engine.translate(rip + PAGE & (1 << 64) - 1) // PAGE)
