"""Registers of the three LBR flavours."""

from __future__ import annotations

from pylbr.arch.features import CpuModel
from pylbr.arch.fields import Field, FieldKind, Offered
from pylbr.arch.formats import FORMATS
from pylbr.arch.register import Access, PerModel, Register, once

__all__ = ["LBR_ROWS"]

#: Distance of the MSR numbers that a family of numbered records may take.
MAX_RECORDS = 32


def _arch_records(model: CpuModel) -> int:
    return MAX_RECORDS if model.arch else 0


def _branch_filter(model: CpuModel) -> bool:
    return bool(model.arch and model.arch.branch_filter)


def _cpl_filter(model: CpuModel) -> bool:
    return bool(model.arch and model.arch.cpl_filter)


def _tsx(model: CpuModel) -> bool:
    return model.tsx


def _free_without_tsx(name: str, bit: int) -> tuple[Field, Field]:
    """TSX bits of INFO: undefined, not reserved, where neither HLE nor RTM exists."""
    return (
        Field(name, bit, bit, offered=_tsx),
        Field(name, bit, bit, offered=lambda m: not m.tsx, kind=FieldKind.FREE),
    )


_ADDRESS = (Field("IP", 63, 0, "canonical; bits above MAXLINADDR-1 of a write are ignored"),)
_INFO = (
    Field("CYC_CNT", 15, 0, "cycles since the last record, saturating"),
    Field("undefined", 31, 16, kind=FieldKind.FREE),
    Field("PMCn_CNT", 47, 32, "two bits for each counter, saturating at 3"),
    Field("undefined", 55, 48, kind=FieldKind.FREE),
    Field("BR_TYPE", 59, 56, "branch class"),
    Field("CYC_CNT_VALID", 60, 60),
    *_free_without_tsx("TSX_ABORT", 61),
    *_free_without_tsx("IN_TSX", 62),
    Field("MISPRED", 63, 63),
)

_ARCHITECTURAL = (
    Register(
        "IA32_LBR_CTL", 0x14CE, "lbr.ctl", "SDM vol. 4, 14CEH", once(lambda m: m.arch),
        (
            Field("LBREn", 0, 0, "recording is on"),
            Field("OS", 1, 1, "record branches that end at CPL 0", _cpl_filter),
            Field("USR", 2, 2, "record branches that end at CPL 1 to 3", _cpl_filter),
            Field("CALL_STACK", 3, 3, "call-stack mode",
                  lambda m: bool(m.arch and m.arch.call_stack)),
            Field("COND", 16, 16, "taken conditional branches", _branch_filter),
            Field("NEAR_REL_JMP", 17, 17, "", _branch_filter),
            Field("NEAR_IND_JMP", 18, 18, "", _branch_filter),
            Field("NEAR_REL_CALL", 19, 19, "", _branch_filter),
            Field("NEAR_IND_CALL", 20, 20, "", _branch_filter),
            Field("NEAR_RET", 21, 21, "", _branch_filter),
            Field("OTHER_BRANCH", 22, 22, "", _branch_filter),
        ),
        survives_warm_reset=True,
        rule="a warm reset clears LBREn alone; #DB and SMI clear LBREn",
    ),
    Register(
        "IA32_LBR_DEPTH", 0x14CF, "lbr.depth", "SDM vol. 4, 14CFH", once(lambda m: m.arch),
        (Field("DEPTH", 63, 0, "a depth of CPUID.1CH:EAX[7:0], else #GP"),),
        reset=lambda m: m.arch.max_depth if m.arch else 0, survives_warm_reset=True,
        rule="any legal write, of the present depth too, zeroes all records",
    ),
    Register(
        "IA32_LBR_{}_FROM_IP", 0x1500, "lbr.from", "SDM vol. 4, 1500H", _arch_records, _ADDRESS,
        survives_warm_reset=True, rule="#GP if the number is not below IA32_LBR_DEPTH",
    ),
    Register(
        "IA32_LBR_{}_TO_IP", 0x1600, "lbr.to", "SDM vol. 4, 1600H", _arch_records, _ADDRESS,
        survives_warm_reset=True, rule="#GP if the number is not below IA32_LBR_DEPTH",
    ),
    Register(
        "IA32_LBR_{}_INFO", 0x1200, "lbr.info", "SDM vol. 4, 1200H; ISE v048, 8.4",
        _arch_records, _INFO, survives_warm_reset=True,
        rule="#GP if the number is not below IA32_LBR_DEPTH",
    ),
    Register(
        "IA32_LER_FROM_IP", 0x1DD, "ler.from", "SDM vol. 4, 1DDH", once(lambda m: m.arch),
        _ADDRESS, survives_warm_reset=True,
    ),
    Register(
        "IA32_LER_TO_IP", 0x1DE, "ler.to", "SDM vol. 4, 1DEH", once(lambda m: m.arch),
        _ADDRESS, survives_warm_reset=True,
    ),
    Register(
        "IA32_LER_INFO", 0x1E0, "ler.info", "SDM vol. 4, 1E0H", once(lambda m: m.arch),
        (
            Field("undefined", 55, 0, kind=FieldKind.FREE),
            Field("BR_TYPE", 59, 56, "branch class"),
            Field("undefined", 60, 60, kind=FieldKind.FREE),
            *_free_without_tsx("TSX_ABORT", 61),
            *_free_without_tsx("IN_TSX", 62),
            Field("MISPRED", 63, 63),
        ),
        survives_warm_reset=True,
    ),
)


def _select(model: CpuModel) -> bool:
    return bool(model.legacy and model.legacy.select)


def _legacy_depth(model: CpuModel) -> int:
    return model.legacy.depth if model.legacy else 0


def _has_depth(depth: int) -> Offered:
    return lambda m: _legacy_depth(m) == depth


def _pairs(model: CpuModel) -> int:
    return _legacy_depth(model) if model.legacy and model.legacy.to_base is not None else 0


def _singles(model: CpuModel) -> int:
    return _legacy_depth(model) if model.legacy and model.legacy.to_base is None else 0


def _infos(model: CpuModel) -> int:
    return _legacy_depth(model) if model.legacy and model.legacy.info_base is not None else 0


def _base(name: str) -> PerModel:
    def base(model: CpuModel) -> int:
        return int((model.legacy and getattr(model.legacy, name)) or 0)

    return base


def _info_has(bit: int) -> Offered:
    def has(model: CpuModel) -> bool:
        return bool(model.legacy and FORMATS[model.legacy.format].info >> bit & 1)

    return has


_LEGACY = (
    Register(
        "MSR_LBR_SELECT", 0x1C8, "lbr.select", "SDM vol. 3, tables 17-11 to 17-13",
        once(_select),
        (
            Field("CPL_EQ_0", 0, 0, "suppress branches that end at CPL 0"),
            Field("CPL_NEQ_0", 1, 1, "suppress branches that end at CPL 1 to 3"),
            Field("JCC", 2, 2, "suppress"),
            Field("NEAR_REL_CALL", 3, 3, "suppress"),
            Field("NEAR_IND_CALL", 4, 4, "suppress"),
            Field("NEAR_RET", 5, 5, "suppress"),
            Field("NEAR_IND_JMP", 6, 6, "suppress"),
            Field("NEAR_REL_JMP", 7, 7, "suppress"),
            Field("FAR_BRANCH", 8, 8, "suppress"),
            Field("EN_CALLSTACK", 9, 9, "call-stack mode",
                  lambda m: bool(m.legacy and m.legacy.call_stack)),
        ),
        per_core=lambda m: bool(m.legacy and m.legacy.select_scope == "core"),
    ),
    Register(
        "MSR_LASTBRANCH_TOS", _base("tos"), "lbr.tos", "SDM vol. 3, 17.4.8; vol. 4, 1C9H",
        once(lambda m: m.legacy),
        tuple(
            Field("TOS", depth.bit_length() - 2, 0, "number of the newest record",
                  _has_depth(depth))
            for depth in (4, 8, 16, 32)
        ),
        survives_warm_reset=True,
    ),
    Register(
        "MSR_LASTBRANCH_{}_FROM_IP", _base("from_base"), "lbr.from", "SDM vol. 4, 40H, 680H",
        _pairs, (Field("FROM", 63, 0, "address, and flags by LBR format"),),
        survives_warm_reset=True, rule="#GP unless the address part is canonical",
    ),
    Register(
        "MSR_LASTBRANCH_{}_TO_IP", _base("to_base"), "lbr.to", "SDM vol. 4, 60H, 6C0H",
        _pairs, (Field("TO", 63, 0, "address, and cycles in LBR format 6"),),
        survives_warm_reset=True, rule="#GP unless the address part is canonical",
    ),
    Register(
        "MSR_LASTBRANCH_{}", _base("from_base"), "lbr.single",
        "SDM vol. 4, tables of Pentium M and NetBurst", _singles,
        (Field("FROM", 31, 0), Field("TO", 63, 32)), survives_warm_reset=True,
    ),
    Register(
        "MSR_LBR_INFO_{}", _base("info_base"), "lbr.info", "SDM vol. 4, DC0H", _infos,
        (
            Field("CYC_CNT", 15, 0, "cycles since the last record, saturating"),
            Field("TSX_ABORT", 61, 61, "", _info_has(61)),
            Field("IN_TSX", 62, 62, "", _info_has(62)),
            Field("MISPRED", 63, 63),
        ),
        survives_warm_reset=True,
    ),
    Register(
        "MSR_LER_FROM_LIP", _base("ler_base"), "ler.from", "SDM vol. 4, 1DDH",
        once(lambda m: m.legacy and m.legacy.ler_base is not None), access=Access.RO,
        survives_warm_reset=True,
    ),
    Register(
        "MSR_LER_TO_LIP", lambda m: _base("ler_base")(m) + 1, "ler.to", "SDM vol. 4, 1DEH",
        once(lambda m: m.legacy and m.legacy.ler_base is not None), access=Access.RO,
        survives_warm_reset=True,
    ),
)

_AMD = (
    Register(
        "DBG_EXTN_CFG", 0xC000010F, "amd.config", "Linux events/amd/lbr.c", once(lambda m: m.amd),
        (Field("LBRV2EN", 6, 6, "recording is on"),),
    ),
    Register(
        "LBR_SELECT", 0xC000010E, "lbr.select", "Linux events/amd/lbr.c", once(lambda m: m.amd),
        (
            Field("CPL_EQ_0", 0, 0, "suppress branches that end at CPL 0"),
            Field("CPL_NEQ_0", 1, 1, "suppress branches that end at CPL 1 to 3"),
            Field("JCC", 2, 2, "suppress"),
            Field("CALL_NEAR_REL", 3, 3, "suppress"),
            Field("CALL_NEAR_IND", 4, 4, "suppress"),
            Field("RET_NEAR", 5, 5, "suppress"),
            Field("JMP_NEAR_IND", 6, 6, "suppress"),
            Field("JMP_NEAR_REL", 7, 7, "suppress"),
            Field("FAR_BRANCH", 8, 8, "suppress"),
        ),
    ),
    Register(
        "SAMP_BR_FROM_{}", 0xC0010300, "amd.from", "Linux events/amd/lbr.c",
        lambda m: m.amd.depth if m.amd else 0,
        (Field("IP", 57, 0), Field("MISPRED", 63, 63)), stride=2,
    ),
    Register(
        "SAMP_BR_TO_{}", 0xC0010301, "amd.to", "Linux events/amd/lbr.c",
        lambda m: m.amd.depth if m.amd else 0,
        (Field("IP", 57, 0), Field("RESERVED", 61, 61, "a bad entry (erratum 1452)"),
         Field("SPEC", 62, 62), Field("VALID", 63, 63)), stride=2,
    ),
)

LBR_ROWS: tuple[Register, ...] = _ARCHITECTURAL + _LEGACY + _AMD
