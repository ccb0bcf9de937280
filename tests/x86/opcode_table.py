"""Makes `pylbr/x86/opcodes.h` out of the opcode list of iced-x86.

``python -m tests.x86.opcode_table > pylbr/x86/opcodes.h``; a test holds that the file is what
this prints.  The decoder's other judges are independent of the list.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from iced_x86 import (
    Code,
    DecoderOptions,
    EncodingKind,
    MandatoryPrefix,
    OpCodeInfo,
    OpCodeOperandKind,
    OpCodeTableKind,
)

LEGACY, VEX, EVEX = "legacy", "vex", "evex"
MAPS = {
    LEGACY: (OpCodeTableKind.NORMAL, OpCodeTableKind.T0F, OpCodeTableKind.T0F38,
             OpCodeTableKind.T0F3A),
    VEX: (OpCodeTableKind.T0F, OpCodeTableKind.T0F38, OpCodeTableKind.T0F3A),
    EVEX: (OpCodeTableKind.T0F, OpCodeTableKind.T0F38, OpCodeTableKind.T0F3A,
           OpCodeTableKind.MAP5, OpCodeTableKind.MAP6),
}
ENCODINGS = {
    EncodingKind.LEGACY: LEGACY, EncodingKind.VEX: VEX, EncodingKind.EVEX: EVEX,
}
PREFIXES = (MandatoryPrefix.PNP, MandatoryPrefix.P66, MandatoryPrefix.PF3, MandatoryPrefix.PF2)

# Kinds of immediate, and the bits of a form; opcodes.h repeats the names.
IMMEDIATES = ("NONE", "1", "2", "3", "Z", "V", "MOFFS")
BITS = (
    "VALID", "MODRM", "LOCK", "REG_GPR", "RM_GPR", "OPCODE_GPR", "VECTOR", "X87", "VVVV",
    "SIB", "GATHER", "REG_LOW", "RM_LOW", "VVVV_LOW", "BROADCAST", "ROUND", "MASK",
    "MASK_NEEDED", "ZEROING",
)
BIT = {name: 1 << (4 + i) for i, name in enumerate(BITS)}

_KINDS = {
    value: name for name, value in vars(OpCodeOperandKind).items() if isinstance(value, int)
}
_CODES = {value: name for name, value in vars(Code).items() if isinstance(value, int)}
_OPTIONS = (DecoderOptions.NONE, DecoderOptions.MPX)
# FEMMS and 3DNow!, PadLock, and UD1 and UD0, which not every decoder gives a ModRM.
_LEFT_OUT_0F = {0x0E, 0x0F, 0xA6, 0xA7, 0xB9, 0xFF}


@dataclass(frozen=True)
class Form:
    """What follows an opcode of one ModRM.reg, with memory or with a register operand."""

    bits: int = 0
    rm: int = 0    # values of ModRM.rm in the register form
    wl: int = 0    # values of W << 2 | L (VEX, EVEX)


def _immediate(kinds: set[str]) -> str:
    """Kind of immediate, of the operand kinds in all operand sizes."""
    if "MEM_OFFS" in kinds:
        return "MOFFS"
    if "IMM64" in kinds:
        return "V"
    if kinds & {"IMM32", "IMM32SEX64", "XBEGIN_4", "BR64_4", "BR32_4"}:
        return "Z"
    if kinds & {"IMM8", "IMM8SEX16", "IMM8SEX32", "IMM8SEX64", "BR64_1", "BR32_1",
                "XMM_IS4", "YMM_IS4", "XMM_IS5", "YMM_IS5"}:
        return "1"
    return "2" if "IMM16" in kinds else "NONE"


def _bits(infos: list[OpCodeInfo], register: bool) -> int:
    operands = [
        [_KINDS[info.op_kind(i)] for i in range(info.op_count)] for info in infos
    ]
    kinds = {kind for row in operands for kind in row}
    immediate = _immediate(kinds)
    eights = max(row.count("IMM8") for row in operands)
    if immediate == "1" and eights == 2:
        immediate = "2"
    if "IMM16" in kinds and "IMM8" in kinds and any(
        "IMM16" in row and "IMM8" in row for row in operands
    ):
        immediate = "3"  # ENTER
    bits = IMMEDIATES.index(immediate) | BIT["VALID"]

    def have(*parts: str) -> bool:
        return any(kind.startswith(part) for kind in kinds for part in parts)

    general = ("R8", "R16", "R32", "R64")
    if any(kind.startswith(general) and kind.endswith(("_REG", "_REG_MEM")) for kind in kinds):
        bits |= BIT["REG_GPR"]
    if register and any(
        kind.startswith(general) and "_OR_MEM" in kind or kind in
        ("R16_RM", "R32_RM", "R64_RM") for kind in kinds
    ):
        bits |= BIT["RM_GPR"]
    if any(kind.startswith(general) and kind.endswith("_OPCODE") for kind in kinds):
        bits |= BIT["OPCODE_GPR"]
    if have("XMM", "YMM", "ZMM", "MM_", "K_", "KP1", "TMM", "MEM_VSIB", "SIBMEM") or (
        not kinds and infos[0].encoding == EncodingKind.VEX  # VZEROUPPER, TILERELEASE
    ):
        bits |= BIT["VECTOR"]
    if have("ST0", "STI"):
        bits |= BIT["X87"]
    if any("VVVV" in kind for kind in kinds):
        bits |= BIT["VVVV"]
    if have("MEM_VSIB", "SIBMEM"):
        bits |= BIT["SIB"]
    if have("MEM_VSIB"):
        bits |= BIT["GATHER"]
    for name, low in (  # eight registers are there: masks and tiles
        ("REG_LOW", {"K_REG", "KP1_REG", "TMM_REG"}), ("VVVV_LOW", {"K_VVVV", "TMM_VVVV"}),
        ("RM_LOW", {"TMM_RM"}),
    ):
        if kinds & low:
            bits |= BIT[name]
    flags = {
        "LOCK": any(info.can_use_lock_prefix for info in infos),
        "BROADCAST": any(info.can_broadcast for info in infos),
        "ROUND": any(
            info.can_use_rounding_control or info.can_suppress_all_exceptions for info in infos
        ),
        "MASK": any(info.can_use_op_mask_register for info in infos),
        "MASK_NEEDED": any(info.require_op_mask_register for info in infos),
        "ZEROING": any(info.can_use_zeroing_masking for info in infos),
    }
    if not register and any("MEM" in row[0] for row in operands if row):
        flags["ZEROING"] = False  # a store has no zeroing
    return bits | sum(BIT[name] for name, on in flags.items() if on)


def _takes_memory(info: OpCodeInfo) -> bool:
    return any(
        "MEM" in kind and kind not in ("MEM_OFFS",)
        for kind in (_KINDS[info.op_kind(i)] for i in range(info.op_count))
    ) or info.is_reserved_nop


def _takes_register(info: OpCodeInfo) -> bool:
    kinds = [_KINDS[info.op_kind(i)] for i in range(info.op_count)]
    only_memory = any(
        kind in ("MEM", "MEM_MPX", "MEM_MIB", "SIBMEM") or kind.startswith("MEM_VSIB")
        for kind in kinds
    )
    return not only_memory or info.ignores_mod_bits


def _has_modrm(info: OpCodeInfo) -> bool:
    kinds = [_KINDS[info.op_kind(i)] for i in range(info.op_count)]
    return info.is_group or info.is_rm_group or any(
        kind.endswith(("_REG", "_RM", "_REG_MEM")) or "_OR_MEM" in kind or
        kind in ("MEM", "MEM_MPX", "MEM_MIB", "SIBMEM", "STI_OPCODE") or "VSIB" in kind
        for kind in kinds
    ) and "STI_OPCODE" not in kinds


def _wl(info: OpCodeInfo) -> int:
    ws = (0, 1) if info.is_wig or info.is_wig32 else (info.w,)
    lengths = range(3) if info.is_lig else (info.l,)
    return sum(1 << (w << 2 | length) for w in ws for length in lengths)


def _slots(info: OpCodeInfo) -> list[tuple[int, int, int]]:
    """(form, ModRM.reg, mask of ModRM.rm): form 0 is memory, 1 a register."""
    if info.op_code_len == 2:  # opcode and a whole ModRM, such as 0F 01 D0 or D9 C0+i
        modrm = info.op_code & 0xFF
        mask = 0xFF if any(
            _KINDS[info.op_kind(i)] == "STI_OPCODE" for i in range(info.op_count)
        ) else 1 << (modrm & 7)
        return [(1, modrm >> 3 & 7, mask)]
    regs = [info.group_index] if info.is_group else range(8)
    slots = []
    for reg in regs:
        if info.is_rm_group:
            slots.append((1, reg, 1 << info.rm_group_index))
            continue
        if _takes_memory(info):
            slots.append((0, reg, 0))
        if _takes_register(info):
            slots.append((1, reg, 0xFF))
    return slots


def _rows() -> dict[tuple[str, int, int, int], list[OpCodeInfo]]:
    """Instructions by encoding, map, mandatory prefix (-1: none asked) and opcode."""
    rows = defaultdict(list)
    for value in sorted(_CODES):
        info = OpCodeInfo(value)
        if not info.is_instruction or not info.mode64 or info.fwait:
            continue
        if info.decoder_option not in _OPTIONS or info.encoding not in ENCODINGS:
            continue
        encoding = ENCODINGS[info.encoding]
        table = MAPS[encoding].index(info.table)
        long = info.op_code_len == 2
        opcode = info.op_code >> 8 if long else info.op_code
        if encoding == LEGACY and table == 1 and opcode in _LEFT_OUT_0F:
            continue
        prefix = info.mandatory_prefix
        if prefix == MandatoryPrefix.NONE:
            which = (-1,) if encoding == LEGACY else (0,)
        else:
            which = (PREFIXES.index(prefix),)
        low = any(_KINDS[info.op_kind(i)].endswith("_OPCODE") and
                  _KINDS[info.op_kind(i)] != "STI_OPCODE" for i in range(info.op_count))
        for number in range(opcode, opcode + 8) if low else (opcode,):
            for pp in which:
                rows[encoding, table, pp, number].append(info)
    return rows


def _cell(
    own: list[OpCodeInfo], common: list[OpCodeInfo], encoding: str
) -> tuple[Form, ...]:
    """Sixteen forms: eight ModRM.reg with memory, then with a register.

    What `own` has, which ask for the prefix, is not what `common` have, which ask for none.
    """
    found, taken = defaultdict(list), defaultdict(int)
    for info in own + common:
        if not _has_modrm(info) and info.op_code_len == 1:
            infos = own or common
            wl = 0
            for each in infos if encoding != LEGACY else ():
                wl |= _wl(each)
            return (Form(_bits(infos, False), 0, wl),) * 16
        for kind, reg, rm in _slots(info):
            slot = kind * 8 + reg
            if info in own:
                taken[slot] |= rm if kind else 0xFF
            elif taken[slot] == 0xFF or kind and not rm & ~taken[slot]:
                continue
            found[slot].append((info, rm))
    forms = []
    for slot in range(16):
        here = found.get(slot)
        if not here:
            forms.append(Form(BIT["MODRM"]))
            continue
        bits = _bits([info for info, _ in here], slot >= 8) | BIT["MODRM"]
        rm = wl = 0
        for info, mask in here:
            rm |= mask
            if encoding != LEGACY:
                wl |= _wl(info)
        forms.append(Form(bits, rm, wl))
    return tuple(forms)


def cells() -> dict[str, list[list[list[tuple[Form, ...] | None]]]]:
    """Cells by encoding, map, prefix and opcode."""
    rows = _rows()
    tables = {}
    for encoding, maps in MAPS.items():
        tables[encoding] = [
            [[None] * 256 for _ in range(4)] for _ in maps
        ]
        for table in range(len(maps)):
            for opcode in range(256):
                for pp in range(4):
                    # In the maps of three bytes F2 and F3 are part of the opcode.
                    alone = encoding == LEGACY and table >= 2 and pp >= 2
                    common = [] if alone else rows.get((encoding, table, -1, opcode), [])
                    own = rows.get((encoding, table, pp, opcode), [])
                    if not own and not common:
                        continue
                    tables[encoding][table][pp][opcode] = _cell(own, common, encoding)
    return tables


_HEAD = """\
/* Opcodes of 64-bit mode: what follows each.  Printed by tests/x86/opcode_table.py.
 *
 * x86_<encoding>_opcodes[map][prefix][opcode] is a row of x86_<encoding>_cells, 0 for an opcode
 * that is undefined or left out; its columns are ModRM.reg with memory, then with a register;
 * each names a form.  Prefix: 0 none, 1 66, 2 F3, 3 F2.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef PYLBR_X86_OPCODES_H
#define PYLBR_X86_OPCODES_H

#include <stdint.h>

struct x86_form {
    uint32_t bits; /* X86_FORM_*; the low four are the kind of immediate, X86_IMM_* */
    uint8_t rm;    /* values of ModRM.rm that are defined, in the register form */
    uint8_t wl;    /* VEX, EVEX: values of W << 2 | L that are defined */
};
"""


def _numbers(values: list[int]) -> list[str]:
    return [
        "    " + ",".join(str(v) for v in values[i:i + 32]) + ","
        for i in range(0, len(values), 32)
    ]


def header() -> str:
    """Text of `pylbr/x86/opcodes.h`."""
    lines = [_HEAD, "enum {"]
    lines += [f"    X86_IMM_{name} = {i}," for i, name in enumerate(IMMEDIATES)]
    lines += [f"    X86_FORM_{name} = 1 << {bit.bit_length() - 1}," for name, bit in BIT.items()]
    lines.append("};")
    for encoding, maps in cells().items():
        known: dict[tuple[Form, ...] | None, int] = {None: 0}
        forms: dict[Form, int] = {Form(): 0}
        opcodes = [
            [[known.setdefault(cell, len(known)) for cell in prefix] for prefix in table]
            for table in maps
        ]
        rows = [
            [forms.setdefault(form, len(forms)) for form in cell or (Form(),) * 16]
            for cell in known
        ]
        assert len(known) <= 256 and len(forms) <= 256
        lines += ["", f"static const struct x86_form x86_{encoding}_forms[{len(forms)}] = {{"]
        lines += [f"    {{{f.bits:#x}, {f.rm:#x}, {f.wl:#x}}}," for f in forms]
        lines += ["};", "", f"static const uint8_t x86_{encoding}_cells[{len(rows)}][16] = {{"]
        lines += ["    {" + ",".join(map(str, row)) + "}," for row in rows]
        lines += ["};", ""]
        lines.append(f"static const uint8_t x86_{encoding}_opcodes[{len(opcodes)}][4][256] = {{")
        for table in opcodes:
            lines.append("    {")
            for prefix in table:
                lines += ["    {", *_numbers(prefix), "    },"] if any(prefix) else ["    {0},"]
            lines.append("    },")
        lines.append("};")
    return "\n".join([*lines, "", "#endif"])


if __name__ == "__main__":
    print(header())
