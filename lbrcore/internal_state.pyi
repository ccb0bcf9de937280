from typing import Any

from lbrcore.lbr import LbrState

def internal_state(state: LbrState) -> tuple[int | None, tuple[int, int, int, int], bool]: ...

def set_internal_state(
    state: LbrState, cycles: int | None, events: tuple[int, int, int, int], xinuse: bool
) -> None: ...

__test__: dict[str, Any]
