"""lbrcore: one LBR facility, exact and fast."""

from lbrcore.dtypes import BRANCH_DTYPE, ENTRY_DTYPE, BranchClass, BranchFlag

__all__ = ["BRANCH_DTYPE", "ENTRY_DTYPE", "BranchClass", "BranchFlag"]
