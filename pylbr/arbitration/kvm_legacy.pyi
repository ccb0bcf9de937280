from collections.abc import Callable, Iterable

from pylbr.arbitration.pinned_event import PinnedEvent

class KvmLegacy(PinnedEvent):
    def __init__(self, flaws: Iterable[str] = ..., designed: bool = ...,
                 keeps_debugctl: bool = ...) -> None: ...

POLICIES: dict[str, Callable[..., KvmLegacy]]
