from collections.abc import Callable, Iterable

from typing_extensions import disjoint_base

from pylbr.arbitration.single_owner import SingleOwner

@disjoint_base
class MediatedArchLbr(SingleOwner):
    flaws: frozenset[str]
    def __init__(self, flaws: Iterable[str] = ...) -> None: ...

POLICIES: dict[str, Callable[..., MediatedArchLbr]]
