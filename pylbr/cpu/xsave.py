"""XSAVES and XRSTORS of the LBRs of a model."""

from __future__ import annotations

from functools import lru_cache

from lbrcore import Fault, LbrState
from lbrcore import xsave as core
from pylbr.arch.features import CpuModel
from pylbr.arch.xsave import COMPONENTS, LBR_COMPONENT, component_size
from pylbr.cpu.errors import InvalidOpcode
from pylbr.errors import GeneralProtection, UnsupportedFeature

__all__ = ["check_offered", "xrstors", "xsaves"]

_ALIGNED = sum(1 << c.bit for c in COMPONENTS.values() if c.aligned)


@lru_cache(maxsize=256)
def _sizes(model: CpuModel) -> dict[int, int]:
    return {bit: component_size(model, bit) for bit in COMPONENTS
            if (model.xcr0 | model.xss) >> bit & 1}


def check_offered(model: CpuModel) -> None:
    """Refuse XSAVES where `model` lacks it, or manages no LBRs by it."""
    if not model.xss:
        raise InvalidOpcode(f"{model.name} has no XSAVES")
    if not model.xss >> LBR_COMPONENT & 1:
        raise UnsupportedFeature(
            f"{model.name}: XSAVES manages no LBRs; their caller saves the other state")


def xsaves(model: CpuModel, lbr: LbrState, area: bytearray | memoryview, offset: int,
           components: int, address: int | None, xinuse: int) -> None:
    """XSAVES of `lbr`; `components` are those asked for and enabled."""
    try:
        core.xsaves(lbr, area, components, offset=offset, address=address, xinuse=xinuse,
                    sizes=_sizes(model), aligned=_ALIGNED)
    except Fault as fault:
        raise GeneralProtection("area", offset, None, 0, str(fault), "XSAVES") from None


def xrstors(model: CpuModel, lbr: LbrState, area: bytes | bytearray | memoryview, offset: int,
            components: int, address: int | None, supported: int) -> None:
    """XRSTORS into `lbr`; `supported` are the components enabled."""
    try:
        core.xrstors(lbr, area, components, offset=offset, address=address, supported=supported,
                     sizes=_sizes(model), aligned=_ALIGNED)
    except Fault as fault:
        raise GeneralProtection("area", offset, None, 0, str(fault), "XRSTORS") from None
