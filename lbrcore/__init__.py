"""lbrcore: one LBR facility, exact and fast."""

import os.path as _path

from lbrcore.capi import _C_API
from lbrcore.config import (
    CTL_ALL,
    INFO_ALL,
    INFO_CLASS,
    SELECT_ALL,
    SELECT_ALL_CALL_STACK,
    Flavour,
    LbrConfig,
    Quirk,
)
from lbrcore.dtypes import BRANCH_DTYPE, ENTRY_DTYPE, BranchClass, BranchFlag
from lbrcore.errors import Fault
from lbrcore.lbr import LbrState

__all__ = [
    "BRANCH_DTYPE",
    "CTL_ALL",
    "ENTRY_DTYPE",
    "INFO_ALL",
    "INFO_CLASS",
    "SELECT_ALL",
    "SELECT_ALL_CALL_STACK",
    "BranchClass",
    "BranchFlag",
    "Fault",
    "Flavour",
    "LbrConfig",
    "LbrState",
    "Quirk",
    "_C_API",
    "get_include",
    "get_library",
]


def get_include() -> str:
    """Directory of ``lbrcore.h``, for ``include_dirs``."""
    return _path.join(_path.dirname(__file__), "include")


def get_library() -> str:
    """Directory of ``liblbrcore.so.1``, ``liblbrcore.a``, ``lbrcore.c`` and its other headers."""
    return _path.join(_path.dirname(__file__), "lib")
