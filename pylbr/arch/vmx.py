"""VMX as far as LBRs meet it: fields, controls and the MSRs that enumerate them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from pylbr.arch.features import CpuModel

__all__ = [
    "CONTROLS", "Control", "ExitReason", "VMCS_FIELDS", "VMX_CAPABILITIES", "allowed",
]


class ExitReason(IntEnum):
    """Basic exit reasons (SDM vol. 3, appendix C)."""

    EXCEPTION_OR_NMI = 0
    EXTERNAL_INTERRUPT = 1
    INIT = 3
    SIPI = 4
    CPUID = 10
    VMCALL = 18
    RDMSR = 31
    WRMSR = 32
    ENTRY_GUEST_STATE = 33
    ENTRY_MSR_LOADING = 34
    MWAIT = 36
    EPT_VIOLATION = 48
    PREEMPTION_TIMER = 52
    XSAVES = 63
    XRSTORS = 64


@dataclass(frozen=True, slots=True)
class Control:
    """One bit of a VM-execution, entry or exit control.

    `default1` marks bits that must be 1 unless the TRUE capability MSRs allow 0.
    """

    word: str
    bit: int
    name: str
    offered: Callable[[CpuModel], object] = bool

    @property
    def mask(self) -> int:
        """The bit in place."""
        return 1 << self.bit


def _has_arch(model: CpuModel) -> object:
    return model.arch


def _has_global_ctrl(model: CpuModel) -> object:
    return model.pmu.version >= 2


#: Controls that this processor offers, by name (SDM vol. 3, 24.6 to 24.8; bits 21 and 26:
#: Linux vmx.h).
CONTROLS: dict[str, Control] = {
    c.name: c
    for c in (
        Control("pin", 0, "external-interrupt exiting"),
        Control("pin", 3, "NMI exiting"),
        Control("primary", 10, "MWAIT exiting"),
        Control("primary", 28, "use MSR bitmaps"),
        Control("primary", 31, "activate secondary controls"),
        Control("secondary", 1, "enable EPT"),
        Control("secondary", 20, "enable XSAVES/XRSTORS", lambda m: m.xss),
        Control("exit", 2, "save debug controls"),
        Control("exit", 9, "host address-space size"),
        Control("exit", 12, "load host IA32_PERF_GLOBAL_CTRL", _has_global_ctrl),
        Control("exit", 26, "clear IA32_LBR_CTL", _has_arch),
        Control("exit", 30, "save IA32_PERF_GLOBAL_CTRL", _has_arch),
        Control("entry", 2, "load debug controls"),
        Control("entry", 9, "IA-32e mode guest"),
        Control("entry", 13, "load guest IA32_PERF_GLOBAL_CTRL", _has_global_ctrl),
        Control("entry", 21, "load IA32_LBR_CTL", _has_arch),
    )
}

#: Bits that are reserved to 1 in each control word (SDM vol. 3, appendix A.2 to A.5),
#: with the two of them that the TRUE capability MSRs let be 0.
DEFAULT1 = {"pin": 0x16, "primary": 0x0401E172, "secondary": 0, "exit": 0x00036DFF,
            "entry": 0x000011FF}


def allowed(model: CpuModel, word: str, true: bool = False) -> tuple[int, int]:
    """Bits of a control word that must be 1, and bits that may be.

    Parameters
    ----------
    word : {"pin", "primary", "secondary", "exit", "entry"}
    true : bool
        As the TRUE capability MSR has it: default1 bits with a name may be 0.
    """
    named = 0
    for control in CONTROLS.values():
        if control.word == word and control.offered(model):
            named |= control.mask
    must = DEFAULT1[word]
    return (must & ~named if true else must), must | named


@dataclass(frozen=True, slots=True)
class VmxCapability:
    """One read-only capability MSR."""

    name: str
    index: int
    value: Callable[[CpuModel], int]


def _pair(word: str, true: bool) -> Callable[[CpuModel], int]:
    def value(model: CpuModel) -> int:
        must, may = allowed(model, word, true)
        return may << 32 | must

    return value


#: SDM vol. 3, appendix A.  IA32_VMX_BASIC: revision 4, 4096-byte regions, write-back,
#: TRUE controls.
VMX_CAPABILITIES: tuple[VmxCapability, ...] = (
    VmxCapability("IA32_VMX_BASIC", 0x480, lambda m: 4 | 4096 << 32 | 6 << 50 | 1 << 55),
    VmxCapability("IA32_VMX_PINBASED_CTLS", 0x481, _pair("pin", False)),
    VmxCapability("IA32_VMX_PROCBASED_CTLS", 0x482, _pair("primary", False)),
    VmxCapability("IA32_VMX_EXIT_CTLS", 0x483, _pair("exit", False)),
    VmxCapability("IA32_VMX_ENTRY_CTLS", 0x484, _pair("entry", False)),
    VmxCapability("IA32_VMX_PROCBASED_CTLS2", 0x48B, _pair("secondary", False)),
    VmxCapability("IA32_VMX_TRUE_PINBASED_CTLS", 0x48D, _pair("pin", True)),
    VmxCapability("IA32_VMX_TRUE_PROCBASED_CTLS", 0x48E, _pair("primary", True)),
    VmxCapability("IA32_VMX_TRUE_EXIT_CTLS", 0x48F, _pair("exit", True)),
    VmxCapability("IA32_VMX_TRUE_ENTRY_CTLS", 0x490, _pair("entry", True)),
)

#: VMCS field encodings (SDM vol. 3, appendix B; 2816H: Linux vmx.h).
VMCS_FIELDS: dict[int, str] = {
    0x2004: "msr_bitmap",
    0x2006: "exit_msr_store",
    0x2008: "exit_msr_load",
    0x200A: "entry_msr_load",
    0x202C: "xss_exiting_bitmap",
    0x2802: "guest_debugctl",
    0x2808: "guest_perf_global_ctrl",
    0x2816: "guest_lbr_ctl",
    0x2C04: "host_perf_global_ctrl",
    0x4000: "pin_controls",
    0x4002: "primary_controls",
    0x4004: "exception_bitmap",
    0x400C: "exit_controls",
    0x4012: "entry_controls",
    0x4016: "entry_interruption_info",
    0x401E: "secondary_controls",
    0x4402: "exit_reason",
    0x6400: "exit_qualification",
    0x681A: "guest_dr7",
}
