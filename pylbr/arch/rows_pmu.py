"""Registers of the performance-monitoring units."""

from __future__ import annotations

from collections.abc import Callable

from pylbr.arch.features import CpuModel
from pylbr.arch.fields import Field, FieldKind, Offered
from pylbr.arch.register import Access, PerModel, Register, once

__all__ = ["PMU_ROWS"]


def _since(version: int) -> Offered:
    return lambda m: m.intel and m.pmu.version >= version


def _arch_pebs(model: CpuModel) -> bool:
    return model.pmu.arch_pebs


def _v6(which: str) -> PerModel:
    """Counters of PMU version 6, whose registers of one counter lie together."""
    return lambda m: getattr(m.pmu, which) if m.intel and m.pmu.version >= 6 else 0


def _arch_pebs_of(which: str) -> PerModel:
    return lambda m: getattr(m.pmu, which) if m.pmu.arch_pebs else 0


def _amd_v2(model: CpuModel) -> bool:
    return bool(model.amd) and model.pmu.version >= 2


def _counters(model: CpuModel) -> int:
    return model.pmu.counters if model.intel and model.pmu.version else 0


def _amd_counters(model: CpuModel) -> int:
    return model.pmu.counters if model.amd and model.pmu.version else 0


def _counter_bits(
    prefix: str, first: int, last: int, offered: Callable[[int], Offered]
) -> tuple[Field, ...]:
    """One field per counter that may exist."""
    return tuple(Field(f"{prefix}{n}", n, n, "", offered(n - first))
                 for n in range(first, last + 1))


def _general(n: int) -> Offered:
    return lambda m: m.intel and n < m.pmu.counters


def _fixed(n: int) -> Offered:
    return lambda m: m.intel and n < m.pmu.fixed


def _fixed_if(n: int, feature: str) -> Offered:
    return lambda m: _fixed(n)(m) and bool(getattr(m.pmu, feature))


def _pebs_general(n: int) -> Offered:
    return lambda m: n < (m.pmu.counters if m.pmu.pebs_baseline else min(m.pmu.counters, 4))


def _amd_general(n: int) -> Offered:
    return lambda m: bool(m.amd) and n < m.pmu.counters


_ENABLE_BITS = (
    *_counter_bits("PMC", 0, 7, _general),
    *_counter_bits("FIXED_CTR", 32, 35, _fixed),
)
_PERF_METRICS = Field("PERF_METRICS", 48, 48, "", lambda m: m.pmu.perf_metrics)
_STATUS_V2 = (
    Field("OvfUncore", 61, 61, "", lambda m: m.pmu.version >= 3),
    Field("OvfBuf", 62, 62, "the debug-store buffer is full", lambda m: m.debug_store),
    Field("CondChgd", 63, 63),
)
_STATUS = (
    *_ENABLE_BITS,
    _PERF_METRICS,
    Field("ArchPebsThreshold", 54, 54, "the PEBS buffer has reached its threshold", _arch_pebs),
    Field("TraceToPAPMI", 55, 55, "", lambda m: m.pt),
    Field("LBR_FRZ", 58, 58, "LBRs are frozen", _since(4)),
    Field("CTR_FRZ", 59, 59, "counters are frozen", _since(4)),
    Field("ASCI", 60, 60, "counts lack an opt-out enclave", lambda m: m.sgx and m.pmu.version >= 4),
    *_STATUS_V2,
)


def _event_select(any_thread: bool) -> tuple[Field, ...]:
    return (
        Field("EVENT", 7, 0, "event select"),
        Field("UMASK", 15, 8, "unit mask"),
        Field("USR", 16, 16, "count at CPL 1 to 3"),
        Field("OS", 17, 17, "count at CPL 0"),
        Field("E", 18, 18, "edge detect"),
        Field("PC", 19, 19, "pin control"),
        Field("INT", 20, 20, "PMI at overflow"),
        Field("ANY", 21, 21, "any thread", lambda m: any_thread and m.pmu.any_thread),
        Field("EN", 22, 22, "enable"),
        Field("INV", 23, 23, "invert the count mask"),
        Field("CMASK", 31, 24, "count mask"),
    )


_PERFEVTSEL = (
    *_event_select(any_thread=True),
    Field("IN_TX", 32, 32, "count in transactions only", lambda m: m.rtm),
    Field("IN_TXCP", 33, 33, "leave out aborted transactions", lambda m: m.rtm),
    Field("ADAPTIVE", 34, 34, "adaptive PEBS record", lambda m: m.pmu.pebs_baseline),
    Field("EN_LBR_LOG", 35, 35, "count into IA32_LBR_x_INFO",
          lambda m: bool(m.arch and m.arch.event_logging)),
)

_FIXED_CTRL = tuple(
    field
    for n in range(4)
    for field in (
        Field(f"EN{n}_OS", 4 * n, 4 * n, "count at CPL 0", _fixed(n)),
        Field(f"EN{n}_USR", 4 * n + 1, 4 * n + 1, "count at CPL 1 to 3", _fixed(n)),
        Field(f"ANY{n}", 4 * n + 2, 4 * n + 2, "any thread",
              _fixed_if(n, "any_thread")),
        Field(f"PMI{n}", 4 * n + 3, 4 * n + 3, "PMI at overflow", _fixed(n)),
    )
) + tuple(
    Field(f"ADAPTIVE{n}", 32 + 4 * n, 32 + 4 * n, "adaptive PEBS record",
          _fixed_if(n, "pebs_baseline"))
    for n in range(4)
)


def _width(name: str, which: str) -> tuple[Field, ...]:
    """A counter of the model's width."""
    def wide(width: int) -> Offered:
        return lambda m: getattr(m.pmu, which) == width

    return tuple(Field(name, width - 1, 0, "", wide(width)) for width in range(32, 65))


#: What a counter's PEBS records contain, and its reload value (Linux intel/core.c:
#: intel_pmu_enable_event_ext).
_CFG_C = (
    Field("RELOAD", 31, 0, "what the counter continues with after a record, sign-extended"),
    Field("LBR", 41, 40, "group of records: none, 8, 16, or as many as IA32_LBR_DEPTH"),
    Field("GPR", 61, 61, "group of general registers"),
    Field("AUX", 62, 62, "group of memory data"),
    Field("EN", 63, 63, "a record at every overflow"),
)

PMU_ROWS: tuple[Register, ...] = (
    Register(
        "IA32_PMC{}", 0xC1, "pmc", "SDM vol. 3, 18.2; vol. 4, C1H", _counters,
        (Field("COUNT", 31, 0, "sign-extended to the counter's width"),
         Field("ignored", 63, 32, kind=FieldKind.FREE)),
        rule="a write takes bits 31:0, sign-extended to the counter's width",
    ),
    Register(
        "IA32_A_PMC{}", 0x4C1, "pmc.full", "SDM vol. 3, 18.2.5; vol. 4, 4C1H",
        lambda m: _counters(m) if m.pmu.full_width_writes else 0,
        _width("COUNT", "counter_width"), rule="the same counter as IA32_PMCn",
    ),
    Register(
        "IA32_PERFEVTSEL{}", 0x186, "evtsel", "SDM vol. 3, figure 18-1; vol. 4, 186H; "
        "bit 35: ISE v048", _counters, _PERFEVTSEL,
        rule="IN_TXCP exists in IA32_PERFEVTSEL2 alone, EN_LBR_LOG as CPUID.1CH:ECX[19:16] lists",
    ),
    Register(
        "IA32_FIXED_CTR{}", 0x309, "fixed", "SDM vol. 4, 309H",
        lambda m: m.pmu.fixed if m.intel else 0, _width("COUNT", "fixed_width"),
    ),
    Register(
        "IA32_FIXED_CTR_CTRL", 0x38D, "fixed.ctrl", "SDM vol. 3, figure 18-2; vol. 4, 38DH",
        once(lambda m: _since(2)(m) and m.pmu.fixed), _FIXED_CTRL,
    ),
    Register(
        "IA32_PERF_GLOBAL_STATUS", 0x38E, "global.status", "SDM vol. 3, 18.2.4; vol. 4, 38EH",
        once(_since(2)), _STATUS, access=Access.RO,
    ),
    Register(
        "IA32_PERF_GLOBAL_CTRL", 0x38F, "global.ctrl", "SDM vol. 3, figure 18-3; vol. 4, 38FH; "
        "table 9-1", once(_since(2)), (*_ENABLE_BITS, _PERF_METRICS),
        reset=lambda m: (1 << m.pmu.counters) - 1,
    ),
    Register(
        "IA32_PERF_GLOBAL_STATUS_RESET", 0x390, "global.reset", "SDM vol. 4, 390H",
        once(_since(2)), _STATUS, access=Access.ACTION,
        rule="1 clears the bit in IA32_PERF_GLOBAL_STATUS; up to version 3 it is called "
        "IA32_PERF_GLOBAL_OVF_CTRL",
    ),
    Register(
        "IA32_PERF_GLOBAL_STATUS_SET", 0x391, "global.set", "SDM vol. 4, 391H",
        once(_since(4)), tuple(f for f in _STATUS if f.name not in ("CondChgd", "OvfUncore")),
        access=Access.ACTION, rule="1 sets the bit in IA32_PERF_GLOBAL_STATUS",
    ),
    Register(
        "IA32_PERF_GLOBAL_INUSE", 0x392, "global.inuse", "SDM vol. 4, 392H", once(_since(4)),
        (*_ENABLE_BITS, Field("PMI", 63, 63)), access=Access.RO,
        rule="follows the event selects, enables and PMI bits",
    ),
    Register(
        "IA32_PERF_CAPABILITIES", 0x345, "capabilities", "SDM vol. 4, 345H",
        once(lambda m: m.pdcm),
        (
            Field("LBR_FMT", 5, 0, "LBR format"),
            Field("PEBS_TRAP", 6, 6, "", lambda m: m.pmu.pebs_format > 0),
            Field("PEBS_ARCH_REG", 7, 7, "", lambda m: m.pmu.pebs_format > 0),
            Field("PEBS_REC_FMT", 11, 8, "", lambda m: m.pmu.pebs_format > 0),
            Field("FREEZE_WHILE_SMM", 12, 12, "", lambda m: m.freeze_while_smm),
            Field("FW_WRITE", 13, 13, "IA32_A_PMCx exist", lambda m: m.pmu.full_width_writes),
            Field("PEBS_BASELINE", 14, 14, "", lambda m: m.pmu.pebs_baseline),
            Field("PERF_METRICS", 15, 15, "", lambda m: m.pmu.perf_metrics),
        ),
        reset=lambda m: (
            m.lbr_format
            | (1 << 6 | 1 << 7 | m.pmu.pebs_format << 8 if m.pmu.pebs_format else 0)
            | m.freeze_while_smm << 12 | m.pmu.full_width_writes << 13
            | m.pmu.pebs_baseline << 14 | m.pmu.perf_metrics << 15
        ),
        access=Access.RO,
        rule="the host may clear features and set LBR_FMT to 0 or the model's own; PEBS fields are "
        "all the model's unless PEBS_REC_FMT is 0",
    ),
    Register(
        "IA32_PEBS_ENABLE", 0x3F1, "pebs.enable", "SDM vol. 4, 3F1H",
        once(lambda m: m.pmu.pebs_format),
        (
            *(Field(f"PEBS_EN_PMC{n}", n, n, "",
                    _pebs_general(n))
              for n in range(8)),
            *(Field(f"PEBS_EN_FIXED{n}", 32 + n, 32 + n, "",
                    _fixed_if(n, "pebs_baseline"))
              for n in range(4)),
        ),
    ),
    Register(
        "MSR_PEBS_DATA_CFG", 0x3F2, "plain", "SDM vol. 3, 18.9.2; vol. 4, 3F2H",
        once(lambda m: m.pmu.pebs_baseline),
        (
            Field("Memory Info", 0, 0, "group of memory data"),
            Field("GPRs", 1, 1, "group of general registers"),
            Field("XMMs", 2, 2, "group of vector registers"),
            Field("LBRs", 3, 3, "group of records"),
            Field("LBR Entries", 31, 24, "records in the group, less one"),
        ),
    ),
    Register(
        "IA32_PMC_GP{}_CTR", 0x1900, "pmc.full", "Linux msr-index.h", _v6("counters"),
        _width("COUNT", "counter_width"), stride=4, rule="the same counter as IA32_PMCn",
    ),
    Register(
        "IA32_PMC_GP{}_CFG_A", 0x1901, "evtsel", "Linux msr-index.h", _v6("counters"), _PERFEVTSEL,
        stride=4, rule="the same register as IA32_PERFEVTSELn",
    ),
    Register(
        "IA32_PMC_GP{}_CFG_C", 0x1903, "pebs.general", "Linux msr-index.h",
        _arch_pebs_of("counters"), _CFG_C, stride=4,
    ),
    Register(
        "IA32_PMC_FX{}_CTR", 0x1980, "fixed", "Linux msr-index.h", _v6("fixed"),
        _width("COUNT", "fixed_width"), stride=4, rule="the same counter as IA32_FIXED_CTRn",
    ),
    Register(
        "IA32_PMC_FX{}_CFG_C", 0x1983, "pebs.fixed", "Linux msr-index.h", _arch_pebs_of("fixed"),
        _CFG_C, stride=4,
    ),
    Register(
        "IA32_PEBS_BASE", 0x3F4, "plain", "Linux intel/ds.c", once(_arch_pebs),
        (Field("SIZE", 3, 0, "the buffer has 4 KiB << SIZE"),
         Field("BASE", 63, 12, "linear address of the buffer")),
    ),
    Register(
        "IA32_PEBS_INDEX", 0x3F5, "plain", "Linux asm/perf_event.h: arch_pebs_index",
        once(_arch_pebs),
        (Field("WR", 26, 4, "offset of the next record, in 16 bytes"),
         Field("FULL", 31, 31, "there is no room for a record"),
         Field("EN", 32, 32, "records are written"),
         Field("THRESH", 58, 36, "offset at which a PMI is raised, in 16 bytes")),
        rule="the listener that takes the records moves WR, as with IA32_DS_AREA",
    ),
    Register(
        "PERF_CTL{}", 0xC0010200, "evtsel", "AMD APM vol. 2, 13.2.1", _amd_counters,
        (
            *_event_select(any_thread=False),
            Field("EVENT[11:8]", 35, 32, "event select, high part"),
            Field("HG_ONLY", 41, 40, "count in host or guest only"),
        ),
        stride=2,
    ),
    Register(
        "PERF_CTR{}", 0xC0010201, "pmc.full", "AMD APM vol. 2, 13.2.1", _amd_counters,
        _width("COUNT", "counter_width"), stride=2,
    ),
    Register(
        "PERF_CNTR_GLOBAL_STATUS", 0xC0000300, "global.status", "AMD APM vol. 2, 13.2.1",
        once(_amd_v2),
        (*_counter_bits("PMC", 0, 7, _amd_general), Field("LBRS_FROZEN", 58, 58),
         Field("PMCS_FROZEN", 59, 59)), access=Access.RO,
    ),
    Register(
        "PERF_CNTR_GLOBAL_CTL", 0xC0000301, "global.ctrl", "AMD APM vol. 2, 13.2.1",
        once(_amd_v2), _counter_bits("PMC", 0, 7, _amd_general),
        reset=lambda m: (1 << m.pmu.counters) - 1,
    ),
    Register(
        "PERF_CNTR_GLOBAL_STATUS_CLR", 0xC0000302, "global.reset", "AMD APM vol. 2, 13.2.1",
        once(_amd_v2),
        (*_counter_bits("PMC", 0, 7, _amd_general), Field("LBRS_FROZEN", 58, 58),
         Field("PMCS_FROZEN", 59, 59)), access=Access.ACTION,
    ),
)
