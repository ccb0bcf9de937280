"""What a guest's CPUID and PERF_CAPABILITIES give it of the LBRs, and what KVM refuses.

Spec 6 (exposure, PERF_CAPABILITIES), 7 (patches 4, 5, 6, 15).  Host and guest flavour must be
the same; legacy LBRs need the host's own model number, architectural ones a depth that the
policy can give.
"""

from __future__ import annotations

from dataclasses import dataclass

from lbrcore.config import Flavour, LbrConfig
from pylbr.arch.bits import (
    CPUID_1C_EBX_BRANCH_FILTER,
    CPUID_1C_EBX_CALL_STACK_MODE,
    CPUID_1C_EBX_CPL_FILTER,
    CTL_CALL_STACK,
    CTL_CLASSES,
    CTL_CPL,
    CTL_LBREN,
    IA32_LBR_0_FROM_IP,
    IA32_LBR_0_INFO,
    IA32_LBR_0_TO_IP,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
)
from pylbr.errors import ConfigurationError, GeneralProtection

__all__ = ["GuestCpuid", "Host", "Offer", "amd_debug_leaf", "offer"]

#: IA32_LBR_CTL bits that each bit of CPUID.1CH:EBX offers (spec 1.1).
CTL_OF_EBX = {
    CPUID_1C_EBX_CPL_FILTER: CTL_CPL, CPUID_1C_EBX_BRANCH_FILTER: CTL_CLASSES,
    CPUID_1C_EBX_CALL_STACK_MODE: CTL_CALL_STACK,
}
_DATA = (IA32_LBR_0_INFO, IA32_LBR_0_FROM_IP, IA32_LBR_0_TO_IP)


@dataclass(frozen=True)
class Host:
    """The processor under the hypervisor; `lbr` is None without LBRs."""

    lbr: LbrConfig | None
    model: int = 0x6A
    lbr_format: int = 0

    @property
    def architectural(self) -> bool:
        """Has it architectural LBRs?"""
        return self.lbr is not None and self.lbr.flavour == Flavour.ARCHITECTURAL


@dataclass(frozen=True)
class GuestCpuid:
    """What user space has set for a vCPU.

    Parameters
    ----------
    model : int
        CPUID.01H model number.
    arch_lbr : bool
        CPUID.07H.0:EDX[19].
    depth_bitmap, filters : int
        CPUID.1CH:EAX[7:0] and EBX[2:0].
    pdcm : bool
        CPUID.01H:ECX[15]; without it PERF_CAPABILITIES reads 0.
    lbr_format : int
        IA32_PERF_CAPABILITIES[5:0].
    pmu_version : int
        CPUID.0AH:EAX[7:0].
    """

    model: int = 0x6A
    arch_lbr: bool = False
    depth_bitmap: int = 0
    filters: int = 0
    pdcm: bool = True
    lbr_format: int = 0
    pmu_version: int = 2


@dataclass(frozen=True)
class Offer:
    """What the guest gets: nothing, `depths` of architectural LBRs, or `legacy` ones."""

    depths: tuple[int, ...] = ()
    ctl_mask: int = 0
    legacy: int = 0

    def check(self, index: int, value: int | None = None, depth: int | None = None) -> None:
        """Judge an access to an architectural LBR MSR.

        Parameters
        ----------
        value : int, optional
            Of a write; None reads.
        depth : int, optional
            The present IA32_LBR_DEPTH; by default the largest.

        Raises
        ------
        GeneralProtection
        """
        if not self.depths:
            raise GeneralProtection("LBR MSR", index, value, 0, "CPUID offers no such LBRs")
        if index == IA32_LBR_CTL and value is not None and value & ~self.ctl_mask:
            raise GeneralProtection("IA32_LBR_CTL", index, value, value & ~self.ctl_mask,
                                    "bits that CPUID.1CH:EBX does not offer must be 0")
        if index == IA32_LBR_DEPTH and value is not None and value not in self.depths:
            raise GeneralProtection("IA32_LBR_DEPTH", index, value, 0,
                                    f"must be one of {self.depths}")
        for base in _DATA:
            if base <= index < base + 32 and index - base >= (depth or max(self.depths)):
                raise GeneralProtection(f"record {index - base}", index, value, 0,
                                        "lies beyond IA32_LBR_DEPTH")


def _capabilities(host: Host, guest: GuestCpuid, lbr_format: int) -> None:
    """KVM_SET_MSRS of IA32_PERF_CAPABILITIES."""
    if lbr_format and guest.pmu_version == 0:
        raise ConfigurationError("PERF_CAPABILITIES: must be 0 without a vPMU (CPUID.0AH)")
    if lbr_format not in (0, host.lbr_format):
        raise ConfigurationError(
            f"PERF_CAPABILITIES: LBR format {lbr_format:#x} is neither 0 nor the host's "
            f"{host.lbr_format:#x}")
    if lbr_format and guest.model != host.model:
        raise ConfigurationError(
            f"PERF_CAPABILITIES: LBRs need the host's model {host.model:#x}, the guest's is "
            f"{guest.model:#x}")


def offer(host: Host, guest: GuestCpuid, *, any_depth: bool = False) -> Offer:
    """What the guest gets.

    Parameters
    ----------
    any_depth : bool
        The policy keeps the guest's image apart, so that any depth of the host will do
        (`lease`); else the guest's only depth is the host's largest.

    Raises
    ------
    ConfigurationError
        KVM refuses the configuration.
    """
    lbr_format = guest.lbr_format if guest.pdcm else 0
    _capabilities(host, guest, lbr_format)
    if guest.arch_lbr and not host.architectural:
        raise ConfigurationError("CPUID.07H.0:EDX[19]: the host has no architectural LBRs")
    if not guest.arch_lbr:
        legacy = None if host.architectural or not lbr_format else host.lbr
        return Offer(legacy=legacy.depth if legacy else 0)
    assert host.lbr is not None
    allowed = host.lbr.depth_bitmap if any_depth else 1 << (host.lbr.max_depth // 8 - 1)
    if not guest.depth_bitmap or guest.depth_bitmap & ~allowed:
        raise ConfigurationError(
            f"CPUID.1CH:EAX: depth bitmap {guest.depth_bitmap:#x} must have bits of {allowed:#x} "
            "only, and at least one")
    mask = CTL_LBREN
    for bit, ctl in CTL_OF_EBX.items():
        if guest.filters & bit:
            if host.lbr.ctl_mask & ctl != ctl:
                raise ConfigurationError(
                    f"CPUID.1CH:EBX[{bit.bit_length() - 1}]: the host has no such filter")
            mask |= ctl
    depths = tuple(8 * (n + 1) for n in range(8) if guest.depth_bitmap >> n & 1)
    return Offer(depths, mask)


#: Release of Linux -> the bits of CPUID leaf 8000_0022H:EAX that its KVM passes on.
_AMD_LEAF_22 = {"6.1": 0, "6.12": 1}


def amd_debug_leaf(eax: int, ebx: int, release: str = "6.12") -> tuple[int, int]:
    """CPUID leaf 8000_0022H as KVM passes it on: LbrExtV2 (EAX[1]) and its depth are not.

    6.1 does not have the leaf (cpuid.c: __do_cpuid_func); 6.12 passes on PerfMonV2 and the number
    of counters.

    Parameters
    ----------
    eax, ebx : int
        The processor's.
    release : str
        ``6.1`` or ``6.12``.

    Returns
    -------
    tuple of int
        EAX and EBX of the guest.
    """
    eax &= _AMD_LEAF_22[release]
    return eax, ebx & 0xF if eax else 0
