"""perf's branch filters (``-j``) as control of an architectural LBR facility."""

from __future__ import annotations

from typing import Final

from lbrcore import BranchClass
from pylbr.errors import CommandError
from pylbr.trace.perf_abi import BranchSample

__all__ = ["accepted_classes", "control_of", "parse_filter"]

#: Words of ``perf record -j``.
WORDS: Final = {
    "u": BranchSample.USER, "any": BranchSample.ANY, "any_call": BranchSample.ANY_CALL,
    "any_ret": BranchSample.ANY_RETURN, "ind_call": BranchSample.IND_CALL,
    "ind_jmp": BranchSample.IND_JUMP, "call": BranchSample.CALL, "cond": BranchSample.COND,
    "save_type": BranchSample.TYPE_SAVE, "no_flags": BranchSample.NO_FLAGS,
    "no_cycles": BranchSample.NO_CYCLES,
}  # fmt: skip
_REFUSED: Final = {
    "k": "user-mode QEMU runs no kernel",
    "hv": "user-mode QEMU runs no hypervisor",
    "stack": "call-stack mode needs every branch: record with --full, then pylbr replay",
    "in_tx": "QEMU has no transactions",
    "no_tx": "QEMU has no transactions",
    "abort_tx": "QEMU has no transactions",
}

# IA32_LBR_CTL (SDM vol. 4, 14CEH).
_LBREN, _USR = 1 << 0, 1 << 2
_JCC, _REL_JMP, _IND_JMP = 1 << 16, 1 << 17, 1 << 18
_REL_CALL, _IND_CALL, _RET, _OTHER = 1 << 19, 1 << 20, 1 << 21, 1 << 22
#: ``arch_lbr_ctl_map`` of arch/x86/events/intel/lbr.c.
_CONTROL: Final = {
    BranchSample.ANY: 0x7F0000, BranchSample.ANY_CALL: _REL_CALL | _IND_CALL | _OTHER,
    BranchSample.ANY_RETURN: _RET | _OTHER, BranchSample.IND_CALL: _IND_CALL,
    BranchSample.IND_JUMP: _IND_JMP, BranchSample.CALL: _REL_CALL, BranchSample.COND: _JCC,
}  # fmt: skip
_CLASSES: Final = {
    _JCC: BranchClass.COND, _REL_JMP: BranchClass.NEAR_REL_JMP,
    _IND_JMP: BranchClass.NEAR_IND_JMP, _REL_CALL: BranchClass.NEAR_REL_CALL,
    _IND_CALL: BranchClass.NEAR_IND_CALL, _RET: BranchClass.NEAR_RET,
}  # fmt: skip


def parse_filter(text: str) -> BranchSample:
    """Bits of a list of words such as ``any,u``.

    Raises
    ------
    CommandError
        Unknown word, or one that cannot be had here.
    """
    result = BranchSample.USER
    for word in text.split(","):
        if word in _REFUSED:
            raise CommandError(f"-j {word}: {_REFUSED[word]}")
        if word not in WORDS:
            raise CommandError(f"-j {word}: no such filter; there is {', '.join(WORDS)}")
        result |= WORDS[word]
    if not any(result & bit for bit in _CONTROL):
        result |= BranchSample.ANY
    return result


def control_of(filter_: BranchSample) -> int:
    """IA32_LBR_CTL that Linux writes for these bits, with recording on."""
    control = _LBREN | _USR
    for bit, classes in _CONTROL.items():
        if filter_ & bit:
            control |= classes
    return control


def accepted_classes(control: int) -> int:
    """Bit per near `BranchClass` that the control records.

    Far branches are left out: they end or begin in the kernel, and a window is long enough
    if it holds a stack's depth of the others.
    """
    return sum(1 << cls for bit, cls in _CLASSES.items() if control & bit)
