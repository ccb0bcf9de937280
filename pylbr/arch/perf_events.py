"""Performance events that a branch stream carries, as rows.

An event is (event select, unit mask); what it counts is a set of branch classes, perhaps the
mispredicted ones only, or the instructions or cycles between branches.
"""

from __future__ import annotations

from dataclasses import dataclass

from lbrcore import BranchClass
from lbrcore.events import Unit
from pylbr.arch.branches import BRANCH_CLASSES

__all__ = ["EVENTS", "FIXED_EVENTS", "PerfEvent", "event"]


@dataclass(frozen=True, slots=True)
class PerfEvent:
    """One event.

    Attributes
    ----------
    name : str
        As the manual or the perfmon tables spell it.
    select, umask : int
    classes : int
        Bit n: class n counts.
    mispredicted : bool
        Only if mispredicted.
    unit : Unit
        What one branch adds to a counter.
    tables : frozenset of str
        Which `Pmu.events` have it.
    """

    name: str
    select: int
    umask: int
    classes: int
    mispredicted: bool = False
    unit: Unit = Unit.BRANCHES
    tables: frozenset[str] = frozenset({"architectural", "skylake", "golden-cove"})


def _mask(*classes: BranchClass) -> int:
    return sum(1 << c for c in classes)


_EVERY = 0xFFFF
_ALL = sum(1 << row.cls for row in BRANCH_CLASSES if row.instruction)
_COND_TAKEN = _mask(BranchClass.COND)
_COND_NTAKEN = _mask(BranchClass.NOT_TAKEN)
_CALL = _mask(BranchClass.NEAR_REL_CALL, BranchClass.NEAR_IND_CALL, BranchClass.ZERO_CALL)
_RETURN = _mask(BranchClass.NEAR_RET)
_FAR = _mask(BranchClass.FAR_BRANCH, BranchClass.SYSCALL, BranchClass.SYSRET, BranchClass.IRET,
             BranchClass.SOFT_INT)
_NEAR_TAKEN = _ALL & ~_FAR & ~_COND_NTAKEN
_INDIRECT = _mask(BranchClass.NEAR_IND_JMP, BranchClass.NEAR_IND_CALL)
_SKYLAKE = frozenset({"skylake"})
_GOLDEN_COVE = frozenset({"golden-cove"})
_NEWER = _SKYLAKE | _GOLDEN_COVE
_AMD = frozenset({"amd"})

#: SDM vol. 3, 18.2.1.2 (architectural events); vol. 3, chapter 19 (Skylake);
#: Golden Cove: perfmon event tables; AMD: PPR, core PMCs.
EVENTS: tuple[PerfEvent, ...] = (
    PerfEvent("CPU_CLK_UNHALTED.THREAD", 0x3C, 0x00, _EVERY, unit=Unit.CYCLES),
    PerfEvent("INST_RETIRED.ANY", 0xC0, 0x00, _EVERY, unit=Unit.INSTRUCTIONS),
    PerfEvent("BR_INST_RETIRED.ALL_BRANCHES", 0xC4, 0x00, _ALL),
    PerfEvent("BR_MISP_RETIRED.ALL_BRANCHES", 0xC5, 0x00, _ALL, mispredicted=True),
    PerfEvent("BR_INST_RETIRED.NEAR_CALL", 0xC4, 0x02, _CALL, tables=_NEWER),
    PerfEvent("BR_INST_RETIRED.NEAR_RETURN", 0xC4, 0x08, _RETURN, tables=_NEWER),
    PerfEvent("BR_INST_RETIRED.NEAR_TAKEN", 0xC4, 0x20, _NEAR_TAKEN, tables=_NEWER),
    PerfEvent("BR_INST_RETIRED.FAR_BRANCH", 0xC4, 0x40, _FAR, tables=_NEWER),
    PerfEvent("BR_INST_RETIRED.CONDITIONAL", 0xC4, 0x01, _COND_TAKEN | _COND_NTAKEN,
              tables=_SKYLAKE),
    PerfEvent("BR_INST_RETIRED.NOT_TAKEN", 0xC4, 0x10, _COND_NTAKEN, tables=_SKYLAKE),
    PerfEvent("BR_INST_RETIRED.COND", 0xC4, 0x11, _COND_TAKEN | _COND_NTAKEN,
              tables=_GOLDEN_COVE),
    PerfEvent("BR_INST_RETIRED.COND_TAKEN", 0xC4, 0x01, _COND_TAKEN, tables=_GOLDEN_COVE),
    PerfEvent("BR_INST_RETIRED.COND_NTAKEN", 0xC4, 0x10, _COND_NTAKEN, tables=_GOLDEN_COVE),
    PerfEvent("BR_INST_RETIRED.INDIRECT", 0xC4, 0x80, _INDIRECT, tables=_GOLDEN_COVE),
    PerfEvent("BR_MISP_RETIRED.CONDITIONAL", 0xC5, 0x01, _COND_TAKEN | _COND_NTAKEN, True,
              tables=_SKYLAKE),
    PerfEvent("BR_MISP_RETIRED.NEAR_CALL", 0xC5, 0x02, _CALL, True, tables=_SKYLAKE),
    PerfEvent("BR_MISP_RETIRED.NEAR_TAKEN", 0xC5, 0x20, _NEAR_TAKEN, True, tables=_NEWER),
    PerfEvent("BR_MISP_RETIRED.COND", 0xC5, 0x11, _COND_TAKEN | _COND_NTAKEN, True,
              tables=_GOLDEN_COVE),
    PerfEvent("BR_MISP_RETIRED.COND_TAKEN", 0xC5, 0x01, _COND_TAKEN, True, tables=_GOLDEN_COVE),
    PerfEvent("BR_MISP_RETIRED.COND_NTAKEN", 0xC5, 0x10, _COND_NTAKEN, True,
              tables=_GOLDEN_COVE),
    PerfEvent("BR_MISP_RETIRED.RET", 0xC5, 0x08, _RETURN, True, tables=_GOLDEN_COVE),
    PerfEvent("BR_MISP_RETIRED.INDIRECT", 0xC5, 0x80, _INDIRECT, True, tables=_GOLDEN_COVE),
    PerfEvent("CPU_CLK_UNHALTED", 0x76, 0x00, _EVERY, unit=Unit.CYCLES, tables=_AMD),
    PerfEvent("RETIRED_INSTRUCTIONS", 0xC0, 0x00, _EVERY, unit=Unit.INSTRUCTIONS,
              tables=_AMD),
    PerfEvent("RETIRED_BRANCH_INSTRUCTIONS", 0xC2, 0x00, _ALL, tables=_AMD),
    PerfEvent("RETIRED_BRANCH_INSTRUCTIONS_MISPREDICTED", 0xC3, 0x00, _ALL, True, tables=_AMD),
    PerfEvent("RETIRED_TAKEN_BRANCH_INSTRUCTIONS", 0xC4, 0x00, _ALL & ~_COND_NTAKEN,
              tables=_AMD),
)

#: What fixed counters 0 to 3 count; None is not carried by a branch stream (reference
#: cycles, top-down slots).
FIXED_EVENTS: tuple[PerfEvent | None, ...] = (
    PerfEvent("INST_RETIRED.ANY", 0, 1, _EVERY, unit=Unit.INSTRUCTIONS),
    PerfEvent("CPU_CLK_UNHALTED.THREAD", 0, 2, _EVERY, unit=Unit.CYCLES),
    None,
    None,
)

_INDEX = {(table, e.select, e.umask): e for e in EVENTS for table in e.tables}


def event(table: str, select: int, umask: int) -> PerfEvent | None:
    """The event that a select and unit mask mean, None if a branch stream does not carry it."""
    return _INDEX.get((table, select, umask))
