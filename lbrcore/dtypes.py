"""NumPy dtypes and names of what goes into the facility and comes out of it."""

from enum import IntEnum, IntFlag

import numpy as np

__all__ = ["BRANCH_DTYPE", "ENTRY_DTYPE", "BranchClass", "BranchFlag"]


class BranchClass(IntEnum):
    """Class of a branch, as the ``class`` field of `BRANCH_DTYPE` holds it.

    0 to 5 are BR_TYPE (SDM vol. 3, table 20-2).  6 and 7, which that table reserves,
    stand for what no facility records; 8 to 15 distinguish the members of OTHER_BRANCH.
    """

    COND = 0
    NEAR_IND_JMP = 1
    NEAR_REL_JMP = 2
    NEAR_IND_CALL = 3
    NEAR_REL_CALL = 4
    NEAR_RET = 5
    NOT_TAKEN = 6
    ZERO_CALL = 7
    FAR_BRANCH = 8
    SYSCALL = 9
    SYSRET = 10
    IRET = 11
    INTERRUPT = 12
    EXCEPTION = 13
    SOFT_INT = 14
    TSX_ABORT = 15


class BranchFlag(IntFlag):
    """Flags of a branch; ``flags << 61`` are the bits of IA32_LBR_x_INFO."""

    TSX_ABORT = 1
    IN_TSX = 2
    MISPRED = 4


#: One branch of a trace: 32 bytes, native byte order, oldest first in every array.
#: The field names and units are those of ``lbr_branch`` in ``lbrcore.h``.
BRANCH_DTYPE = np.dtype(
    [
        ("from", "u8"),
        ("to", "u8"),
        ("cycles", "u4"),
        ("instructions", "u4"),
        ("class", "u1"),
        ("flags", "u1"),
        ("cpl_from", "u1"),
        ("cpl_to", "u1"),
        ("events", "u1", (4,)),
    ]
)

#: One record: 24 bytes, newest first in every array; ``info`` as IA32_LBR_x_INFO.
ENTRY_DTYPE = np.dtype([("from", "u8"), ("to", "u8"), ("info", "u8")])
