"""Processes that work for this one."""

from __future__ import annotations

import ctypes
import os
import signal
from multiprocessing import parent_process
from typing import Final

__all__ = ["begin_worker"]

_PR_SET_PDEATHSIG: Final = 1


def begin_worker() -> None:
    """Let this process of a pool end with its parent, however that ends, and on a signal.

    A pool's worker waits for its next task in a pipe whose other end it holds itself, so that it
    never learns that the parent is gone.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    parent = parent_process()
    if parent is None or not parent.is_alive():
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it, too
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
