from collections.abc import Callable, Iterable

from pylbr.arbitration.pinned_event import PinnedEvent

class ArchLbrV2(PinnedEvent):
    def __init__(self, flaws: Iterable[str] = ...) -> None: ...

POLICIES: dict[str, Callable[..., ArchLbrV2]]
