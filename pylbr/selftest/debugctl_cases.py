"""IA32_DEBUGCTL of a guest with VMX by the rules that KVM has since 2025, against a table.

The table is written from the kernel's code and not from `pylbr.kvm.debugctl`, whose rules it tests.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from pylbr.errors import GeneralProtection
from pylbr.kvm.debugctl import GuestDebugctl
from pylbr.selftest.ktap import Case

__all__ = ["debugctl_cases"]

#: Bit -> the offer with which it keeps what is written: LBR, bus-lock detection, RTM_DEBUG, ...
_KEPT = {0: "lbr", 2: "bus_lock", 11: "lbr", 15: "rtm"}
#: Bits that are dropped, not refused, where they are not kept: LBR and BTF.
_DROPPED = (0, 1)
_FREEZE_IN_SMM = 14
_OFFERS = [dict(zip(("lbr", "bus_lock", "rtm"), given, strict=True))
           for given in product((False, True), repeat=3)]


def _written(write: Callable[[int], int], bit: int) -> str:
    """What a write of one bit comes to."""
    try:
        left = write(1 << bit)
    except GeneralProtection:
        return "fault"
    return {0: "dropped", 1 << bit: "kept"}.get(left, f"{left:#x}")


def _wanted(offer: dict[str, bool], bit: int) -> str:
    if offer.get(_KEPT.get(bit, "")):
        return "kept"
    return "dropped" if bit in _DROPPED else "fault"


def _compared(write: str, but: dict[int, str]) -> tuple[bool, list[str]]:
    """Every bit with every offer; `but` has what differs from WRMSR."""
    wrong = []
    for offer in _OFFERS:
        guest = GuestDebugctl(**offer)
        for bit in range(64):
            found = _written(getattr(guest, write), bit)
            wanted = but.get(bit) or _wanted(offer, bit)
            if found != wanted:
                offered = ", ".join(name for name, given in offer.items() if given) or "nothing"
                wrong.append(f"bit {bit}, {offered} offered: {found}, not {wanted}")
    return not wrong, [f"{len(_OFFERS)} offers, 64 bits", *wrong[:5]]


def _bits() -> tuple[bool, list[str]]:
    return _compared("write", {})


def _vmcs12() -> tuple[bool, list[str]]:
    """As a write of L1's own, but that the quirk VMCS12_ALLOW_FREEZE_IN_SMM drops one bit."""
    return _compared("vmcs12", {_FREEZE_IN_SMM: "dropped"})


def _freeze_in_smm() -> tuple[bool, list[str]]:
    """In the VMCS field while the host has it; the guest reads its own bits alone."""
    wrong = []
    for offer, host in product(_OFFERS, (0, 1 << _FREEZE_IN_SMM, 1 << _FREEZE_IN_SMM | 1)):
        guest = GuestDebugctl(**offer)
        own = sum(1 << bit for bit, name in _KEPT.items() if offer[name])
        field = guest.field(own, host)
        if field != own | host & 1 << _FREEZE_IN_SMM or guest.read(field) != own:
            wrong.append(f"the host has {host:#x}, the guest {own:#x}: field {field:#x}, "
                         f"read as {guest.read(field):#x}")
    return not wrong, wrong[:5]


def debugctl_cases() -> list[Case]:
    """WRMSR, the host's bit, and DEBUGCTL of vmcs12."""
    return [Case("IA32_DEBUGCTL of a VMX guest: every bit with every offer, RTM_DEBUG with RTM",
                 _bits),
            Case("IA32_DEBUGCTL of a VMX guest: FREEZE_IN_SMM is the host's, and not shown",
                 _freeze_in_smm),
            Case("IA32_DEBUGCTL in vmcs12: checked as a write, FREEZE_IN_SMM dropped by the quirk",
                 _vmcs12)]
