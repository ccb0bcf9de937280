"""CPUID leaves as rows: one field of one output register each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from pylbr.arch.features import CpuModel
from pylbr.arch.fields import Offered, always
from pylbr.arch.xsave import (
    COMPONENTS,
    XFD_COMPONENTS,
    Component,
    compacted_size,
    component_size,
    standard_size,
)

__all__ = ["CPUID_FIELDS", "CpuidField", "cpuid", "leaves", "max_extended", "max_leaf"]

#: Value of a field: of the model, XCR0 and IA32_XSS.
Value = Callable[[CpuModel, int, int], int]

REGISTERS = ("eax", "ebx", "ecx", "edx")


@dataclass(frozen=True, slots=True)
class CpuidField:
    """One field of CPUID: ``CPUID.leaf.subleaf:register[hi:lo]``.

    `subleaf` None stands for leaves that ignore ECX.
    """

    leaf: int
    subleaf: int | None
    register: str
    hi: int
    lo: int
    name: str
    value: Value
    offered: Offered = always

    @property
    def bits(self) -> str:
        """``"hi:lo"`` or ``"bit"``."""
        return f"{self.hi}:{self.lo}" if self.hi != self.lo else f"{self.lo}"


def _flag(leaf: int, subleaf: int | None, register: str, bit: int, name: str,
          test: Callable[[CpuModel], object]) -> CpuidField:
    return CpuidField(leaf, subleaf, register, bit, bit, name,
                      lambda m, xcr0, xss: int(bool(test(m))))


def _number(leaf: int, subleaf: int | None, register: str, hi: int, lo: int, name: str,
            value: Callable[[CpuModel], int], offered: Offered = always) -> CpuidField:
    return CpuidField(leaf, subleaf, register, hi, lo, name, lambda m, xcr0, xss: value(m),
                      offered)


def _word(text: str) -> int:
    return int.from_bytes(text.encode(), "little")


def _has_xsave(model: CpuModel) -> bool:
    return model.xcr0 != 0


def _intel_pmu(model: CpuModel) -> bool:
    return model.intel and model.pmu.version > 0


def _pt(model: CpuModel) -> bool:
    return model.pt


def _extended(model: CpuModel) -> bool:
    return model.pmu.extended


def _arch(model: CpuModel) -> bool:
    return model.arch is not None


def max_leaf(model: CpuModel) -> int:
    """CPUID.0:EAX."""
    if model.pmu.extended:
        return 0x23
    if model.arch:
        return 0x1C
    if model.pt:
        return 0x14
    if model.xcr0:
        return 0x0D
    return 0x0A if _intel_pmu(model) else 0x02


def max_extended(model: CpuModel) -> int:
    return 0x80000022 if model.amd else 0x80000008


def _family(model: CpuModel) -> int:
    return min(model.family, 0xF)


def _leaf_1c(model: CpuModel, name: str) -> int:
    return int(getattr(model.arch, name)) if model.arch else 0


def _of_component(c: Component) -> Iterator[CpuidField]:
    def present(m: CpuModel) -> bool:
        return bool((m.xcr0 | m.xss) >> c.bit & 1)

    yield _number(0xD, c.bit, "eax", 31, 0, f"size of component {c.bit} ({c.name})",
                  lambda m: component_size(m, c.bit))
    yield _number(0xD, c.bit, "ebx", 31, 0, "offset in the standard format",
                  lambda m: c.offset, present)
    yield _number(0xD, c.bit, "ecx", 0, 0, "managed by IA32_XSS",
                  lambda m: int(c.supervisor), present)
    yield _flag(0xD, c.bit, "ecx", 2, "IA32_XFD can disable it",
                lambda m: m.xfd and c.bit in XFD_COMPONENTS and present(m))
    yield _number(0xD, c.bit, "ecx", 1, 1, "64-byte aligned when compacted",
                  lambda m: int(c.aligned), present)


#: SDM vol. 2, CPUID; leaf 14H: vol. 3, 33.3; leaf 1CH: spec 1.1; leaf 23H: vol. 3, 20.8;
#: 8000_0022H: AMD APM vol. 3, appendix E.
CPUID_FIELDS: tuple[CpuidField, ...] = (
    _number(0, None, "eax", 31, 0, "highest basic leaf", max_leaf),
    _number(0, None, "ebx", 31, 0, "vendor, first part", lambda m: _word(m.vendor[0:4])),
    _number(0, None, "edx", 31, 0, "vendor, second part", lambda m: _word(m.vendor[4:8])),
    _number(0, None, "ecx", 31, 0, "vendor, third part", lambda m: _word(m.vendor[8:12])),
    _number(1, None, "eax", 3, 0, "stepping", lambda m: m.stepping),
    _number(1, None, "eax", 7, 4, "model", lambda m: m.number & 15),
    _number(1, None, "eax", 11, 8, "family", _family),
    _number(1, None, "eax", 19, 16, "extended model", lambda m: m.number >> 4),
    _number(1, None, "eax", 27, 20, "extended family", lambda m: m.family - _family(m)),
    _number(1, None, "ebx", 15, 8, "CLFLUSH line, quadwords", lambda m: 8),
    _flag(1, None, "ecx", 2, "DTES64", lambda m: m.intel and m.debug_store),
    _flag(1, None, "ecx", 4, "DS-CPL", lambda m: m.intel and m.debug_store),
    _flag(1, None, "ecx", 5, "VMX", lambda m: m.intel and m.vmx),
    _flag(1, None, "ecx", 15, "PDCM", lambda m: m.pdcm),
    _flag(1, None, "ecx", 26, "XSAVE", _has_xsave),
    _flag(1, None, "ecx", 27, "OSXSAVE", _has_xsave),
    _flag(1, None, "ecx", 28, "AVX", lambda m: m.xcr0 >> 2 & 1),
    _flag(1, None, "edx", 0, "FPU", always),
    _flag(1, None, "edx", 4, "TSC", always),
    _flag(1, None, "edx", 5, "MSR", always),
    _flag(1, None, "edx", 9, "APIC", always),
    _flag(1, None, "edx", 11, "SEP", always),
    _flag(1, None, "edx", 21, "DS", lambda m: m.intel and m.debug_store),
    _flag(1, None, "edx", 24, "FXSR", always),
    _flag(1, None, "edx", 25, "SSE", always),
    _flag(1, None, "edx", 26, "SSE2", always),
    _flag(7, 0, "eax", 0, "highest subleaf", lambda m: m.pmu.extended or m.fred),
    _flag(7, 1, "eax", 8, "ArchPerfmonExt", lambda m: m.pmu.extended),
    _flag(7, 1, "eax", 17, "FRED", lambda m: m.fred),
    _flag(7, 1, "eax", 18, "LKGS", lambda m: m.fred),
    _flag(7, 0, "ebx", 2, "SGX", lambda m: m.sgx),
    _flag(7, 0, "ebx", 4, "HLE", lambda m: m.hle),
    _flag(7, 0, "ebx", 11, "RTM", lambda m: m.rtm),
    _flag(7, 0, "ebx", 25, "Intel PT", lambda m: m.pt),
    _flag(7, 0, "ecx", 16, "LA57", lambda m: m.linear_width > 48),
    _flag(7, 0, "ecx", 24, "BUS_LOCK_DETECT", lambda m: m.bus_lock_detect),
    _flag(7, 0, "edx", 15, "HYBRID", lambda m: m.hybrid),
    _flag(7, 0, "edx", 19, "ARCH_LBR", _arch),
    _number(0xA, None, "eax", 7, 0, "PMU version", lambda m: m.pmu.version, _intel_pmu),
    _number(0xA, None, "eax", 15, 8, "general counters",
            lambda m: m.pmu.counters - m.pmu.unlisted_counters, _intel_pmu),
    _number(0xA, None, "eax", 23, 16, "width of a general counter",
            lambda m: m.pmu.counter_width, _intel_pmu),
    _number(0xA, None, "eax", 31, 24, "length of the EBX vector", lambda m: 7, _intel_pmu),
    _number(0xA, None, "ebx", 6, 0, "architectural events not offered", lambda m: 0, _intel_pmu),
    _number(0xA, None, "ecx", 31, 0, "fixed counters, bitmap",
            lambda m: (1 << m.pmu.fixed - m.pmu.unlisted_fixed) - 1,
            lambda m: _intel_pmu(m) and m.pmu.version >= 5),
    _number(0xA, None, "edx", 4, 0, "fixed counters",
            lambda m: m.pmu.fixed - m.pmu.unlisted_fixed,
            lambda m: _intel_pmu(m) and m.pmu.version >= 2),
    _number(0xA, None, "edx", 12, 5, "width of a fixed counter", lambda m: m.pmu.fixed_width,
            lambda m: _intel_pmu(m) and m.pmu.version >= 2),
    _number(0xA, None, "edx", 15, 15, "AnyThread deprecated", lambda m: int(not m.pmu.any_thread),
            lambda m: _intel_pmu(m) and m.pmu.version >= 5),
    _number(0xD, 0, "eax", 31, 0, "XCR0 bits", lambda m: m.xcr0 & 0xFFFFFFFF),
    CpuidField(0xD, 0, "ebx", 31, 0, "size for the components of XCR0",
               lambda m, xcr0, xss: standard_size(m, xcr0), _has_xsave),
    _number(0xD, 0, "ecx", 31, 0, "size for all components",
            lambda m: standard_size(m, m.xcr0), _has_xsave),
    _number(0xD, 0, "edx", 31, 0, "XCR0 bits, high half", lambda m: m.xcr0 >> 32),
    _flag(0xD, 1, "eax", 0, "XSAVEOPT", _has_xsave),
    _flag(0xD, 1, "eax", 1, "XSAVEC", lambda m: m.xss),
    _flag(0xD, 1, "eax", 2, "XGETBV with ECX = 1", lambda m: m.xss),
    _flag(0xD, 1, "eax", 4, "IA32_XFD", lambda m: m.xfd),
    _flag(0xD, 1, "eax", 3, "XSAVES and IA32_XSS", lambda m: m.xss),
    CpuidField(0xD, 1, "ebx", 31, 0, "size for the components of XCR0 | XSS",
               lambda m, xcr0, xss: compacted_size(m, xcr0 | xss), lambda m: m.xss != 0),
    _number(0xD, 1, "ecx", 31, 0, "IA32_XSS bits", lambda m: m.xss & 0xFFFFFFFF),
    _number(0xD, 1, "edx", 31, 0, "IA32_XSS bits, high half", lambda m: m.xss >> 32),
    *(row for c in COMPONENTS.values() for row in _of_component(c)),
    # The fields that IA32_RTIT_CTL has, with all their values; trace output is not modelled, and
    # no way to it enumerated: ECX is 0.
    _flag(0x14, 0, "eax", 0, "highest subleaf", _pt),
    _flag(0x14, 0, "ebx", 0, "IA32_RTIT_CTL.CR3Filter", _pt),
    _flag(0x14, 0, "ebx", 1, "IA32_RTIT_CTL.CYCEn and PSBFreq", _pt),
    _flag(0x14, 0, "ebx", 3, "IA32_RTIT_CTL.MTCEn", _pt),
    _flag(0x14, 0, "ebx", 4, "IA32_RTIT_CTL.PTWEn and FUPonPTW", _pt),
    _flag(0x14, 0, "ebx", 5, "IA32_RTIT_CTL.PwrEvtEn", _pt),
    _number(0x14, 1, "eax", 31, 16, "values of MTCFreq", lambda m: 0xFFFF * m.pt),
    _number(0x14, 1, "ebx", 15, 0, "values of CycThresh", lambda m: 0xFFFF * m.pt),
    _number(0x14, 1, "ebx", 31, 16, "values of PSBFreq", lambda m: 0xFFFF * m.pt),
    _number(0x1C, 0, "eax", 7, 0, "depth bitmap, bit n: 8*(n+1)",
            lambda m: _leaf_1c(m, "depth_bitmap")),
    _number(0x1C, 0, "eax", 30, 30, "deep C-state reset",
            lambda m: _leaf_1c(m, "deep_cstate_reset")),
    _number(0x1C, 0, "eax", 31, 31, "addresses are linear", lambda m: _leaf_1c(m, "lip")),
    _number(0x1C, 0, "ebx", 0, 0, "CPL filter", lambda m: _leaf_1c(m, "cpl_filter")),
    _number(0x1C, 0, "ebx", 1, 1, "branch filter", lambda m: _leaf_1c(m, "branch_filter")),
    _number(0x1C, 0, "ebx", 2, 2, "call-stack mode", lambda m: _leaf_1c(m, "call_stack")),
    _number(0x1C, 0, "ecx", 0, 0, "mispredict bit", lambda m: _leaf_1c(m, "mispredict")),
    _number(0x1C, 0, "ecx", 1, 1, "timed", lambda m: _leaf_1c(m, "timed")),
    _number(0x1C, 0, "ecx", 2, 2, "branch type", lambda m: _leaf_1c(m, "branch_type")),
    _number(0x1C, 0, "ecx", 19, 16, "event logging, bit a counter",
            lambda m: _leaf_1c(m, "event_logging")),
    _number(0x23, 0, "eax", 31, 0, "subleaves",
            lambda m: 0b111011 if m.pmu.arch_pebs else 0b1011, _extended),
    _flag(0x23, 0, "ebx", 0, "UnitMask2", lambda m: False),
    _flag(0x23, 0, "ebx", 1, "EQ", lambda m: False),
    _number(0x23, 1, "eax", 31, 0, "general counters, bitmap",
            lambda m: (1 << m.pmu.counters) - 1, _extended),
    _number(0x23, 1, "ebx", 31, 0, "fixed counters, bitmap",
            lambda m: (1 << m.pmu.fixed) - 1, _extended),
    _number(0x23, 3, "eax", 31, 0, "architectural events, bitmap", lambda m: 0x7F, _extended),
    # Subleaf 4 has the upper half of what CFG_C may contain, 5 the counters that have it (Linux
    # intel/core.c: update_pmu_cap).
    _number(0x23, 4, "ebx", 9, 8, "PEBS: group of LBRs", lambda m: 3 * m.pmu.arch_pebs),
    _flag(0x23, 4, "ebx", 29, "PEBS: group of general registers", lambda m: m.pmu.arch_pebs),
    _flag(0x23, 4, "ebx", 30, "PEBS: group of memory data", lambda m: m.pmu.arch_pebs),
    _number(0x23, 5, "eax", 31, 0, "general counters with PEBS, bitmap",
            lambda m: (1 << m.pmu.counters) - 1 if m.pmu.arch_pebs else 0),
    _number(0x23, 5, "ecx", 31, 0, "fixed counters with PEBS, bitmap",
            lambda m: (1 << m.pmu.fixed) - 1 if m.pmu.arch_pebs else 0),
    _number(0x80000000, None, "eax", 31, 0, "highest extended leaf", max_extended),
    _flag(0x80000001, None, "ecx", 2, "SVM", lambda m: m.amd),
    _flag(0x80000001, None, "ecx", 23, "PerfCtrExtCore", lambda m: m.amd),
    _flag(0x80000001, None, "edx", 11, "SYSCALL", lambda m: m.linear_width > 32),
    _flag(0x80000001, None, "edx", 29, "LM", lambda m: m.linear_width > 32),
    _number(0x80000008, None, "eax", 7, 0, "physical address width", lambda m: m.physical_width),
    _number(0x80000008, None, "eax", 15, 8, "linear address width", lambda m: m.linear_width),
    _flag(0x80000022, None, "eax", 0, "PerfMonV2", lambda m: m.amd and m.pmu.version >= 2),
    _flag(0x80000022, None, "eax", 1, "LbrStack", lambda m: m.amd),
    _flag(0x80000022, None, "eax", 2, "LbrAndPmcFreeze", lambda m: m.amd),
    _number(0x80000022, None, "ebx", 3, 0, "core counters",
            lambda m: m.pmu.counters if m.amd else 0),
    _number(0x80000022, None, "ebx", 9, 4, "LbrStack size",
            lambda m: m.amd.depth if m.amd else 0),
)


def leaves(model: CpuModel) -> tuple[tuple[int, int | None], ...]:
    """The (leaf, subleaf) pairs that `model` answers, ascending."""
    known = {(f.leaf, f.subleaf) for f in CPUID_FIELDS}
    return tuple(sorted(
        ((leaf, sub) for leaf, sub in known
         if leaf <= (max_leaf(model) if leaf < 0x80000000 else max_extended(model))
         and not (leaf == 0xD and (not model.xcr0 or not _component_present(model, sub)))),
        key=lambda pair: (pair[0], pair[1] or 0),
    ))


def _component_present(model: CpuModel, subleaf: int | None) -> bool:
    return subleaf in (0, 1) or bool((model.xcr0 | model.xss) >> (subleaf or 0) & 1)


@lru_cache(maxsize=4096)
def cpuid(
    model: CpuModel, leaf: int, subleaf: int = 0, xcr0: int = 3, xss: int = 0
) -> tuple[int, int, int, int]:
    """What CPUID answers.

    Parameters
    ----------
    leaf, subleaf : int
        EAX and ECX.
    xcr0, xss : int
        Values of XCR0 and IA32_XSS; leaf 0DH shows sizes for them.

    Returns
    -------
    tuple of int
        EAX, EBX, ECX, EDX.

    Notes
    -----
    A basic leaf above the highest answers as the highest does on Intel and all 0 on AMD
    (SDM vol. 2, CPUID; APM vol. 3, E.1).
    """
    leaf, subleaf = leaf & 0xFFFFFFFF, subleaf & 0xFFFFFFFF
    top = max_leaf(model) if leaf < 0x80000000 else max_extended(model)
    if leaf > top:
        if not model.intel:
            return 0, 0, 0, 0
        leaf = max_leaf(model)
    out = dict.fromkeys(REGISTERS, 0)
    for row in CPUID_FIELDS:
        if row.leaf == leaf and row.subleaf in (None, subleaf) and row.offered(model):
            width = row.hi - row.lo + 1
            out[row.register] |= (row.value(model, xcr0, xss) & ((1 << width) - 1)) << row.lo
    return out["eax"], out["ebx"], out["ecx"], out["edx"]
