from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

from lbrcore.config import LbrConfig
from pylbr.arbitration.microsteps import Policy
from pylbr.verify.sessions import Sessions

CYCLES: dict[str, int]

@disjoint_base
class Simulation(Sessions):
    counts: dict[str, int]
    per_cpu: list[dict[str, int]]
    truth_counts: npt.NDArray[np.uint64]
    profile_counts: npt.NDArray[np.uint64]
    def __init__(
        self, policy: Policy, config: LbrConfig, streams: Sequence[npt.NDArray[np.uint32]],
        edges: int, *, cpus: int = ..., host_branches: int = ..., guest_branches: int = ...,
        task_every: int = ..., session_every: int = ..., session_length: int = ...,
        period: int = ..., exclude_guest: bool = ..., seed: int = ...,
    ) -> None: ...
    @property
    def branches(self) -> int: ...
    @property
    def tasks(self) -> list[int]: ...
    def run(self, branches: int) -> dict[str, int]: ...
