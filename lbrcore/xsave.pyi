from collections.abc import Mapping
from typing import Any

from typing_extensions import Buffer

from lbrcore.lbr import LbrState

def component(state: LbrState) -> bytes: ...

def restore_component(state: LbrState, component: Buffer) -> None: ...

def xsaves(
    state: LbrState,
    area: Buffer,
    rfbm: int = ...,
    *,
    offset: int = 0,
    address: int | None = None,
    xinuse: int = 0,
    sizes: Mapping[int, int] | None = None,
    aligned: int = 0,
) -> None: ...

def xrstors(
    state: LbrState,
    area: Buffer,
    rfbm: int = ...,
    *,
    offset: int = 0,
    address: int | None = None,
    supported: int = ...,
    sizes: Mapping[int, int] | None = None,
    aligned: int = 0,
) -> None: ...

__test__: dict[str, Any]
