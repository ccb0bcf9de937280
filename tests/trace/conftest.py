"""What the tests of traces share."""

from __future__ import annotations

import numpy as np
import pytest

from lbrcore import BRANCH_DTYPE
from pylbr.trace import Metadata, Module, Task


@pytest.fixture(scope="session")
def metadata():
    """Metadata with every field in use."""
    return Metadata(
        model="Skylake",
        modules=(Module("/bin/prog", 0x400000, 0x1000, 0x1000, "ab" * 20, 7),),
        tasks=(Task(8, 7, "prog"),),
        provenance={"source": "a test"},
    )


@pytest.fixture(scope="session")
def random_branches():
    """``random_branches(count)``: branches with every field in its whole range."""
    return _random_branches


def _random_branches(count: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    branches = np.zeros(count, BRANCH_DTYPE)
    branches["from"] = rng.integers(0, 2**64, count, np.uint64)
    branches["to"] = rng.integers(0, 2**64, count, np.uint64)
    branches["cycles"] = rng.integers(0, 2**32, count)
    branches["instructions"] = rng.integers(0, 2**32, count)
    branches["class"] = rng.integers(0, 16, count)
    branches["flags"] = rng.integers(0, 8, count)
    branches["cpl_from"] = rng.integers(0, 4, count)
    branches["cpl_to"] = rng.integers(0, 4, count)
    branches["events"] = rng.integers(0, 256, (count, 4))
    return branches
