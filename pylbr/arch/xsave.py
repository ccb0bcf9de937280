"""XSAVE state components as rows (SDM vol. 1, chapter 13; CPUID leaf 0DH)."""

from __future__ import annotations

from dataclasses import dataclass

from pylbr.arch import choices
from pylbr.arch.features import CpuModel

__all__ = [
    "COMPONENTS", "LBR_COMPONENT", "XFD_COMPONENTS", "Component", "component_size",
    "supervisor_mask",
]

LBR_COMPONENT = 15


@dataclass(frozen=True, slots=True)
class Component:
    """One state component: size in bytes and place in the standard format."""

    bit: int
    name: str
    size: int
    offset: int = 0
    supervisor: bool = False
    aligned: bool = False


COMPONENTS: dict[int, Component] = {
    c.bit: c
    for c in (
        Component(2, "AVX", 256, 576),
        Component(5, "opmask", 64, 1088),
        Component(6, "ZMM_Hi256", 512, 1152),
        Component(7, "Hi16_ZMM", 1024, 1664),
        Component(8, "PT", 128, supervisor=True),
        Component(9, "PKRU", 8, 2688),
        Component(10, "PASID", 8, supervisor=True),
        Component(11, "CET_U", 16, supervisor=True),
        Component(12, "CET_S", 24, supervisor=True),
        Component(13, "HDC", 8, supervisor=True),
        Component(14, "UINTR", 48, supervisor=True),
        Component(LBR_COMPONENT, "LBR", 808, supervisor=True,
                  aligned=choices.LBR_XSAVE_ALIGNED),
        Component(16, "HWP", 8, supervisor=True),
        Component(17, "TILECFG", 64, 2752, aligned=True),
        Component(18, "TILEDATA", 8192, 2816, aligned=True),
    )
}


#: Components that IA32_XFD can disable (SDM vol. 1, 13.14; CPUID.0DH.n:ECX[2]).
XFD_COMPONENTS = frozenset({18})


def supervisor_mask() -> int:
    """Bits of the components that IA32_XSS manages."""
    return sum(1 << c.bit for c in COMPONENTS.values() if c.supervisor)


def component_size(model: CpuModel, bit: int) -> int:
    """CPUID.0DH.bit:EAX; 0 where `model` lacks the component."""
    if bit < 2 or not (model.xcr0 | model.xss) >> bit & 1:
        return 0
    if bit == LBR_COMPONENT and model.arch and choices.LBR_XSAVE_SIZE_FOLLOWS_DEPTH:
        return 40 + 24 * model.arch.max_depth
    return COMPONENTS[bit].size


def compacted_size(model: CpuModel, components: int) -> int:
    """Bytes of a compacted XSAVE area that holds `components`."""
    end = 576
    for bit in range(2, 63):
        if components >> bit & 1:
            if COMPONENTS[bit].aligned:
                end = (end + 63) & ~63
            end += component_size(model, bit)
    return end


def standard_size(model: CpuModel, components: int) -> int:
    """Bytes of a standard-format area that holds the user components."""
    return max(
        [576] + [c.offset + component_size(model, c.bit) for c in COMPONENTS.values()
                 if not c.supervisor and components >> c.bit & 1]
    )
