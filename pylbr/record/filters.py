"""perf's branch filters (``-j``) as far as programs can be recorded with them."""

from __future__ import annotations

from typing import Final

from pylbr.arch.branches import BRANCH_CLASSES
from pylbr.errors import CommandError
from pylbr.perf.abi import BranchSample
from pylbr.perf.branch_filter import BRANCH_KINDS, BRANCH_WORDS, parse_filter

__all__ = ["accepted_classes", "recordable_filter"]

_OTHER_BRANCH: Final = 22  # IA32_LBR_CTL (SDM vol. 4, 14CEH)
_REFUSED: Final = {
    "k": "user-mode QEMU runs no kernel",
    "hv": "user-mode QEMU runs no hypervisor",
    "stack": "call-stack mode needs every branch: record with --full, then pylbr replay",
    "in_tx": "QEMU has no transactions",
    "no_tx": "QEMU has no transactions",
    "abort_tx": "QEMU has no transactions",
}

#: Words that mean something here, of those of ``perf record -j``.
WORDS: Final = {
    word: bit for word, bit in BRANCH_WORDS.items()
    if word not in (*_REFUSED, "priv", "counter", "hw_index")
}


def recordable_filter(text: str, system: bool = False) -> BranchSample:
    """Bits of a list of words such as ``any,u``; user mode is always meant, of a `system` both
    unless one is named.

    Raises
    ------
    CommandError
        Unknown word, or one that cannot be had here.
    """
    words = text.split(",")
    for word in words:
        if word in _REFUSED and not (system and word == "k"):
            raise CommandError(f"-j {word}: {_REFUSED[word]}")
        if word not in WORDS and word != "k":
            raise CommandError(f"-j {word}: no such filter; there is {', '.join(WORDS)}")
    if not any(BRANCH_WORDS[word] & BRANCH_KINDS for word in words):
        words.append("any")
    return BranchSample(parse_filter(words if system else [*words, "u"]))


def accepted_classes(control: int) -> int:
    """Bit per near `BranchClass` that the control records.

    Far branches are left out: they end or begin in the kernel, and a window is long enough
    if it holds a stack's depth of the others.
    """
    return sum(
        1 << row.cls for row in BRANCH_CLASSES
        if row.ctl_bit is not None and row.ctl_bit != _OTHER_BRANCH
        and control >> row.ctl_bit & 1
    )
