"""Show how well the streams fit: ``python -m pylbr.workloads``, a table in Markdown."""

from __future__ import annotations

from itertools import islice

import numpy as np

from lbrcore import BranchClass
from pylbr.workloads import NAMES, Model, Statistics, recorded, statistics_of

COLUMNS = ("workload", "", "taken cond.", "not taken", "jumps", "indirect", "calls", "returns",
           "instructions", "loops: median, mean, 90 %", "depth: mean, 90 %", "targets", "entropy",
           "branches")


def cells(found: Statistics) -> list[str]:
    """What a row of the table has of some statistics."""
    def share(*kinds: BranchClass) -> str:
        return f"{100 * sum(found.classes.get(int(kind), 0.0) for kind in kinds):.1f} %"

    return [
        share(BranchClass.COND), share(BranchClass.NOT_TAKEN), share(BranchClass.NEAR_REL_JMP),
        share(BranchClass.NEAR_IND_JMP, BranchClass.NEAR_IND_CALL),
        share(BranchClass.NEAR_REL_CALL, BranchClass.NEAR_IND_CALL), share(BranchClass.NEAR_RET),
        f"{found.instructions:.2f}", ", ".join(f"{value:.1f}" for value in found.loops),
        ", ".join(f"{value:.1f}" for value in found.depth), f"{found.targets:.1f}",
        f"{found.entropy:.3f}", f"{found.sites:,}"]


def main() -> None:
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for name in NAMES:
        with recorded(name) as trace:
            rows = trace.read(0, trace.count or 0)
        drawn = np.concatenate(list(islice(Model(rows).stream(1), -(-len(rows) >> 16))))
        for title, what in (("recorded", rows), ("drawn", drawn)):
            print("| " + " | ".join([name, title, *cells(statistics_of(what))]) + " |", flush=True)


if __name__ == "__main__":
    main()
