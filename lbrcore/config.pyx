"""What one processor offers of the LBR facility."""

from dataclasses import dataclass
from enum import IntEnum

from lbrcore.buffers cimport unsigned
from lbrcore.lbr cimport (
    LBR_ARCHITECTURAL, LBR_LEGACY, LBR_MAX_DEPTH, LBR_QUIRK_CALLS_NEED_JMPS, lbr_max_depth,
)
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset


class Flavour(IntEnum):
    """Which registers control the facility."""

    ARCHITECTURAL = LBR_ARCHITECTURAL
    LEGACY = LBR_LEGACY


class Quirk(IntEnum):
    """Deviations of single models, to be or-ed."""

    CALLS_NEED_JMPS = LBR_QUIRK_CALLS_NEED_JMPS


#: All defined bits of IA32_LBR_CTL (SDM vol. 4, 14CEH).
CTL_ALL = 0x7F000F
#: All defined bits of MSR_LBR_SELECT but EN_CALLSTACK, and with it (SDM vol. 4, 1C8H).
SELECT_ALL = 0x1FF
SELECT_ALL_CALL_STACK = 0x3FF
#: INFO as a full architectural facility fills it in: MISPRED, IN_TSX, TSX_ABORT,
#: CYC_CNT_VALID, BR_TYPE, PMCn_CNT of four counters, CYC_CNT.
INFO_ALL = 0xFF0000FF0000FFFF


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
    quirks : int
        `Quirk` values.
    ctl_mask : int
        Bits of IA32_LBR_CTL or MSR_LBR_SELECT that may be set.
    info_mask : int
        Bits of INFO that a record fills in.
    """

    flavour: int = Flavour.ARCHITECTURAL
    depth_bitmap: int = 0x0F
    depth: int = 0
    linear_width: int = 48
    event_counters: int = 0
    quirks: int = 0
    ctl_mask: int = CTL_ALL
    info_mask: int = 0xFF0000000000FFFF

    def __post_init__(self):
        config_from(self)

    @classmethod
    def legacy(cls, depth, *, select_mask=SELECT_ALL_CALL_STACK, info_mask=0xE00000000000FFFF,
               linear_width=48, quirks=0):
        """A legacy facility of `depth` registers."""
        return cls(flavour=Flavour.LEGACY, depth_bitmap=0, depth=depth, ctl_mask=select_mask,
                   info_mask=info_mask, linear_width=linear_width, quirks=quirks)

    @property
    def depths(self):
        """The depths that can be set, ascending."""
        if self.depth:
            return (self.depth,)
        return tuple(8 * (n + 1) for n in range(8) if (self.depth_bitmap >> n) & 1)

    @property
    def max_depth(self):
        """The largest depth that can be set."""
        return self.depths[-1]


cdef lbr_config config_from(object config) except *:
    """Check a LbrConfig and make the C structure of it."""
    cdef lbr_config c
    memset(&c, 0, sizeof(c))
    if not isinstance(config, LbrConfig):
        raise TypeError(f"config: must be a LbrConfig, not {type(config).__name__}")
    c.flavour = <uint8_t> unsigned(config.flavour, "flavour", LBR_LEGACY)
    c.depth_bitmap = <uint8_t> unsigned(config.depth_bitmap, "depth_bitmap", 0xFF)
    c.depth = <uint8_t> unsigned(config.depth, "depth", 0xFF)
    c.linear_width = <uint8_t> unsigned(config.linear_width, "linear_width", 64)
    c.event_counters = <uint8_t> unsigned(config.event_counters, "event_counters", 15)
    c.quirks = <uint8_t> unsigned(config.quirks, "quirks", LBR_QUIRK_CALLS_NEED_JMPS)
    c.ctl_mask = unsigned(config.ctl_mask, "ctl_mask", <uint64_t> -1)
    c.info_mask = unsigned(config.info_mask, "info_mask", <uint64_t> -1)
    if c.linear_width < 32:
        raise ValueError(f"linear_width: must be 32 to 64, not {c.linear_width}")
    if c.flavour == LBR_LEGACY:
        if not 1 <= c.depth <= LBR_MAX_DEPTH or c.depth & (c.depth - 1):
            raise ValueError(f"depth: must be a power of two up to 32, not {c.depth}")
        if c.ctl_mask & ~<uint64_t> 0x3FF:
            raise ValueError(f"ctl_mask: MSR_LBR_SELECT has no bits {c.ctl_mask & ~<uint64_t> 0x3FF:#x}")
    else:
        if not 1 <= lbr_max_depth(&c) <= LBR_MAX_DEPTH:
            raise ValueError(
                f"depth_bitmap: {c.depth_bitmap:#x} must offer a depth, and none above 32: "
                "no MSR or XSAVE room exists for more")
        if c.ctl_mask & ~<uint64_t> 0x7F000F:
            raise ValueError(f"ctl_mask: IA32_LBR_CTL has no bits {c.ctl_mask & ~<uint64_t> 0x7F000F:#x}")
    return c
