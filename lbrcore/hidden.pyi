from typing import Any

from lbrcore.lbr import LbrState

def hidden(state: LbrState) -> tuple[int | None, tuple[int, int, int, int], bool]: ...

def set_hidden(
    state: LbrState, cycles: int | None, events: tuple[int, int, int, int], xinuse: bool
) -> None: ...

__test__: dict[str, Any]
