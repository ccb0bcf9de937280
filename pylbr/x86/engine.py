"""capstone's decoder, made so that no signal is lost."""

from __future__ import annotations

import capstone

from pylbr.x86.held_signals import signals_held

__all__ = ["decoder"]


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
