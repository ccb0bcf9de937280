"""Registers around the LBRs: debug control, XSS, Intel PT, VMX capabilities."""

from __future__ import annotations

from pylbr.arch.features import CpuModel
from pylbr.arch.fields import Field, FieldKind, Offered
from pylbr.arch.register import Access, Register, once
from pylbr.arch.vmx import VMX_CAPABILITIES
from pylbr.arch.xsave import COMPONENTS, XFD_COMPONENTS

__all__ = ["SYSTEM_ROWS"]


def _freezes(model: CpuModel) -> bool:
    """FREEZE_LBRS_ON_PMI and FREEZE_PERFMON_ON_PMI (SDM vol. 4, 1D9H)."""
    return model.amd is not None or (model.pdcm and model.pmu.version > 1)


def _component(bit: int) -> Offered:
    return lambda m: bool(m.xss >> bit & 1)


def _debug_store(model: CpuModel) -> bool:
    return model.intel and model.debug_store


_DEBUGCTL = (
    Field("LBR", 0, 0, "recording is on", lambda m: m.arch is None),
    Field("LBR", 0, 0, "no meaning with architectural LBRs", lambda m: m.arch is not None,
          FieldKind.IGNORED),
    Field("BTF", 1, 1, "single-step on branches"),
    Field("BLD", 2, 2, "bus-lock #DB", lambda m: m.bus_lock_detect),
    Field("TR", 6, 6, "branch trace messages", lambda m: m.intel),
    Field("BTS", 7, 7, "branch trace store", _debug_store),
    Field("BTINT", 8, 8, "interrupt when the trace store is full", _debug_store),
    Field("BTS_OFF_OS", 9, 9, "", _debug_store),
    Field("BTS_OFF_USR", 10, 10, "", _debug_store),
    Field("FREEZE_LBRS_ON_PMI", 11, 11, "", _freezes),
    Field("FREEZE_PERFMON_ON_PMI", 12, 12, "", _freezes),
    Field("ENABLE_UNCORE_PMI", 13, 13, "", lambda m: m.uncore_pmi),
    Field("FREEZE_WHILE_SMM", 14, 14, "", lambda m: m.freeze_while_smm),
    Field("RTM_DEBUG", 15, 15, "", lambda m: m.rtm),
)

_DEBUGCTLA = tuple(
    Field(name, bit, bit)
    for bit, name in enumerate(
        ("LBR", "BTF", "TR", "BTS", "BTINT", "BTS_OFF_OS", "BTS_OFF_USR"))
)

_RTIT_CTL = (
    Field("TraceEn", 0, 0, "tracing is on"),
    Field("CYCEn", 1, 1), Field("OS", 2, 2), Field("User", 3, 3),
    Field("PwrEvtEn", 4, 4), Field("FUPonPTW", 5, 5), Field("CR3Filter", 7, 7),
    Field("ToPA", 8, 8), Field("MTCEn", 9, 9), Field("TSCEn", 10, 10), Field("DisRETC", 11, 11),
    Field("PTWEn", 12, 12), Field("BranchEn", 13, 13), Field("MTCFreq", 17, 14),
    Field("CycThresh", 22, 19), Field("PSBFreq", 27, 24),
)

#: Intel FRED specification; Linux msr-index.h, asm/fred.h.
_FRED = once(lambda m: m.fred)
_FRED_ROWS = (
    Register(
        "IA32_FRED_RSP{}", 0x1CC, "canonical", "Intel FRED specification; Linux msr-index.h",
        lambda m: 4 if m.fred else 0, (Field("RSP", 63, 6, "stack of the level"),),
        rule="#GP unless canonical",
    ),
    Register(
        "IA32_FRED_STKLVLS", 0x1D0, "plain", "Intel FRED specification; Linux msr-index.h", _FRED,
        (Field("levels", 63, 0, "two bits for each vector below 32"),),
    ),
    Register(
        "IA32_FRED_SSP{}", 0x1D1, "canonical", "Intel FRED specification; Linux msr-index.h",
        lambda m: 3 if m.fred else 0, (Field("SSP", 63, 3, "shadow stack of level 1 and up"),),
        first=1, rule="#GP unless canonical; that of level 0 is IA32_PL0_SSP",
    ),
    Register(
        "IA32_FRED_CONFIG", 0x1D4, "canonical",
        "Intel FRED specification; Linux msr-index.h", _FRED,
        (Field("CSL", 1, 0, "current stack level"),
         Field("SSD", 3, 3, "shadow stack is decremented"),
         Field("REDZONE", 8, 6, "what RSP is decremented by, in 64 bytes"),
         Field("INT_STKLVL", 10, 9, "stack level of maskable interrupts"),
         Field("ENTRY", 63, 12, "page of the handlers: user's at 0, supervisor's at 256")),
        rule="#GP unless canonical",
    ),
)

SYSTEM_ROWS: tuple[Register, ...] = (
    *_FRED_ROWS,
    Register(
        "IA32_DEBUGCTL", 0x1D9, "debugctl", "SDM vol. 4, 1D9H; AMD APM vol. 2, 13.1.1",
        once(lambda m: not m.netburst), _DEBUGCTL,
        rule="#DB clears LBR, BTF and TR; every VM exit clears all of it",
    ),
    Register(
        "MSR_DEBUGCTLA", 0x1D9, "debugctl", "SDM vol. 3, 17.13.1", once(lambda m: m.netburst),
        _DEBUGCTLA,
    ),
    Register(
        "IA32_DS_AREA", 0x600, "canonical", "SDM vol. 4, 600H", once(_debug_store),
        (Field("address", 63, 0),), rule="#GP unless canonical",
    ),
    Register(
        "IA32_XSS", 0xDA0, "plain", "SDM vol. 1, 13.3; vol. 4, DA0H", once(lambda m: m.xss),
        tuple(Field(c.name, c.bit, c.bit, "component may be saved by XSAVES",
                    _component(c.bit))
              for c in COMPONENTS.values() if c.supervisor),
    ),
    *(
        Register(
            name, index, "plain", f"SDM vol. 1, 13.14; vol. 4, {index:X}H", once(lambda m: m.xfd),
            tuple(Field(COMPONENTS[bit].name, bit, bit, what) for bit in sorted(XFD_COMPONENTS)),
        )
        for name, index, what in (("IA32_XFD", 0x1C4, "use of the component is a #NM"),
                                  ("IA32_XFD_ERR", 0x1C5, "a #NM was the component's"))
    ),
    Register(
        "IA32_RTIT_CTL", 0x570, "rtit", "SDM vol. 3, 36.2.8.2; vol. 4, 570H",
        once(lambda m: m.pt), _RTIT_CTL,
        rule="where LBRs and PT exclude each other, TraceEn makes LBR MSRs read 0",
    ),
    *(
        Register(
            capability.name, capability.index, "constant", "SDM vol. 3, appendix A",
            once(lambda m: m.vmx), reset=capability.value, access=Access.RO,
        )
        for capability in VMX_CAPABILITIES
    ),
)
