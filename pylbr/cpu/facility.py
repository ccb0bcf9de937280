"""The core facility that a model needs, and what a register shows of its records."""

from __future__ import annotations

from functools import lru_cache

from lbrcore import CTL_ALL, SELECT_ALL, SELECT_ALL_CALL_STACK, LbrConfig, LbrState, Quirk
from pylbr.arch import choices
from pylbr.arch.bits import (
    CTL_CALL_STACK,
    CTL_CLASSES,
    CTL_CPL,
    INFO_BR_TYPE,
    INFO_CYC_CNT,
    INFO_CYC_CNT_VALID,
    INFO_IN_TSX,
    INFO_MISPRED,
    INFO_TSX_ABORT,
)
from pylbr.arch.features import ArchLbr, CpuModel, LegacyLbr
from pylbr.arch.fields import sign_extend
from pylbr.arch.formats import FORMATS
from pylbr.arch.validate import check

__all__ = [
    "amd_decode_from", "amd_decode_to", "amd_encode_from", "amd_encode_to", "config", "effective",
    "facility",
]

_TSX = INFO_TSX_ABORT | INFO_IN_TSX
#: The IP fields of SAMP_BR_FROM and SAMP_BR_TO.
_AMD_WIDTH = 58


def _architectural(model: CpuModel, lbr: ArchLbr) -> LbrConfig:
    ctl = CTL_ALL
    if not lbr.cpl_filter:
        ctl &= ~CTL_CPL
    if not lbr.call_stack:
        ctl &= ~CTL_CALL_STACK
    if not lbr.branch_filter:
        ctl &= ~CTL_CLASSES
    info = INFO_MISPRED * lbr.mispredict | _TSX * model.tsx | INFO_BR_TYPE * lbr.branch_type
    info |= (INFO_CYC_CNT_VALID | INFO_CYC_CNT) * lbr.timed
    for counter in range(4):
        if lbr.event_logging >> counter & 1:
            info |= 3 << (32 + 2 * counter)
    return LbrConfig(
        depth_bitmap=lbr.depth_bitmap, depth=lbr.fixed_depth, linear_width=model.linear_width,
        event_counters=lbr.event_logging, ctl_mask=ctl, info_mask=info,
    )


def _legacy(model: CpuModel, lbr: LegacyLbr) -> LbrConfig:
    select = (SELECT_ALL_CALL_STACK if lbr.call_stack else SELECT_ALL) if lbr.select else 0
    info = FORMATS[lbr.format].info_mask
    if not model.tsx:
        info &= ~_TSX
    return LbrConfig.legacy(
        lbr.depth, select_mask=select, info_mask=info, linear_width=model.linear_width,
        quirks=Quirk.JMPS_INCLUDE_CALLS if lbr.jmps_include_calls else 0,
    )


@lru_cache(maxsize=256)
def config(model: CpuModel) -> LbrConfig:
    """What the core has to offer for `model`."""
    check(model)
    if model.arch:
        return _architectural(model, model.arch)
    if model.legacy:
        return _legacy(model, model.legacy)
    return LbrConfig.legacy(model.lbr.max_depth, select_mask=SELECT_ALL, info_mask=INFO_MISPRED,
                            linear_width=_AMD_WIDTH)


def facility(model: CpuModel) -> LbrState:
    """A fresh facility for `model`."""
    return LbrState(config(model))


def effective(model: CpuModel) -> bool:
    """Records hold effective addresses, offsets in CS, not linear ones."""
    if model.arch:
        return not model.arch.lip
    return model.legacy is not None and FORMATS[model.legacy.format].effective


# AMD keeps validity in TO[63:61].  A retired record gets it from `choices`; what software
# wrote lies in bits of `info` that AMD has no use for.

_AMD_IP = (1 << _AMD_WIDTH) - 1
_WRITTEN = 1 << 32
_WRITTEN_TO = 7 << 33


def amd_encode_from(from_: int, info: int) -> int:
    """SAMP_BR_FROM of a record."""
    return from_ & _AMD_IP | info & INFO_MISPRED


def amd_encode_to(from_: int, to: int, info: int) -> int:
    """SAMP_BR_TO of a record."""
    if info & _WRITTEN:
        flags = (info & _WRITTEN_TO) >> 33
    else:
        flags = choices.AMD_RETIRED_VALID_SPEC << 1 if from_ | to else 0
    return to & _AMD_IP | flags << 61


def amd_decode_from(entry: tuple[int, int, int], value: int) -> tuple[int, int, int]:
    """The record after a write of SAMP_BR_FROM; TO reads as before."""
    shown = amd_encode_to(*entry)
    _, to, info = amd_decode_to(entry, shown)
    return sign_extend(value, _AMD_WIDTH), to, info & ~INFO_MISPRED | value & INFO_MISPRED


def amd_decode_to(entry: tuple[int, int, int], value: int) -> tuple[int, int, int]:
    """The record after a write of SAMP_BR_TO."""
    from_, _, info = entry
    info = info & ~_WRITTEN_TO | _WRITTEN | (value >> 61) << 33
    return from_, sign_extend(value, _AMD_WIDTH), info
