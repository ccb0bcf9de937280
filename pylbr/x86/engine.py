"""capstone's decoder, made so that no signal is lost."""

from __future__ import annotations

import signal
import threading

import capstone

__all__ = ["decoder"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


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
    if threading.current_thread() is not threading.main_thread():
        return capstone.Cs(capstone.CS_ARCH_X86, mode)
    came: list[int] = []
    handlers = {number: handler for number in _SIGNALS
                if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        return capstone.Cs(capstone.CS_ARCH_X86, mode)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)
