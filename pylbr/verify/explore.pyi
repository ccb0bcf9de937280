from collections.abc import Sequence

from lbrcore.config import LbrConfig
from pylbr.arbitration.system import Policy

class Model:
    policy: Policy
    def __init__(
        self, policy: Policy, config: LbrConfig, cpus: int = ..., guests: int = ...,
        features: int = ..., kinds: Sequence[int] = ..., events: int = ...,
        guest_depth: int = ...,
    ) -> None: ...

class Explorer:
    model: Model
    states: int
    transitions: int
    depth: int
    complete: bool
    failed: int
    def __init__(self, model: Model, canonical: bool = ...) -> None: ...
    def run(self, budget: int = ..., prune: int = ..., stop: int = ...) -> bool: ...
    def path(self, property: int) -> tuple[list[bytes], tuple[int, int, int]]: ...
