"""capstone's decoder, made so that no signal is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import capstone

__all__ = ["decoder", "signals_held"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


@contextmanager
def signals_held() -> Iterator[None]:
    """Let signals come after the block: for code of others that ignores every exception.

    A mask would not do: a signal to the process goes to another thread, and Python still calls
    its handler in the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: handler for number in _SIGNALS
                if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


def decoder(mode: int) -> capstone.Cs:
    """A decoder of x86.

    Parameters
    ----------
    mode : int
        ``capstone.CS_MODE_64`` or one of its kind.

    Returns
    -------
    capstone.Cs

    Notes
    -----
    Its constructor ignores every exception while it tries an import, a signal's among them.
    """
    with signals_held():
        return capstone.Cs(capstone.CS_ARCH_X86, mode)
