"""Types of branches that the record does not contain, out of the instruction at FROM.

As perf does it for OTHER_BRANCH and for parts without BR_TYPE:
``arch/x86/events/utils.c``, branch_type() and branch_map.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from lbrcore import BranchClass
from pylbr.perf.abi import TYPE_SHIFT, BranchType, EntryFlag, branch_type
from pylbr.perf.stacks import Samples
from pylbr.profile.address_space import AddressSpaces, Mapped
from pylbr.x86 import classify

__all__ = ["TypeDecoder"]

_MAX_INSTRUCTION = 15
_PREFIXES = frozenset(
    [0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3, *range(0x40, 0x50)]
)
#: ModRM.reg of opcode FF: far CALL and far JMP through memory.
_FAR_INDIRECT = {3: BranchType.IND_CALL, 5: BranchType.IND}
_USER_TO_KERNEL = (BranchClass.SYSCALL, BranchClass.SOFT_INT)


def _far_type(code: bytes) -> BranchType:
    """Type of a far branch in 64-bit code."""
    at = 0
    while at < len(code) - 1 and code[at] in _PREFIXES:
        at += 1
    if code[at] in (0xCA, 0xCB):
        return BranchType.RET
    if code[at] == 0xFF:
        return _FAR_INDIRECT.get(code[at + 1] >> 3 & 7, BranchType.UNKNOWN)
    return BranchType.UNKNOWN


class TypeDecoder:
    """Fills in the type of entries that have none.

    Parameters
    ----------
    spaces : AddressSpaces
        What is mapped where; files that cannot be read, and code that is in none, leave the
        type UNKNOWN.
    """

    def __init__(self, spaces: AddressSpaces) -> None:
        self._spaces = spaces
        self._known: dict[tuple[int, int], tuple[BranchType, BranchType]] = {}

    def fill(self, samples: Samples) -> Samples:
        """The samples with types; entries whose type is known, and aborts, stay as they are."""
        flags = samples.entries["flags"]
        typed = flags >> np.uint64(TYPE_SHIFT) & np.uint64(15) != 0
        wanted = np.flatnonzero(~typed & (flags & np.uint64(EntryFlag.ABORT) == 0))
        if not len(wanted):
            return samples
        space = self._spaces.keyed(samples).pid.astype("i8")
        owner = np.repeat(space, np.diff(samples.offsets))[wanted]
        source, target = samples.entries["from"][wanted], samples.entries["to"][wanted]
        keys = np.stack([owner.view("u8"), source], axis=1)
        unique, inverse = np.unique(keys, axis=0, return_inverse=True)
        types = np.array([
            self._types(int(pid.view("i8")), int(address)) for pid, address in unique
        ], "u8")  # fmt: skip
        into_kernel = (source >> np.uint64(63) == 0) & (target >> np.uint64(63) == 1)
        entries = samples.entries.copy()
        entries["flags"][wanted] |= types[
            inverse.reshape(-1), into_kernel.astype(int)
        ] << np.uint64(TYPE_SHIFT)
        return replace(samples, entries=entries)

    def _types(self, pid: int, address: int) -> tuple[BranchType, BranchType]:
        """Types of a branch from `address`: to its own privilege level, and from user to kernel.

        The second is an interrupt or an exception, unless the instruction asks for it.
        """
        key = pid, address
        if key not in self._known:
            self._known[key] = self._decode(pid, address)
        return self._known[key]

    def _decode(self, pid: int, address: int) -> tuple[BranchType, BranchType]:
        mapped = self._spaces.find(pid, address)
        code = self._code(mapped, address) if mapped else b""
        found = classify(code, address) if code else None
        if found is None:
            return BranchType.UNKNOWN, BranchType.UNKNOWN
        if found.branch is None:
            return BranchType.UNKNOWN, BranchType.IRQ
        own = branch_type(found.branch)
        if found.branch == BranchClass.FAR_BRANCH:
            own = _far_type(code)
        return own, own if found.branch in _USER_TO_KERNEL else BranchType.IRQ

    def _code(self, mapped: Mapped, address: int) -> bytes:
        """The bytes of one instruction; empty if they cannot be read."""
        size = min(_MAX_INSTRUCTION, mapped.end - address)
        try:
            number = os.open(mapped.path, os.O_RDONLY)
        except OSError:
            return b""
        try:
            return os.pread(number, size, mapped.offset + address - mapped.start)
        except OSError:
            return b""
        finally:
            os.close(number)
