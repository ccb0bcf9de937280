"""Branch filters, named as ``perf record -j`` names them, and what they make of the registers.

Linux turns PERF_SAMPLE_BRANCH_* into IA32_LBR_CTL or MSR_LBR_SELECT by two tables
(``arch/x86/events/intel/lbr.c``, lbr_ctl_map and the lbr_sel_map of each model); here it is one
table of classes, and the register bits come from the rows of `pylbr.arch.branches`.
"""

from __future__ import annotations

from collections.abc import Iterable

from lbrcore import BranchClass, Flavour, LbrConfig, LbrState
from pylbr.arch.bits import (
    CTL_CALL_STACK,
    CTL_LBREN,
    CTL_OS,
    CTL_USR,
    SELECT_CPL_EQ_0,
    SELECT_CPL_NEQ_0,
    SELECT_EN_CALLSTACK,
)
from pylbr.arch.branches import BRANCH_CLASSES
from pylbr.errors import ConfigurationError
from pylbr.perf.abi import BranchSample

__all__ = ["BRANCH_KINDS", "BRANCH_WORDS", "control_value", "lbr_ctl", "parse_filter", "program"]

#: Words of ``-j``.
BRANCH_WORDS = {
    "u": BranchSample.USER, "k": BranchSample.KERNEL, "hv": BranchSample.HV,
    "any": BranchSample.ANY, "any_call": BranchSample.ANY_CALL,
    "any_ret": BranchSample.ANY_RETURN, "ind_call": BranchSample.IND_CALL,
    "cond": BranchSample.COND, "ind_jmp": BranchSample.IND_JUMP, "call": BranchSample.CALL,
    "stack": BranchSample.CALL_STACK, "save_type": BranchSample.TYPE_SAVE,
    "no_flags": BranchSample.NO_FLAGS, "no_cycles": BranchSample.NO_CYCLES,
    "priv": BranchSample.PRIV_SAVE, "counter": BranchSample.COUNTERS,
    "hw_index": BranchSample.HW_INDEX,
}  # fmt: skip

_RINGS = BranchSample.USER | BranchSample.KERNEL
_OTHER = frozenset(row.cls for row in BRANCH_CLASSES if row.br_type == 8)
_NEAR_CALLS = frozenset({BranchClass.NEAR_REL_CALL, BranchClass.NEAR_IND_CALL})
_RETURNS = frozenset({BranchClass.NEAR_RET})

#: Branch class filter -> classes that the hardware lets through (Linux 6.1, lbr_ctl_map).
_CLASSES = {
    BranchSample.ANY: frozenset(row.cls for row in BRANCH_CLASSES if row.br_type is not None),
    BranchSample.ANY_CALL: _NEAR_CALLS | _OTHER,
    BranchSample.ANY_RETURN: _RETURNS | _OTHER,
    BranchSample.IND_CALL: frozenset({BranchClass.NEAR_IND_CALL}),
    BranchSample.COND: frozenset({BranchClass.COND}),
    BranchSample.IND_JUMP: frozenset({BranchClass.NEAR_IND_JMP}),
    BranchSample.CALL: frozenset({BranchClass.NEAR_REL_CALL}),
    BranchSample.CALL_STACK: _NEAR_CALLS | _RETURNS,
}
#: All bits that choose branches by class.
BRANCH_KINDS = sum(_CLASSES)


def parse_filter(words: str | Iterable[str]) -> int:
    """``branch_sample_type`` of the words after ``-j``, separated by commas.

    Without a privilege level both are meant.

    Raises
    ------
    ConfigurationError
        A word that does not exist, no class, or a call stack together with classes.
    """
    wanted = BranchSample(0)
    for word in words.split(",") if isinstance(words, str) else words:
        if word not in BRANCH_WORDS:
            raise ConfigurationError(
                f"branch filter {word!r}: not one of {', '.join(BRANCH_WORDS)}")
        wanted |= BRANCH_WORDS[word]
    classes = [kind for kind in _CLASSES if wanted & kind]
    if not classes:
        raise ConfigurationError("branch filter: names no branches; add any, or a class")
    if wanted & BranchSample.CALL_STACK and len(classes) > 1:
        raise ConfigurationError("branch filter: stack goes with u and k alone")
    if not wanted & _RINGS:
        wanted |= _RINGS
    return int(wanted)


def program(lbr: LbrState, branch_sample_type: int) -> None:
    """Set up a facility as Linux does for an event with this filter, and switch it on.

    Raises
    ------
    ConfigurationError
        The processor lacks what the filter needs.
    """
    lbr.ctl = control_value(lbr.config, branch_sample_type)
    if lbr.config.flavour == Flavour.LEGACY:
        lbr.enable = True


def control_value(config: LbrConfig, branch_sample_type: int) -> int:
    """IA32_LBR_CTL or MSR_LBR_SELECT of a processor with this filter.

    Raises
    ------
    ConfigurationError
        The processor lacks what the filter needs.
    """
    legacy = config.flavour == Flavour.LEGACY
    value = (_lbr_select if legacy else lbr_ctl)(branch_sample_type)
    missing = value & ~config.ctl_mask
    if missing:
        register = "MSR_LBR_SELECT" if legacy else "IA32_LBR_CTL"
        raise ConfigurationError(
            f"branch filter: this processor's {register} lacks bits {missing:#x} that it needs")
    return value


def _classes(wanted: BranchSample) -> frozenset[BranchClass]:
    return frozenset().union(*(_CLASSES[kind] for kind in _CLASSES if wanted & kind))


def lbr_ctl(branch_sample_type: int) -> int:
    """IA32_LBR_CTL as Linux writes it, with recording on."""
    wanted = BranchSample(branch_sample_type)
    classes = _classes(wanted)
    value = CTL_LBREN | (CTL_CALL_STACK if wanted & BranchSample.CALL_STACK else 0)
    value |= (CTL_OS if wanted & BranchSample.KERNEL else 0)
    value |= (CTL_USR if wanted & BranchSample.USER else 0)
    for row in BRANCH_CLASSES:
        if row.ctl_bit is not None and row.cls in classes:
            value |= 1 << row.ctl_bit
    return value


def _lbr_select(branch_sample_type: int) -> int:
    wanted = BranchSample(branch_sample_type)
    classes = _classes(wanted)
    value = SELECT_EN_CALLSTACK if wanted & BranchSample.CALL_STACK else 0
    value |= (0 if wanted & BranchSample.KERNEL else SELECT_CPL_EQ_0)
    value |= (0 if wanted & BranchSample.USER else SELECT_CPL_NEQ_0)
    for row in BRANCH_CLASSES:
        if row.select_bit is not None and row.cls not in classes:
            value |= 1 << row.select_bit
    return value
