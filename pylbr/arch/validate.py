"""Which models cannot exist, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable

from pylbr.arch.features import CpuModel
from pylbr.arch.formats import FORMATS
from pylbr.arch.xsave import COMPONENTS, LBR_COMPONENT, supervisor_mask
from pylbr.errors import ConfigurationError

__all__ = ["check", "objections"]

#: An impossible combination and the sentence; the sentence may name `m`, the model.
Rule = tuple[Callable[[CpuModel], object], str]

_USER_COMPONENTS = 3 | sum(1 << c.bit for c in COMPONENTS.values() if not c.supervisor)


def _ler_clash(m: CpuModel) -> bool:
    return bool(m.legacy and m.legacy.select is False and m.legacy.call_stack)


RULES: tuple[Rule, ...] = (
    (lambda m: not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", m.name),
     "a name is kebab-case"),
    (lambda m: m.vendor not in ("GenuineIntel", "AuthenticAMD"),
     "the vendor is GenuineIntel or AuthenticAMD"),
    (lambda m: not (0 <= m.stepping < 16 and 0 <= m.number < 256 and 0 <= m.family < 271),
     "stepping, model or family does not fit CPUID.1:EAX"),
    (lambda m: m.number > 15 and m.family not in (6, *range(15, 271)),
     "an extended model exists for families 6 and 15 up only"),
    (lambda m: not 32 <= m.linear_width <= 57, "a linear address has 32 to 57 bits"),
    (lambda m: not 32 <= m.physical_width <= 52, "a physical address has 32 to 52 bits"),
    (lambda m: m.lbr is None, "a processor here has LBRs, of one of the three flavours"),
    # Architectural LBRs.
    (lambda m: m.arch and not m.arch.depth_bitmap,
     "architectural LBRs need a depth: CPUID.1CH:EAX[7:0] is 0"),
    (lambda m: m.arch and m.arch.depth_bitmap > 0x0F,
     "neither MSRs nor XSAVE space exist for more than 32 records: CPUID.1CH:EAX[7:4] must be 0"),
    (lambda m: m.arch and not 0 <= m.arch.fixed_depth <= 32,
     "a fixed depth, for tests, is 1 to 32"),
    (lambda m: m.arch and not m.intel, "architectural LBRs are Intel's"),
    (lambda m: m.arch and m.arch.call_stack and not m.arch.branch_filter,
     "call-stack mode needs the branch filter, which selects calls and returns"),
    (lambda m: m.arch and not 0 <= m.arch.event_logging <= 15,
     "event logging is a bitmap of four counters"),
    (lambda m: m.arch and m.arch.event_logging.bit_length() > m.pmu.counters,
     "event logging names a general counter that the PMU lacks"),
    (lambda m: m.arch and m.arch.event_logging and not m.pmu.version,
     "event logging needs a PMU"),
    (lambda m: m.arch and not m.pdcm,
     "architectural LBRs come with IA32_PERF_CAPABILITIES, whose LBR_FMT is 3FH"),
    # XSAVE.
    (lambda m: m.xcr0 & ~_USER_COMPONENTS, "XCR0 has a bit that is no user state component"),
    (lambda m: m.xcr0 and m.xcr0 & 3 != 3, "XSAVE implies x87 and SSE state: XCR0[1:0] must be 3"),
    (lambda m: m.xcr0 & 0xE0 and m.xcr0 & 0xE4 != 0xE4,
     "AVX-512 state is components 5 to 7 together, on top of AVX"),
    (lambda m: m.xcr0 & 3 << 17 not in (0, 3 << 17), "AMX state is components 17 and 18 together"),
    (lambda m: m.xss & ~supervisor_mask(), "IA32_XSS has a bit that is no supervisor component"),
    (lambda m: m.xss and not m.xcr0, "supervisor state components need XSAVE"),
    (lambda m: m.xss >> LBR_COMPONENT & 1 and not m.arch,
     "XSAVE component 15 holds architectural LBRs, which the model lacks"),
    (lambda m: m.xss >> 8 & 1 and not m.pt, "XSAVE component 8 holds Intel PT, absent here"),
    # Legacy LBRs.
    (lambda m: m.legacy and m.legacy.depth not in (4, 8, 16, 32),
     "legacy depths are 4, 8, 16 and 32"),
    (lambda m: m.legacy and m.legacy.format not in FORMATS, "legacy LBR formats are 0 to 7"),
    (lambda m: m.legacy and m.legacy.format in FORMATS
     and FORMATS[m.legacy.format].single != (m.legacy.to_base is None),
     "format 0, and no other, keeps both addresses in one register"),
    (lambda m: m.legacy and m.legacy.format in FORMATS
     and bool(FORMATS[m.legacy.format].info) != (m.legacy.info_base is not None),
     "formats 5 and 7, and no others, have INFO registers"),
    (_ler_clash, "EN_CALLSTACK is a bit of MSR_LBR_SELECT, which the model lacks"),
    (lambda m: m.legacy and m.legacy.signext_quirk and (m.legacy.format != 4 or m.tsx),
     "the sign-extension quirk belongs to format 4 on processors without TSX"),
    (lambda m: m.legacy and m.legacy.jmps_include_calls and not m.legacy.select,
     "jmps_include_calls is about MSR_LBR_SELECT, which the model lacks"),
    (lambda m: m.legacy and m.legacy.select_scope not in ("thread", "core"),
     "the scope of MSR_LBR_SELECT is thread or core"),
    (lambda m: m.legacy and m.legacy.select_scope == "core" and not m.legacy.select,
     "the threads of a core share MSR_LBR_SELECT, which the model lacks"),
    (lambda m: m.legacy and not m.intel, "legacy LBRs are Intel's"),
    # AMD.
    (lambda m: m.amd and m.intel, "LbrExtV2 is AMD's"),
    (lambda m: m.amd and m.amd.depth not in (1, 2, 4, 8, 16, 32),
     "LbrExtV2 needs a depth that is a power of two up to 32"),
    (lambda m: not m.intel and (m.pmu.fixed or m.pmu.version not in (0, 2)),
     "AMD's PMU here is PerfMonV2: version 2, no fixed counters"),
    (lambda m: not m.intel and (m.sgx or m.pt or m.vmx or m.pdcm or m.pmu.pebs_format),
     "SGX, Intel PT, VMX, PDCM and PEBS are Intel's"),
    # PMU.
    (lambda m: not 0 <= m.pmu.version <= 6, "PMU versions 0 to 6 are described"),
    (lambda m: m.pmu.arch_pebs and not (m.pmu.version >= 6 and m.pmu.extended),
     "architectural PEBS comes with PMU version 6 and leaf 23H"),
    (lambda m: m.pmu.arch_pebs and m.pmu.pebs_format,
     "PEBS is architectural or that of the debug store"),
    (lambda m: m.fred and not m.intel, "FRED here is Intel's"),
    (lambda m: m.pmu.version and not 1 <= m.pmu.counters <= 8,
     "a PMU has 1 to 8 general counters"),
    (lambda m: not 0 <= m.pmu.unlisted_counters < max(m.pmu.counters, 1)
     or not 0 <= m.pmu.unlisted_fixed <= m.pmu.fixed,
     "CPUID leaf 0AH lists a part of the counters that exist"),
    (lambda m: m.xfd and (not m.xss or not m.xcr0 >> 18 & 1),
     "XFD comes with XSAVES and component 18, which it disables"),
    (lambda m: not 0 <= m.pmu.fixed <= 4, "a PMU has up to 4 fixed counters"),
    (lambda m: m.pmu.fixed and m.pmu.version < 2, "fixed counters come with PMU version 2"),
    (lambda m: m.pmu.version and not 32 <= m.pmu.counter_width <= 64,
     "a general counter has 32 to 64 bits"),
    (lambda m: m.pmu.fixed and not 32 <= m.pmu.fixed_width <= 64,
     "a fixed counter has 32 to 64 bits"),
    (lambda m: m.intel and m.pmu.full_width_writes and m.pmu.version and not m.pdcm,
     "full-width counter writes are enumerated in IA32_PERF_CAPABILITIES, absent here"),
    (lambda m: m.pmu.pebs_format and not m.pdcm,
     "the PEBS format is enumerated in IA32_PERF_CAPABILITIES, absent here"),
    (lambda m: m.pmu.pebs_baseline and m.pmu.pebs_format < 4,
     "adaptive PEBS needs record format 4 or later"),
    (lambda m: m.pmu.pebs_format and not m.debug_store, "PEBS needs the debug store"),
    (lambda m: m.pmu.extended and not (m.intel and m.pmu.version >= 5),
     "leaf 23H comes with Intel's PMU version 5"),
    (lambda m: m.pmu.perf_metrics and m.pmu.fixed < 4, "PERF_METRICS needs fixed counter 3"),
    # The rest.
    (lambda m: m.pt_excludes_lbr and not (m.pt and m.legacy),
     "only models with Intel PT and legacy LBRs have the two exclude each other"),
    (lambda m: m.netburst and m.family != 15, "NetBurst is family 15"),
    (lambda m: m.netburst and m.pmu.version, "NetBurst has no architectural PMU"),
)


def objections(model: CpuModel) -> list[str]:
    """All sentences that speak against `model`; empty if it can exist."""
    return [sentence for wrong, sentence in RULES if wrong(model)]


def check(model: CpuModel) -> CpuModel:
    """Return `model`.

    Raises
    ------
    ConfigurationError
        If it cannot exist, with every reason.
    """
    reasons = objections(model)
    if reasons:
        raise ConfigurationError(f"{model.name}: " + "; ".join(reasons))
    return model
