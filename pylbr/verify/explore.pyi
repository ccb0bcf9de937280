from collections.abc import Sequence

from typing_extensions import disjoint_base

from lbrcore.config import LbrConfig
from pylbr.arbitration.microsteps import Policy

@disjoint_base
class Model:
    policy: Policy
    def __init__(
        self, policy: Policy, config: LbrConfig, cpus: int = ..., guests: int = ...,
        features: int = ..., kinds: Sequence[int] = ..., events: int = ...,
        guest_depth: int = ...,
    ) -> None: ...

@disjoint_base
class Explorer:
    model: Model
    states: int
    transitions: int
    depth: int
    complete: bool
    failed: int
    def __new__(cls, model: Model, canonical: bool = ...) -> Explorer: ...
    def run(self, budget: int = ..., prune: int = ..., stop: int = ...) -> bool: ...
    @property
    def memory(self) -> int: ...
    def path(self, property: int) -> tuple[list[bytes], tuple[int, int, int]]: ...
