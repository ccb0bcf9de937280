"""x87 and SSE state in the legacy region of an XSAVE area (SDM vol. 1, table 10-2)."""

from __future__ import annotations

import struct

from unicorn import Uc
from unicorn import x86_const as reg

__all__ = ["INITIAL", "X87", "SSE", "load", "save"]

X87, SSE = 1, 2
_HEAD = struct.Struct("<HHBxHQQII")
_MXCSR_AT, _ST_AT, _XMM_AT = 24, 32, 160
_MXCSR_MASK = 0xFFFF
#: The region in its initial configuration (SDM vol. 1, 13.6).
INITIAL = _HEAD.pack(0x37F, 0, 0, 0, 0, 0, 0x1F80, _MXCSR_MASK) + bytes(512 - _HEAD.size)


def _physical(status: int, n: int) -> int:
    """The register that ST(n) is now; the binding reads only eight bytes of ST(n) itself."""
    number: int = reg.UC_X86_REG_FP0 + ((status >> 11) + n & 7)
    return number


def save(uc: Uc, region: bytearray, components: int) -> None:
    """Write x87 (bit 0) and SSE (bit 1) state into the 512 bytes of `region`."""
    if components & X87:
        tags = uc.reg_read(reg.UC_X86_REG_FPTAG)
        valid = sum(1 << n for n in range(8) if tags >> 2 * n & 3 != 3)
        status = uc.reg_read(reg.UC_X86_REG_FPSW)
        head = _HEAD.pack(
            uc.reg_read(reg.UC_X86_REG_FPCW), status, valid,
            uc.reg_read(reg.UC_X86_REG_FOP) & 0x7FF, uc.reg_read(reg.UC_X86_REG_FIP),
            uc.reg_read(reg.UC_X86_REG_FDP), 0, 0,
        )
        region[:_MXCSR_AT] = head[:_MXCSR_AT]
        for n in range(8):
            mantissa, upper = uc.reg_read(_physical(status, n))
            struct.pack_into("<QH6x", region, _ST_AT + 16 * n, mantissa, upper)
    if components & SSE:
        struct.pack_into(
            "<II", region, _MXCSR_AT, uc.reg_read(reg.UC_X86_REG_MXCSR), _MXCSR_MASK)
        for n in range(16):
            value = uc.reg_read(reg.UC_X86_REG_XMM0 + n)
            region[_XMM_AT + 16 * n:_XMM_AT + 16 * (n + 1)] = value.to_bytes(16, "little")


def load(uc: Uc, region: bytes | bytearray, components: int) -> None:
    """Load x87 and SSE state out of `region`."""
    fcw, fsw, valid, _, fip, fdp, mxcsr, _ = _HEAD.unpack_from(region)
    if components & X87:
        uc.reg_write(reg.UC_X86_REG_FPCW, fcw)
        uc.reg_write(reg.UC_X86_REG_FPSW, fsw)
        tags = sum((0 if valid >> n & 1 else 3) << 2 * n for n in range(8))
        uc.reg_write(reg.UC_X86_REG_FPTAG, tags)
        uc.reg_write(reg.UC_X86_REG_FIP, fip)
        uc.reg_write(reg.UC_X86_REG_FDP, fdp)
        for n in range(8):
            value = struct.unpack_from("<QH", region, _ST_AT + 16 * n)
            uc.reg_write(_physical(fsw, n), value)
    if components & SSE:
        uc.reg_write(reg.UC_X86_REG_MXCSR, mxcsr)
        for n in range(16):
            at = _XMM_AT + 16 * n
            uc.reg_write(
                reg.UC_X86_REG_XMM0 + n, int.from_bytes(region[at:at + 16], "little"))
