"""CPU models by name.

Legacy rows: spec 3.3 (Linux intel_pmu_lbr_init_*, SDM vol. 4 tables).  Architectural rows:
leaf 1CH as published register dumps of these parts show it (EAX 4000000BH, EBX 7, ECX 7).
Leaves 0AH of Alder Lake's P-cores (6 general and 3 fixed counters) and 0DH of Sapphire Rapids
(IA32_XSS DD00H, XFD) too, by a dump of Alder Lake-S and one on qemu-devel, 2022-03-22.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from pylbr.arch import choices
from pylbr.arch.features import AmdLbr, ArchLbr, CpuModel, LegacyLbr, Pmu
from pylbr.arch.validate import check
from pylbr.errors import ConfigurationError

__all__ = ["DEFAULT_MODEL", "FEATURE_SETS", "MODELS", "architectural", "model"]

#: What commands and samplers take where none is named.
DEFAULT_MODEL = "sapphire-rapids"

_AVX = 0x7
_AVX512 = 0xE7 | 1 << 9
_HWP = 1 << 16
_XSS_CLIENT = 1 << 8 | 1 << 11 | 1 << 12 | 1 << 15 | _HWP
_XSS_SERVER = _XSS_CLIENT & ~_HWP | 1 << 10 | 1 << 14

_PMU_NONE = Pmu(version=0, counters=0, counter_width=0, fixed=0, fixed_width=0,
                full_width_writes=False)
_PMU_CORE2 = Pmu(version=2, counters=2, counter_width=40, fixed=3, fixed_width=40,
                 full_width_writes=False)
_PMU_ATOM = replace(_PMU_CORE2, version=3, any_thread=True)
_PMU_NEHALEM = Pmu(version=3, counters=4, full_width_writes=False, any_thread=True,
                   pebs_format=1)
_PMU_SANDY_BRIDGE = replace(_PMU_NEHALEM, full_width_writes=True)
_PMU_HASWELL = replace(_PMU_SANDY_BRIDGE, pebs_format=2)
_PMU_SKYLAKE = Pmu(version=4, counters=4, any_thread=True, pebs_format=3, events="skylake")
_PMU_ICE_LAKE = Pmu(version=5, counters=8, fixed=4, pebs_format=4, pebs_baseline=True,
                    perf_metrics=True, events="golden-cove")
# Hybrid: the P-cores list what the E-cores have; Linux adds 2 and 1 (intel_pmu_init).
_PMU_ALDER_LAKE_P = replace(_PMU_ICE_LAKE, unlisted_counters=2, unlisted_fixed=1)
_PMU_GOLDMONT = Pmu(version=4, counters=4, fixed=3, pebs_format=3, any_thread=True)
_PMU_GRACEMONT = Pmu(version=5, counters=6, fixed=3, pebs_format=4, pebs_baseline=True)

_OLD = LegacyLbr(8, 0x40, 0x60, select=False, format=choices.LBR_FORMAT_BONNELL)
_SILVERMONT = replace(_OLD, select=True, select_scope="core",
                      jmps_include_calls=choices.SILVERMONT_JMPS_INCLUDE_CALLS,
                      format=choices.LBR_FORMAT_SILVERMONT)
_NEHALEM = LegacyLbr(16, 0x680, 0x6C0, select_scope="core", jmps_include_calls=True)
_SANDY_BRIDGE = LegacyLbr(16, 0x680, 0x6C0)
_HASWELL = LegacyLbr(16, 0x680, 0x6C0, call_stack=True, format=4)
_SKYLAKE = LegacyLbr(32, 0x680, 0x6C0, 0xDC0, call_stack=True, format=5)
_GOLDMONT = LegacyLbr(32, 0x680, 0x6C0, select_scope="core", call_stack=True, format=6)
_GOLDMONT_PLUS = replace(_GOLDMONT, info_base=0xDC0, format=7)

_PRE_NEHALEM: dict[str, Any] = {"freeze_while_smm": False, "pdcm": False, "vmx": False}


def _all() -> tuple[CpuModel, ...]:
    arch = ArchLbr()
    return (
        # Architectural.
        CpuModel("sapphire-rapids", arch, number=0x8F, stepping=8, pmu=_PMU_ICE_LAKE,
                 linear_width=57, physical_width=52, xcr0=_AVX512 | 3 << 17, xss=_XSS_SERVER,
                 bus_lock_detect=True, hle=True, rtm=True, sgx=True, pt=True, xfd=True),
        CpuModel("alder-lake-p", arch, number=0x9A, stepping=3, pmu=_PMU_ALDER_LAKE_P,
                 xcr0=_AVX | 1 << 9, xss=_XSS_CLIENT, bus_lock_detect=True, pt=True,
                 hybrid=True),
        CpuModel("alder-lake-e", arch, number=0x9A, stepping=3, pmu=_PMU_GRACEMONT,
                 xcr0=_AVX | 1 << 9, xss=_XSS_CLIENT, bus_lock_detect=True, pt=True,
                 hybrid=True),
        CpuModel("sierra-forest", replace(arch, event_logging=0x0F), number=0xAF, stepping=3,
                 pmu=replace(_PMU_GRACEMONT, counters=8, pebs_format=5, extended=True),
                 linear_width=57,
                 physical_width=52, xcr0=_AVX | 1 << 9, xss=_XSS_SERVER | _HWP,
                 bus_lock_detect=True, sgx=True, pt=True),
        # Legacy, P6 and NetBurst.
        CpuModel("pentium-m", replace(_OLD, to_base=None, format=0), number=0x0D,
                 linear_width=32, physical_width=32, pmu=_PMU_NONE, debug_store=False,
                 **_PRE_NEHALEM),
        CpuModel("core-duo", replace(_OLD, to_base=None, format=0), number=0x0E,
                 linear_width=32, physical_width=32,
                 pmu=replace(_PMU_CORE2, version=1, fixed=0, fixed_width=0),
                 **_PRE_NEHALEM),
        CpuModel("willamette", LegacyLbr(4, 0x1DB, None, tos=0x1DA, ler_base=0x1D7,
                                         select=False, format=0),
                 family=15, number=1, linear_width=32, physical_width=36, pmu=_PMU_NONE,
                 netburst=True, **_PRE_NEHALEM),
        CpuModel("prescott", LegacyLbr(16, 0x680, 0x6C0, tos=0x1DA, ler_base=0x1D7,
                                       select=False, format=choices.LBR_FORMAT_NETBURST),
                 family=15, number=3, physical_width=36, pmu=_PMU_NONE, netburst=True,
                 **_PRE_NEHALEM),
        # Legacy, Core.
        CpuModel("core2", LegacyLbr(4, 0x40, 0x60, select=False,
                                    format=choices.LBR_FORMAT_CORE2),
                 number=0x17, physical_width=36, pmu=_PMU_CORE2, freeze_while_smm=False),
        CpuModel("nehalem", _NEHALEM, number=0x1A, physical_width=40, pmu=_PMU_NEHALEM,
                 uncore_pmi=True),
        CpuModel("westmere", _NEHALEM, number=0x2C, physical_width=40, pmu=_PMU_NEHALEM,
                 uncore_pmi=True),
        CpuModel("sandy-bridge", _SANDY_BRIDGE, number=0x2A, physical_width=36,
                 pmu=_PMU_SANDY_BRIDGE, xcr0=_AVX),
        CpuModel("ivy-bridge", _SANDY_BRIDGE, number=0x3A, physical_width=36,
                 pmu=_PMU_SANDY_BRIDGE, xcr0=_AVX),
        CpuModel("haswell", _HASWELL, number=0x3C, physical_width=39, pmu=_PMU_HASWELL,
                 xcr0=_AVX, hle=True, rtm=True),
        CpuModel("haswell-notsx", replace(_HASWELL, signext_quirk=True), number=0x3C,
                 stepping=3, physical_width=39, pmu=_PMU_HASWELL, xcr0=_AVX),
        CpuModel("broadwell", _HASWELL, number=0x3D, physical_width=39, pmu=_PMU_HASWELL,
                 xcr0=_AVX, hle=True, rtm=True, pt=True, pt_excludes_lbr=True),
        CpuModel("skylake", replace(_SKYLAKE, doubles_newest=True), number=0x5E,
                 physical_width=39, pmu=_PMU_SKYLAKE, xcr0=_AVX, xss=1 << 8,
                 hle=True, rtm=True, sgx=True, pt=True, pt_excludes_lbr=True),
        CpuModel("ice-lake", _SKYLAKE, number=0x7E, physical_width=39, pmu=_PMU_ICE_LAKE,
                 xcr0=_AVX512, xss=1 << 8, sgx=True, pt=True),
        CpuModel("tiger-lake", _SKYLAKE, number=0x8C, physical_width=39, pmu=_PMU_ICE_LAKE,
                 xcr0=_AVX512, xss=1 << 8 | 3 << 11, pt=True),
        CpuModel("rocket-lake", _SKYLAKE, number=0xA7, physical_width=39, pmu=_PMU_ICE_LAKE,
                 xcr0=_AVX512, xss=1 << 8, pt=True),
        # Legacy, Atom and Xeon Phi.
        CpuModel("bonnell", _OLD, number=0x1C, stepping=10, physical_width=32, pmu=_PMU_ATOM,
                 freeze_while_smm=False),
        CpuModel("silvermont", _SILVERMONT, number=0x37, physical_width=36,
                 pmu=replace(_PMU_ATOM, pebs_format=2)),
        CpuModel("airmont", _SILVERMONT, number=0x4C, physical_width=36,
                 pmu=replace(_PMU_ATOM, pebs_format=2)),
        CpuModel("knights-landing", LegacyLbr(8, 0x680, 0x6C0, format=3, reported_format=1),
                 number=0x57, physical_width=46, pmu=replace(_PMU_ATOM, pebs_format=2),
                 xcr0=_AVX512 & ~(1 << 9)),
        CpuModel("goldmont", _GOLDMONT, number=0x5C, physical_width=39, pmu=_PMU_GOLDMONT,
                 xcr0=3, xss=1 << 8, pt=True),
        CpuModel("goldmont-plus", _GOLDMONT_PLUS, number=0x7A, physical_width=39,
                 pmu=_PMU_GOLDMONT, xcr0=3, xss=1 << 8, sgx=True, pt=True),
        CpuModel("tremont", replace(_GOLDMONT_PLUS, format=choices.LBR_FORMAT_TREMONT),
                 number=0x86, physical_width=39,
                 pmu=replace(_PMU_GOLDMONT, version=5, pebs_format=4, pebs_baseline=True,
                             any_thread=False),
                 xcr0=3, xss=1 << 8, pt=True),
        # AMD.
        CpuModel("zen4", AmdLbr(), vendor="AuthenticAMD", family=0x19, number=0x61, stepping=2,
                 physical_width=48, linear_width=57,
                 pmu=Pmu(version=2, counters=6, fixed=0, fixed_width=0, events="amd"),
                 xcr0=_AVX512, xss=3 << 11, pdcm=False, debug_store=False,
                 freeze_while_smm=False, vmx=False, bus_lock_detect=False),
    )


#: All models by name.
MODELS: MappingProxyType[str, CpuModel] = MappingProxyType({m.name: check(m) for m in _all()})


def _arch_pebs_2025() -> CpuModel:
    """What Linux 6.18 and later handle on Clearwater Forest: PMU version 6, architectural PEBS,
    FRED.  Whatever else the part has is Sierra Forest's."""
    start = MODELS["sierra-forest"]
    return replace(
        start, name="arch-pebs-2025", number=0xDD, stepping=0, fred=True,
        pmu=replace(start.pmu, version=6, pebs_format=0, pebs_baseline=False, arch_pebs=True))


#: Sets of features, dated, of which no register dump of a processor was at hand.  `model` has them
#: by name; the lists of models and liblbrcore do not.
FEATURE_SETS: MappingProxyType[str, CpuModel] = MappingProxyType({
    m.name: check(m) for m in (_arch_pebs_2025(),)})


def model(name: str) -> CpuModel:
    """The model called `name`, of `MODELS` or `FEATURE_SETS`.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    try:
        return FEATURE_SETS[name] if name in FEATURE_SETS else MODELS[name]
    except KeyError:
        raise ConfigurationError(
            f"model {name!r} is not known; these are: {', '.join((*MODELS, *FEATURE_SETS))}"
        ) from None


def architectural(
    name: str = "architectural", *, depths: tuple[int, ...] = (8, 16, 32),
    base: str = "sapphire-rapids", pmu: Pmu | None = None, **features: Any,
) -> CpuModel:
    """A model with architectural LBRs of one's own choice.

    Parameters
    ----------
    name : str
    depths : tuple of int
        What IA32_LBR_DEPTH takes: 8, 16, 24, 32.
    base : str
        Model that gives everything else.
    pmu : Pmu, optional
    **features
        Fields of `ArchLbr` (``cpl_filter=False``, ``event_logging=3``, ...) or of
        `CpuModel` (``rtm=False``, ``linear_width=48``, ...).

    Raises
    ------
    ConfigurationError
        If such a processor cannot exist.
    """
    start = model(base)
    if start.arch is None:
        raise ConfigurationError(f"{name}: {base} has no architectural LBRs to start from")
    wrong = [depth for depth in depths if depth % 8 or not 8 <= depth <= 64]
    if wrong:
        raise ConfigurationError(f"{name}: {wrong[0]} is no depth; these are 8, 16, 24, 32")
    lbr_names = set(ArchLbr.__dataclass_fields__)
    lbr = {key: features.pop(key) for key in list(features) if key in lbr_names}
    unknown = sorted(set(features) - set(CpuModel.__dataclass_fields__))
    if unknown:
        raise ConfigurationError(f"{name}: {unknown[0]} is no feature of a processor")
    bitmap = sum(1 << (depth // 8 - 1) for depth in set(depths))
    built = replace(
        start, name=name, lbr=replace(start.arch, depth_bitmap=bitmap, **lbr),
        pmu=pmu or start.pmu, **features,
    )
    return check(built)
