"""Branches and listeners for the processor's tests."""

import numpy as np

from lbrcore import BRANCH_DTYPE, BranchClass


class Listener:
    """Notes PMIs and PEBS records; `on_pmi` is called with the processor."""

    def __init__(self, on_pmi=None, reload=None):
        self.pmis, self.records = [], []
        self.on_pmi, self.reload = on_pmi, reload

    def pmi(self, cpu):
        self.pmis.append(cpu.pmu.status)
        return self.on_pmi(cpu) if self.on_pmi else None

    def pebs(self, cpu, counter, record):
        self.records.append((counter, record))
        return self.reload


def some_branches(n, seed=0, cpl=3, classes=(0, 1, 2, 3, 4, 5, 6)):
    """`n` random branches at one privilege level."""
    rng = np.random.default_rng(seed)
    b = np.zeros(n, BRANCH_DTYPE)
    b["from"] = rng.integers(0x400000, 0x500000, n)
    b["to"] = rng.integers(0x400000, 0x500000, n)
    b["class"] = rng.choice(classes, n)
    b["cycles"] = rng.integers(0, 60, n)
    b["instructions"] = rng.integers(1, 12, n)
    b["flags"] = rng.choice([0, 0, 0, 4], n)
    b["cpl_from"] = b["cpl_to"] = cpl
    return b


def taken(branches):
    """Those that make a record."""
    return branches[~np.isin(branches["class"], (BranchClass.NOT_TAKEN, BranchClass.ZERO_CALL))]
