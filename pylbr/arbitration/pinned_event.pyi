from typing import ClassVar

from typing_extensions import disjoint_base

from pylbr.arbitration.microsteps import Policy

@disjoint_base
class PinnedEvent(Policy):
    FLAWS: ClassVar[dict[str, tuple[int, str] | tuple[int, str, str]]]
    flaws: frozenset[str]
