"""What the flags of a branch contain beyond `lbrcore.BranchFlag`, on architectures other than x86.

A row of `lbrcore.BRANCH_DTYPE` serves all architectures.  Its class is `lbrcore.BranchClass`:
SYSCALL is SVC, HVC, SMC and ECALL, SYSRET and IRET are ERET, MRET and SRET, SOFT_INT is BRK and
EBREAK, ZERO_CALL is a call like any other.  FAR_BRANCH names nothing there.  `cpl_from` and
`cpl_to` count from 3, the least privileged level: EL = 3 - cpl on Arm; 3 U, 2 S, 0 M on RISC-V,
plus 4 where the hart is virtualised (V = 1).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = ["CAUSE_SHIFT", "LINK", "VIRTUAL", "Cause"]

#: In `flags`, RISC-V: the jump or return writes a link register, too.  With NEAR_RET it is a
#: co-routine swap, with a jump one "with linkage" that is no call.
LINK: Final = 8
#: `flags` >> 4 of an exception or interrupt is its `Cause`.
CAUSE_SHIFT: Final = 4
#: In `cpl_from` and `cpl_to`, RISC-V: V = 1.
VIRTUAL: Final = 4


class Cause(IntEnum):
    """Why an exception or interrupt was taken, as far as a branch recorder reports it."""

    OTHER = 0
    BREAKPOINT = 1
    WATCHPOINT = 2
    DATA_FAULT = 3
    INSTRUCTION_FAULT = 4
    ALIGNMENT = 5
    SYSTEM_ERROR = 6
    FIQ = 7
    COUNTER_OVERFLOW = 8  #: of a performance counter; RISC-V's LCOFI
