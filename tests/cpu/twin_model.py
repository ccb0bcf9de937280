"""What the models of the second processor offer, by hand from the manual's tables."""

from dataclasses import dataclass

from lbrcore import BranchClass as B
from tests.manual import (
    INFO_CYC_CNT_VALID,
    INFO_IN_TSX,
    INFO_MISPRED,
    INFO_TSX_ABORT,
    STATUS_ASCI,
    STATUS_CTR_FRZ,
    STATUS_LBR_FRZ,
)

ONES = (1 << 64) - 1
MISPRED, IN_TSX, ABORT, VALID = INFO_MISPRED, INFO_IN_TSX, INFO_TSX_ABORT, INFO_CYC_CNT_VALID
LBR_FRZ, CTR_FRZ, ASCI = STATUS_LBR_FRZ, STATUS_CTR_FRZ, STATUS_ASCI


class Fault(Exception):
    """#GP."""


class Exit(Exception):
    """VM exit with a reason."""


class EntryFails(Exception):
    """A VM entry fails with a reason, 33 or 34."""


@dataclass
class Facts:
    """What one model offers, by hand from the tables of the manual."""

    kind: str = "arch"  # "arch", "legacy", "amd"
    depths: tuple = (8, 16, 32)
    width: int = 57
    ctl: int = 0x7F000F
    cpl_filter: bool = True
    branch_filter: bool = True
    mispred: bool = True
    timed: bool = True
    typed: bool = True
    tsx: bool = True
    logging: int = 0
    depth: int = 0  # legacy
    from_base: int = 0
    to_base: int = 0
    info_base: int = 0
    select: int = 0
    fmt: int = 0
    quirk: bool = False
    nehalem: bool = False
    pmu: int = 5
    counters: int = 8
    fixed: int = 4
    pmc_width: int = 48
    fixed_width: int = 48
    vmx: bool = True
    full_width: bool = True
    debugctl: int = 0xDFC6
    evtsel: int = 0x7_FFDF_FFFF
    fixed_ctrl: int = 0x1111_0000_BBBB
    near_taken: bool = True
    pt_excludes: bool = False
    sgx: bool = True
    rtm: bool = True
    mwait: bool = True
    metrics: bool = True
    pebs: int = 0xF_0000_00FF
    adaptive: bool = True
    pt: bool = True
    xss: int = 0xDD00


SPR = Facts()
MODELS = {
    "sapphire-rapids": SPR,
    "alder-lake-e": Facts(width=48, tsx=False, rtm=False, counters=6, fixed=3, sgx=False,
                          debugctl=0x5FC6, evtsel=0x4_FFDF_FFFF, fixed_ctrl=0x111_0000_0BBB,
                          near_taken=False, metrics=False, pebs=0x7_0000_003F, xss=0x19900),
    "sierra-forest": Facts(width=57, tsx=False, rtm=False, fixed=3, logging=15,
                           debugctl=0x5FC6, evtsel=0xC_FFDF_FFFF, fixed_ctrl=0x111_0000_0BBB,
                           near_taken=False, metrics=False, pebs=0x7_0000_00FF, xss=0x1DD00),
    "skylake": Facts("legacy", width=48, depth=32, from_base=0x680, to_base=0x6C0,
                     info_base=0xDC0, select=0x3FF, fmt=5, pmu=4, counters=4, fixed=3,
                     debugctl=0xDFC3, evtsel=0x3_FFFF_FFFF, fixed_ctrl=0xFFF,
                     pt_excludes=True, metrics=False,
                     pebs=0xF, adaptive=False),
    "haswell": Facts("legacy", width=48, depth=16, from_base=0x680, to_base=0x6C0,
                     select=0x3FF, fmt=4, pmu=3, counters=4, fixed=3, debugctl=0xDFC3,
                     evtsel=0x3_FFFF_FFFF, fixed_ctrl=0xFFF, near_taken=False, sgx=False,
                     metrics=False,
                     pebs=0xF, adaptive=False, pt=False),
    "haswell-notsx": Facts("legacy", width=48, depth=16, from_base=0x680, to_base=0x6C0,
                           select=0x3FF, fmt=4, quirk=True, tsx=False, rtm=False, pmu=3,
                           counters=4, fixed=3, debugctl=0x5FC3, evtsel=0xFFFF_FFFF,
                           fixed_ctrl=0xFFF, near_taken=False, sgx=False, metrics=False,
                           pebs=0xF, adaptive=False, pt=False),
    "nehalem": Facts("legacy", width=48, depth=16, from_base=0x680, to_base=0x6C0,
                     select=0x1FF, fmt=3, nehalem=True, tsx=False, rtm=False, pmu=3,
                     counters=4, fixed=3, full_width=False, debugctl=0x7FC3,
                     evtsel=0xFFFF_FFFF, fixed_ctrl=0xFFF, near_taken=False, sgx=False,
                     metrics=False,
                     pebs=0xF, adaptive=False, pt=False),
    "goldmont": Facts("legacy", width=48, depth=32, from_base=0x680, to_base=0x6C0,
                      select=0x3FF, fmt=6, tsx=False, rtm=False, pmu=4, counters=4, fixed=3,
                      debugctl=0x5FC3, evtsel=0xFFFF_FFFF, fixed_ctrl=0xFFF, near_taken=False,
                      sgx=False, metrics=False,
                      pebs=0xF, adaptive=False),
    "goldmont-plus": Facts("legacy", width=48, depth=32, from_base=0x680, to_base=0x6C0,
                           info_base=0xDC0, select=0x3FF, fmt=7, tsx=False, rtm=False, pmu=4,
                           counters=4, fixed=3, debugctl=0x5FC3, evtsel=0xFFFF_FFFF,
                           fixed_ctrl=0xFFF, near_taken=False, metrics=False, pebs=0xF,
                           adaptive=False),
    "ice-lake": Facts("legacy", width=48, depth=32, from_base=0x680, to_base=0x6C0,
                      info_base=0xDC0, select=0x3FF, fmt=5, tsx=False, rtm=False,
                      debugctl=0x5FC3, evtsel=0x4_FFDF_FFFF),
    "knights-landing": Facts("legacy", width=48, depth=8, from_base=0x680, to_base=0x6C0,
                             select=0x1FF, fmt=3, tsx=False, rtm=False, pmu=3, counters=2,
                             fixed=3, pmc_width=40, fixed_width=40, full_width=False,
                             debugctl=0x5FC3, evtsel=0xFFFF_FFFF, fixed_ctrl=0xFFF,
                             near_taken=False, sgx=False, metrics=False, pebs=3,
                             adaptive=False, pt=False),
    "core2": Facts("legacy", width=48, depth=4, from_base=0x40, to_base=0x60, fmt=2, tsx=False,
                   rtm=False, pmu=2, counters=2, fixed=3, pmc_width=40, fixed_width=40,
                   full_width=False, debugctl=0x1FC3, evtsel=0xFFDF_FFFF, fixed_ctrl=0xBBB,
                   near_taken=False, sgx=False, metrics=False, pebs=0, adaptive=False, pt=False),
    "core-duo": Facts("legacy", width=32, depth=8, from_base=0x40, fmt=0, tsx=False, rtm=False,
                      pmu=1, counters=2, fixed=0, pmc_width=40, full_width=False,
                      debugctl=0x7C3, evtsel=0xFFDF_FFFF, fixed_ctrl=0, near_taken=False,
                      sgx=False, metrics=False, pebs=0, adaptive=False, pt=False, vmx=False),
    "zen4": Facts("amd", width=58, depth=16, select=0x1FF, tsx=False, rtm=False, pmu=2,
                  counters=6, fixed=0, debugctl=0x1803, near_taken=False, sgx=False,
                  metrics=False, pebs=0, adaptive=False, pt=False, evtsel=0x30F_FFDF_FFFF,
                  mwait=False),
}

#: IA32_LBR_CTL bit, LBR_SELECT bit and BR_TYPE of each class that can be recorded.
CLASSES = {B.COND: (16, 2, 0), B.NEAR_IND_JMP: (18, 6, 1), B.NEAR_REL_JMP: (17, 7, 2),
           B.NEAR_IND_CALL: (20, 4, 3), B.NEAR_REL_CALL: (19, 3, 4), B.NEAR_RET: (21, 5, 5)}
OTHER = {c: (22, 8, 8) for c in B if c >= 8}
#: Bits of MSR_LBR_SELECT that suppress a class on Nehalem beside its own (table 17-11).
NEHALEM_TOO = {B.NEAR_IND_CALL: 6, B.NEAR_RET: 6, B.NEAR_REL_CALL: 7}
CALLS = (B.NEAR_IND_CALL, B.NEAR_REL_CALL)


def signed(value, width):
    value &= (1 << width) - 1
    return value | ONES & ~((1 << width) - 1) if value >> (width - 1) else value
