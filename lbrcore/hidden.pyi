from typing import Any

from lbrcore.lbr import LbrState

def hidden(state: LbrState) -> tuple[int | None, tuple[int, int, int, int], bool]:
    """What no register shows.

    Returns
    -------
    cycles : int or None
        Since the last record, at most FFFFH; None before the first one.
    events : tuple of int
        Logged events since the last record, 0 to 3 each.
    xinuse : bool
        XINUSE[15] was set by XRSTORS.
    """

def set_hidden(
    state: LbrState, cycles: int | None, events: tuple[int, int, int, int], xinuse: bool
) -> None:
    """Set it, after control and records; arguments as `hidden` returns.

    Raises
    ------
    OverflowError, ValueError
        For a count out of range; nothing has changed.
    """

__test__: dict[str, Any]
