"""Branch classes: what each is called, where it is filtered and what type it is given."""

from __future__ import annotations

from dataclasses import dataclass

from lbrcore import BranchClass

__all__ = ["BRANCH_CLASSES", "BranchRow", "br_type_name"]


@dataclass(frozen=True, slots=True)
class BranchRow:
    """One branch class.

    Attributes
    ----------
    cls : BranchClass
    br_type : int or None
        INFO[59:56]; None: never recorded.
    ctl_bit : int or None
        The bit of IA32_LBR_CTL that includes it.
    select_bit : int or None
        The bit of MSR_LBR_SELECT, and of AMD's LBR_SELECT, that suppresses it.
    instruction : bool
        Retires as a branch instruction (events and aborts do not).
    members : str
    """

    cls: BranchClass
    br_type: int | None
    ctl_bit: int | None
    select_bit: int | None
    instruction: bool
    members: str


#: SDM vol. 3, tables 20-2 and 20-3; MSR_LBR_SELECT: tables 17-11 to 17-13 (2017 text).
BRANCH_CLASSES: tuple[BranchRow, ...] = (
    BranchRow(BranchClass.COND, 0, 16, 2, True, "Jcc, JCXZ/JECXZ/JRCXZ, LOOP, LOOPcc; taken"),
    BranchRow(BranchClass.NEAR_IND_JMP, 1, 18, 6, True, "JMP r/m"),
    BranchRow(BranchClass.NEAR_REL_JMP, 2, 17, 7, True, "JMP rel"),
    BranchRow(BranchClass.NEAR_IND_CALL, 3, 20, 4, True, "CALL r/m"),
    BranchRow(BranchClass.NEAR_REL_CALL, 4, 19, 3, True, "CALL rel, not to the next instruction"),
    BranchRow(BranchClass.NEAR_RET, 5, 21, 5, True, "RET, RET imm16"),
    BranchRow(BranchClass.NOT_TAKEN, None, None, None, True, "conditional branch, not taken"),
    BranchRow(BranchClass.ZERO_CALL, None, None, None, True, "CALL rel to the next instruction"),
    BranchRow(BranchClass.FAR_BRANCH, 8, 22, 8, True,
              "far JMP, CALL, RET; EENTER, ERESUME, EEXIT, AEX, INIT, SIPI, RSM"),
    BranchRow(BranchClass.SYSCALL, 8, 22, 8, True, "SYSCALL, SYSENTER"),
    BranchRow(BranchClass.SYSRET, 8, 22, 8, True, "SYSRET, SYSEXIT"),
    BranchRow(BranchClass.IRET, 8, 22, 8, True, "IRET; ERETU, ERETS"),
    BranchRow(BranchClass.INTERRUPT, 8, 22, 8, False, "hardware interrupt, NMI, SMI excepted"),
    BranchRow(BranchClass.EXCEPTION, 8, 22, 8, False, "exception, #DB excepted"),
    BranchRow(BranchClass.SOFT_INT, 8, 22, 8, True, "INT n, INT3, INTO"),
    BranchRow(BranchClass.TSX_ABORT, 8, 22, 8, False, "abort of a transaction"),
)

_TYPE_NAMES = {row.br_type: row.cls.name for row in BRANCH_CLASSES if row.cls < 6}


def br_type_name(br_type: int) -> str:
    """Name of INFO[59:56]; ``"OTHER_BRANCH"`` for 8 to 15, ``"reserved"`` for 6 and 7."""
    return _TYPE_NAMES.get(br_type, "OTHER_BRANCH" if br_type & 8 else "reserved")
