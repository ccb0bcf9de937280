"""What one processor offers of the LBR facility."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from operator import index

__all__ = [
    "CTL_ALL", "INFO_ALL", "INFO_CLASS", "MAX_DEPTH", "SELECT_ALL", "SELECT_ALL_CALL_STACK",
    "Flavour", "LbrConfig", "Quirk",
]

#: The largest depth that has MSRs and XSAVE room (SDM vol. 4; vol. 1, 13.5.12).
MAX_DEPTH = 32
#: All defined bits of IA32_LBR_CTL (SDM vol. 4, 14CEH).
CTL_ALL = 0x7F000F
#: All defined bits of MSR_LBR_SELECT but EN_CALLSTACK, and with it (SDM vol. 4, 1C8H).
SELECT_ALL = 0x1FF
SELECT_ALL_CALL_STACK = 0x3FF
#: INFO as a full architectural facility fills it in: MISPRED, IN_TSX, TSX_ABORT,
#: CYC_CNT_VALID, BR_TYPE, PMCn_CNT of four counters, CYC_CNT.
INFO_ALL = 0xFF0000FF0000FFFF
#: BranchClass, in bits that the manual leaves undefined: no part of INFO as software sees it,
#: for callers that need to distinguish the members of OTHER_BRANCH.
INFO_CLASS = 0xF << 48


class Flavour(IntEnum):
    """Which registers control the facility."""

    ARCHITECTURAL = 0  #: IA32_LBR_CTL: classes to include; entry 0 is the newest
    LEGACY = 1  #: MSR_LBR_SELECT: classes to suppress; physical index and TOS


class Quirk(IntFlag):
    """Deviations of single models."""

    #: Nehalem: NEAR_IND_JMP of MSR_LBR_SELECT suppresses indirect calls and returns, too, and
    #: NEAR_REL_JMP relative calls (SDM vol. 3, 17.8 and table 17-11).
    JMPS_INCLUDE_CALLS = 1


@dataclass(frozen=True)
class LbrConfig:
    """What one processor offers; see ``lbr_config`` in ``lbrcore.h``.

    Parameters
    ----------
    flavour : Flavour
    depth_bitmap : int
        Architectural: CPUID.1CH:EAX[7:0]; bit n offers depth 8*(n+1), up to 32.
    depth : int
        Legacy: the fixed depth, 1 to 32 and a power of two.  Architectural: 0, or the one
        depth, 1 to 32, that `depth_bitmap` then does not decide; no processor has such a
        one, an exhaustive test of the layers above does.
    linear_width : int
        MAXLINADDR in bits, 32 to 64; addresses are read sign-extended from there.
    event_counters : int
        CPUID.1CH:ECX[19:16], counters whose events a record can log.
    quirks : Quirk
    ctl_mask : int
        Bits of IA32_LBR_CTL or MSR_LBR_SELECT that may be set.
    info_mask : int
        Bits of INFO that a record fills in; `INFO_CLASS` may be among them.

    Raises
    ------
    TypeError, ValueError
        For a field that is no integer or not in its range.
    """

    flavour: int = Flavour.ARCHITECTURAL
    depth_bitmap: int = 0x0F
    depth: int = 0
    linear_width: int = 48
    event_counters: int = 0
    quirks: int = 0
    ctl_mask: int = CTL_ALL
    info_mask: int = 0xFF0000000000FFFF

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            try:
                index(getattr(self, name))
            except TypeError:
                kind = type(getattr(self, name)).__name__
                raise TypeError(f"{name}: must be an integer, not {kind}") from None
        legacy = self.flavour == Flavour.LEGACY
        checks = (
            (self.flavour in (0, 1), "flavour", "must be 0 (architectural) or 1 (legacy)"),
            (32 <= self.linear_width <= 64, "linear_width", "must be 32 to 64"),
            (0 <= self.event_counters <= 15, "event_counters", "must be a mask of four counters"),
            (0 <= self.quirks <= 1, "quirks", "must be Quirk values"),
            (0 <= self.info_mask < 1 << 64, "info_mask", "must fit in 64 bits"),
            (self.ctl_mask >= 0 and not self.ctl_mask & ~(
                SELECT_ALL_CALL_STACK if legacy else CTL_ALL
            ), "ctl_mask", "has bits that the register does not have"),
            (0 <= self.depth <= MAX_DEPTH, "depth", f"must be 0 to {MAX_DEPTH}"),
            (not legacy or (self.depth and not self.depth & (self.depth - 1)), "depth",
             "must be a power of two in the legacy flavour"),
            (not legacy or 0 <= self.depth_bitmap <= 0xFF, "depth_bitmap", "must fit in 8 bits"),
            (legacy or 1 <= self.depth_bitmap <= 0xF or self.depth and not self.depth_bitmap >> 8,
             "depth_bitmap", "must offer a depth, and none above 32: no MSR or XSAVE room exists"),
        )
        for valid, name, rule in checks:
            if not valid:
                raise ValueError(f"{name}: {rule}, not {getattr(self, name):#x}")

    @classmethod
    def legacy(
        cls, depth: int, *, select_mask: int = SELECT_ALL_CALL_STACK,
        info_mask: int = 0xE00000000000FFFF, linear_width: int = 48, quirks: int = 0,
    ) -> LbrConfig:
        """A legacy facility of `depth` registers."""
        return cls(
            flavour=Flavour.LEGACY, depth_bitmap=0, depth=depth, ctl_mask=select_mask,
            info_mask=info_mask, linear_width=linear_width, quirks=quirks,
        )

    @property
    def depths(self) -> tuple[int, ...]:
        """The depths that can be set, ascending."""
        if self.depth:
            return (self.depth,)
        return tuple(8 * (n + 1) for n in range(4) if self.depth_bitmap >> n & 1)

    @property
    def max_depth(self) -> int:
        """The largest depth that can be set."""
        return max(self.depths)
