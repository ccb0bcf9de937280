"""What one processor model offers: immutable, comparable, buildable by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["AmdLbr", "ArchLbr", "CpuModel", "LegacyLbr", "Pmu"]


@dataclass(frozen=True, slots=True)
class ArchLbr:
    """Architectural LBRs as CPUID leaf 1CH enumerates them (spec 1.1).

    Parameters
    ----------
    depth_bitmap : int
        EAX[7:0]; bit n offers depth 8*(n+1).
    deep_cstate_reset, lip : bool
        EAX[30], EAX[31].
    cpl_filter, branch_filter, call_stack : bool
        EBX[0], EBX[1], EBX[2].
    mispredict, timed, branch_type : bool
        ECX[0], ECX[1], ECX[2].
    event_logging : int
        ECX[19:16], a bit for each of the first four general counters.
    fixed_depth : int
        Not 0: the one depth, 1 to 32, whatever the bitmap is.  No processor has one; an
        exhaustive test of the layers above does.
    """

    depth_bitmap: int = 0x0B
    deep_cstate_reset: bool = True
    lip: bool = False
    cpl_filter: bool = True
    branch_filter: bool = True
    call_stack: bool = True
    mispredict: bool = True
    timed: bool = True
    branch_type: bool = True
    event_logging: int = 0
    fixed_depth: int = 0

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths that IA32_LBR_DEPTH takes, ascending."""
        if self.fixed_depth:
            return (self.fixed_depth,)
        return tuple(8 * (n + 1) for n in range(8) if self.depth_bitmap >> n & 1)

    @property
    def max_depth(self) -> int:
        """The largest of them, 0 if there is none."""
        return self.fixed_depth or 8 * self.depth_bitmap.bit_length()


@dataclass(frozen=True, slots=True)
class LegacyLbr:
    """A row of the legacy models (spec 3.3).

    Parameters
    ----------
    depth : int
        Number of records, a power of two.
    from_base, to_base, info_base : int
        First MSR of each kind; `to_base` None where one 64-bit MSR holds both addresses,
        `info_base` None where there is none.
    tos : int
        MSR_LASTBRANCH_TOS, 1C9H but on NetBurst.
    ler_base : int or None
        MSR_LER_FROM_LIP; MSR_LER_TO_LIP follows it.
    select : bool
        MSR_LBR_SELECT exists.
    select_scope : str
        "thread", or "core" where the threads of a core share the one register (spec 3.2).
    call_stack : bool
        Its bit 9, EN_CALLSTACK, too.
    format : int
        The layout that the registers have, 0 to 7 (spec 3.4).
    reported_format : int or None
        IA32_PERF_CAPABILITIES[5:0] where it differs from `format` (Knights Landing).
    signext_quirk : bool
        WRMSR of FROM takes bits 62:61 as part of the sign extension, though records have
        them 0 (Haswell without TSX, spec 3.5).
    jmps_include_calls : bool
        Its bits 6 and 7 suppress, beside jumps, indirect calls and returns, and relative calls
        (SDM vol. 3, 17.8: table 17-11 lacks the exceptions of table 17-12).
    doubles_newest : bool
        Samples were recorded that have the newest record twice (`choices.SKYLAKE_DOUBLED`).
    """

    depth: int
    from_base: int
    to_base: int | None
    info_base: int | None = None
    tos: int = 0x1C9
    ler_base: int | None = 0x1DD
    select: bool = True
    select_scope: str = "thread"
    call_stack: bool = False
    format: int = 3
    reported_format: int | None = None
    signext_quirk: bool = False
    jmps_include_calls: bool = False
    doubles_newest: bool = False

    @property
    def depths(self) -> tuple[int, ...]:
        """The one depth."""
        return (self.depth,)

    @property
    def max_depth(self) -> int:
        """The fixed depth."""
        return self.depth


@dataclass(frozen=True, slots=True)
class AmdLbr:
    """AMD LbrExtV2 (spec 9.2)."""

    depth: int = 16

    @property
    def depths(self) -> tuple[int, ...]:
        """The one depth."""
        return (self.depth,)

    @property
    def max_depth(self) -> int:
        """The fixed depth."""
        return self.depth


@dataclass(frozen=True, slots=True)
class Pmu:
    """The performance-monitoring unit as CPUID leaf 0AH enumerates it.

    `version` 0 is none.  On AMD, `version` 2 is PerfMonV2 and the registers are its own.
    `unlisted_counters` and `unlisted_fixed` exist as registers beyond what the leaf lists.
    `extended`: leaf 23H lists the counters once more, as bitmaps.  `arch_pebs`: architectural
    PEBS, enabled counter by counter in CFG_C; there is no IA32_PEBS_ENABLE then.
    """

    version: int = 5
    counters: int = 8
    counter_width: int = 48
    fixed: int = 3
    fixed_width: int = 48
    full_width_writes: bool = True
    any_thread: bool = False
    pebs_format: int = 0
    pebs_baseline: bool = False
    perf_metrics: bool = False
    events: str = "architectural"
    unlisted_counters: int = 0
    unlisted_fixed: int = 0
    extended: bool = False
    arch_pebs: bool = False

    @property
    def counter_mask(self) -> int:
        """A bit for each counter, placed as in IA32_PERF_GLOBAL_CTRL."""
        return ((1 << self.counters) - 1) | ((1 << self.fixed) - 1) << 32


@dataclass(frozen=True, slots=True)
class CpuModel:
    """One processor model: the facts that CPUID, the registers and the events depend on.

    Parameters
    ----------
    name : str
        Kebab-case.
    lbr : ArchLbr, LegacyLbr or AmdLbr
    vendor : str
        "GenuineIntel" or "AuthenticAMD".
    family, number, stepping : int
        DisplayFamily, DisplayModel and stepping.
    pmu : Pmu
    linear_width, physical_width : int
        CPUID.80000008H:EAX[15:8] and [7:0].
    xcr0, xss : int
        State components that XCR0 and IA32_XSS may have set; 0: no XSAVE.
    pdcm : bool
        IA32_PERF_CAPABILITIES exists.
    debug_store, bus_lock_detect, freeze_while_smm, uncore_pmi : bool
        What makes bits of IA32_DEBUGCTL exist.
    hle, rtm, sgx, pt, vmx, hybrid, xfd, fred : bool
    pt_excludes_lbr : bool
        While RTIT_CTL.TraceEn is set there are no LBRs (spec 1.8).
    netburst : bool
        1D9H is MSR_DEBUGCTLA, with a layout of its own.
    """

    name: str
    lbr: ArchLbr | LegacyLbr | AmdLbr
    vendor: str = "GenuineIntel"
    family: int = 6
    number: int = 0
    stepping: int = 0
    pmu: Pmu = field(default_factory=Pmu)
    linear_width: int = 48
    physical_width: int = 46
    xcr0: int = 0
    xss: int = 0
    pdcm: bool = True
    debug_store: bool = True
    bus_lock_detect: bool = False
    freeze_while_smm: bool = True
    uncore_pmi: bool = False
    hle: bool = False
    rtm: bool = False
    sgx: bool = False
    pt: bool = False
    vmx: bool = True
    hybrid: bool = False
    xfd: bool = False
    fred: bool = False
    pt_excludes_lbr: bool = False
    netburst: bool = False

    @property
    def arch(self) -> ArchLbr | None:
        """The architectural LBRs, if that is the flavour."""
        return self.lbr if isinstance(self.lbr, ArchLbr) else None

    @property
    def legacy(self) -> LegacyLbr | None:
        """The legacy LBRs, if that is the flavour."""
        return self.lbr if isinstance(self.lbr, LegacyLbr) else None

    @property
    def amd(self) -> AmdLbr | None:
        """LbrExtV2, if that is the flavour."""
        return self.lbr if isinstance(self.lbr, AmdLbr) else None

    @property
    def intel(self) -> bool:
        """Made by Intel."""
        return self.vendor == "GenuineIntel"

    @property
    def tsx(self) -> bool:
        """HLE or RTM."""
        return self.hle or self.rtm

    @property
    def lbr_format(self) -> int:
        """IA32_PERF_CAPABILITIES[5:0] (spec 1.1, 3.4)."""
        if self.arch:
            return 0x3F
        if self.legacy:
            reported = self.legacy.reported_format
            return self.legacy.format if reported is None else reported
        return 0
