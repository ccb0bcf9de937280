"""FRED as far as LBRs meet it: event delivery, ERETU and ERETS.

What no manual at hand states is `pylbr.arch.choices.FRED_IS_OTHER_BRANCH` and
`FRED_DB_CLEARS_LBREN`.  The handler's address is that of IA32_FRED_CONFIG: its page for events of
user code, 256 bytes further for those of the supervisor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lbrcore import BranchClass
from pylbr.arch import choices
from pylbr.arch.bits import FRED_CONFIG_ENTRY, IA32_FRED_CONFIG
from pylbr.errors import UnsupportedFeature

if TYPE_CHECKING:
    from pylbr.cpu.processor import Processor

__all__ = ["DELIVERED", "debug_exception", "deliver", "erets", "eretu", "handler"]

#: What FRED delivers that an IDT, or a system call's MSRs, would deliver otherwise.
DELIVERED: Final = frozenset({
    BranchClass.INTERRUPT, BranchClass.EXCEPTION, BranchClass.SOFT_INT, BranchClass.SYSCALL})
_SUPERVISOR: Final = 256


def _needs_fred(cpu: Processor) -> None:
    if not cpu.model.fred:
        raise UnsupportedFeature(f"{cpu.model.name} has no FRED")


def handler(cpu: Processor, cpl: int) -> int:
    """Linear address at which events of that privilege level are handled.

    Raises
    ------
    UnsupportedFeature
        The model has no FRED.
    """
    _needs_fred(cpu)
    page = cpu.rdmsr(IA32_FRED_CONFIG, host=True) & FRED_CONFIG_ENTRY
    return page if cpl == 3 else page + _SUPERVISOR


def deliver(cpu: Processor, cls: BranchClass, from_: int, *, cpl: int) -> bool:
    """Deliver an event; recorded like one that the IDT delivers.

    Parameters
    ----------
    cls : BranchClass
        One of `DELIVERED`.
    from_ : int
        An interrupt's: the instruction that would have run next; another's: its instruction.
    cpl : int
        Privilege level of the code that it comes from.

    Returns
    -------
    bool
        What `Processor.branch` returns: whether the batch is to stop.

    Raises
    ------
    UnsupportedFeature
        The model has no FRED.
    ValueError
        FRED delivers nothing of that class.
    """
    to = handler(cpu, cpl)
    if cls not in DELIVERED:
        raise ValueError(f"class: FRED does not deliver {BranchClass(cls).name}")
    if not choices.FRED_IS_OTHER_BRANCH:
        return False
    return bool(cpu.branch(cls, from_, to, cpl_from=cpl, cpl_to=0))


def debug_exception(cpu: Processor) -> None:
    """Deliver a #DB: no record."""
    _needs_fred(cpu)
    if choices.FRED_DB_CLEARS_LBREN:
        cpu.debug_exception()


def _return(cpu: Processor, from_: int, to: int, cpl_to: int) -> bool:
    _needs_fred(cpu)
    if not choices.FRED_IS_OTHER_BRANCH:
        return False
    return bool(cpu.branch(BranchClass.IRET, from_, to, cpl_from=0, cpl_to=cpl_to))


def eretu(cpu: Processor, from_: int, to: int) -> bool:
    """ERETU at `from_` returns to user code at `to`; recorded like IRET."""
    return _return(cpu, from_, to, 3)


def erets(cpu: Processor, from_: int, to: int) -> bool:
    """ERETS at `from_` returns to supervisor code at `to`; recorded like IRET."""
    return _return(cpu, from_, to, 0)
