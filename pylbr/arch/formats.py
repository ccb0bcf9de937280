"""The legacy LBR formats: what FROM, TO and INFO registers hold of a record.

A record in the core has two plain addresses and an ``info`` word in the layout of
IA32_LBR_x_INFO.  Flags that a format keeps in the top bits of FROM lie there in the same
places as in that word, which is why one mask serves both directions.
"""

from __future__ import annotations

from dataclasses import dataclass

from pylbr.arch.bits import INFO_CYC_CNT, INFO_IN_TSX, INFO_MISPRED, INFO_TSX_ABORT
from pylbr.arch.fields import ALL_ONES, sign_extend

__all__ = ["ARCH_FORMAT", "FORMATS", "LbrFormat"]

#: IA32_PERF_CAPABILITIES[5:0] of a processor with architectural LBRs.
ARCH_FORMAT = 0x3F



@dataclass(frozen=True, slots=True)
class LbrFormat:
    """One value of IA32_PERF_CAPABILITIES[5:0].

    Attributes
    ----------
    number : int
    name : str
        As Linux calls it.
    layout : str
    from_flags : int
        How many bits at the top of FROM are flags.
    to_cycles : bool
        TO[63:48] counts cycles.
    info : int
        Bits that the INFO register has; 0: no INFO register.
    single : bool
        One register holds FROM[31:0] and TO[31:0].
    effective : bool
        Addresses are effective, not linear.
    """

    number: int
    name: str
    layout: str
    from_flags: int = 0
    to_cycles: bool = False
    info: int = 0
    single: bool = False
    effective: bool = False

    @property
    def info_mask(self) -> int:
        """Bits of a record's ``info`` that the format can show."""
        flags = ALL_ONES ^ (ALL_ONES >> self.from_flags)
        return flags | (INFO_CYC_CNT if self.to_cycles else 0) | self.info

    def encode_from(self, from_: int, info: int) -> int:
        """The FROM register of a record."""
        if not self.from_flags:
            return from_
        flags = ALL_ONES ^ (ALL_ONES >> self.from_flags)
        return (info & flags) | (from_ & ~flags & ALL_ONES)

    def decode_from(self, value: int, info: int) -> tuple[int, int]:
        """FROM register and present ``info`` to address and new ``info``."""
        if not self.from_flags:
            return value, info
        flags = ALL_ONES ^ (ALL_ONES >> self.from_flags)
        address = sign_extend(value, 64 - self.from_flags)
        return address, (info & ~flags) | (value & flags)

    def encode_to(self, to: int, info: int) -> int:
        """The TO register of a record."""
        return (info & INFO_CYC_CNT) << 48 | to & ((1 << 48) - 1) if self.to_cycles else to

    def decode_to(self, value: int, info: int) -> tuple[int, int]:
        """TO register and present ``info`` to address and new ``info``."""
        if not self.to_cycles:
            return value, info
        return sign_extend(value, 48), (info & ~INFO_CYC_CNT) | value >> 48

    def encode_single(self, from_: int, to: int) -> int:
        """Both addresses in one register."""
        return from_ & 0xFFFFFFFF | (to & 0xFFFFFFFF) << 32

    def decode_single(self, value: int) -> tuple[int, int]:
        """The two addresses of the one register."""
        return value & 0xFFFFFFFF, value >> 32


#: Spec 3.4 (IA32_PERF_CAPABILITIES 345H, bits 5:0).
FORMATS: dict[int, LbrFormat] = {
    f.number: f
    for f in (
        LbrFormat(0, "32", "one register: FROM[31:0], TO in [63:32]", single=True),
        LbrFormat(1, "LIP", "64-bit linear addresses"),
        LbrFormat(2, "EIP", "64-bit effective addresses", effective=True),
        LbrFormat(3, "EIP_FLAGS", "FROM[63] MISPRED, FROM[62:0] address", from_flags=1,
                  effective=True),
        LbrFormat(4, "EIP_FLAGS2", "FROM[63] MISPRED, [62] IN_TSX, [61] TSX_ABORT, "
                  "[60:0] address", from_flags=3, effective=True),
        LbrFormat(5, "INFO", "INFO[63] MISPRED, [62] IN_TSX, [61] TSX_ABORT, [15:0] cycles",
                  info=INFO_MISPRED | INFO_IN_TSX | INFO_TSX_ABORT | INFO_CYC_CNT),
        LbrFormat(6, "TIME", "FROM[63] MISPRED; TO[63:48] cycles, TO[47:0] address",
                  from_flags=1, to_cycles=True),
        LbrFormat(7, "INFO2", "INFO[63] MISPRED, [15:0] cycles", info=INFO_MISPRED | INFO_CYC_CNT),
    )
}
