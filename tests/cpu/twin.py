"""A second processor, slow and obvious, written from the manual's rules and not from the code.

It shares nothing with ``pylbr`` but the numbers of `BranchClass`.  Registers are `if` chains,
the record stack is a Python list, counters step branch by branch.
"""

from dataclasses import dataclass, field

from lbrcore import BranchClass as B
from tests.manual import (
    DBG_EXTN_CFG,
    IA32_A_PMC0,
    IA32_DEBUGCTL,
    IA32_DS_AREA,
    IA32_FIXED_CTR0,
    IA32_FIXED_CTR_CTRL,
    IA32_LBR_0_FROM_IP,
    IA32_LBR_0_INFO,
    IA32_LBR_0_TO_IP,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_LER_FROM_IP,
    IA32_LER_INFO,
    IA32_LER_TO_IP,
    IA32_PEBS_ENABLE,
    IA32_PERF_GLOBAL_CTRL,
    IA32_PERF_GLOBAL_INUSE,
    IA32_PERF_GLOBAL_STATUS,
    IA32_PERF_GLOBAL_STATUS_RESET,
    IA32_PERF_GLOBAL_STATUS_SET,
    IA32_PERFEVTSEL0,
    IA32_PMC0,
    IA32_RTIT_CTL,
    IA32_XSS,
    INFO_CYC_CNT_VALID,
    INFO_IN_TSX,
    INFO_MISPRED,
    INFO_TSX_ABORT,
    LBR_SELECT,
    MSR_LASTBRANCH_TOS,
    MSR_LBR_SELECT,
    MSR_PEBS_DATA_CFG,
    PERF_CNTR_GLOBAL_CTL,
    PERF_CNTR_GLOBAL_STATUS,
    PERF_CNTR_GLOBAL_STATUS_CLR,
    PERF_CTL0,
    SAMP_BR_FROM_0,
    SAMP_BR_TO_0,
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


@dataclass
class Twin:
    facts: Facts
    on_pmi: object = None
    on_pebs: object = None
    values: dict = field(default_factory=dict)

    def __post_init__(self):
        self.reset("cold")

    # ------------------------------------------------------------ life

    def reset(self, kind, in_c6=False):
        f = self.facts
        if kind == "cold" or in_c6 or f.kind == "amd":
            self.depth = max(f.depths) if f.kind == "arch" else f.depth
            self.stack = [(0, 0, 0)] * self.depth  # newest first
            self.tos = self.ctl = 0
            self.ler = (0, 0, 0)
            self.xinuse = False
            self.cycles, self.events = None, [0] * 4
        elif f.kind == "arch":
            self.ctl &= ~1
        else:
            self.ctl = 0
        self.amd_on = False
        self.debugctl = self.status = self.fixed_ctrl = self.xss = self.pt = 0
        self.pebs_enable = self.pebs_cfg = self.ds_area = 0
        self.pmc, self.evtsel = [0] * f.counters, [0] * f.counters
        self.fixed = [0] * f.fixed
        self.global_ctrl = (1 << f.counters) - 1 if f.pmu >= 2 else 0
        self.smm = self.smm_saved = None
        self.in_tsx, self.enclave, self.entered = False, "", 0
        self.vmcs = None
        self.was_on = self.on()

    def on(self):
        f = self.facts
        if self.status & LBR_FRZ or self.enclave == "out" or (f.pt_excludes and self.pt & 1):
            return False
        if f.kind == "arch":
            return bool(self.ctl & 1)
        return self.amd_on if f.kind == "amd" else bool(self.debugctl & 1)

    def settle(self):
        """When recording starts again there is nothing to count cycles from."""
        if self.on() and not self.was_on:
            self.cycles, self.events = None, [0] * 4
        self.was_on = self.on()
        logged = self.logging()
        self.events = [n if logged >> k & 1 else 0 for k, n in enumerate(self.events)]

    # ------------------------------------------------------------ recording

    def passes(self, cls, cpl_from, cpl_to):
        """(recorded, FROM hidden)"""
        f = self.facts
        row = CLASSES.get(cls) or OTHER.get(cls)
        if row is None:
            return False, False
        if f.kind == "arch":
            if f.branch_filter and not self.ctl >> row[0] & 1:
                return False, False
            if not f.cpl_filter:
                return True, False
            ring = {True: self.ctl >> 2 & 1, False: self.ctl >> 1 & 1}
            return bool(ring[cpl_to > 0]), not ring[cpl_from > 0]
        if self.ctl >> row[1] & 1 or self.ctl >> (1 if cpl_to > 0 else 0) & 1:
            return False, False
        return not (f.nehalem and self.ctl >> NEHALEM_TOO.get(cls, 63) & 1), False

    def record(self, cls, from_, to, flags, cycles, cpl_from, cpl_to, events):
        f = self.facts
        if not self.on():
            return
        if cls in (B.INTERRUPT, B.EXCEPTION, B.SOFT_INT) and self.stack[0][:2] != (0, 0):
            one = self.stack[0]
            self.ler = (one[0], one[1], one[2] & (7 << 61 | 15 << 56))
        if self.cycles is not None:
            self.cycles += cycles
        since = cycles if self.cycles is None else self.cycles
        logged = self.logging()
        for n in range(4):
            if logged >> n & 1:
                self.events[n] = min(3, self.events[n] + events[n])
        recorded, hidden = self.passes(cls, cpl_from, cpl_to)
        call_stack = self.ctl >> (3 if f.kind == "arch" else 9) & 1
        if call_stack and cls == B.NEAR_RET and recorded:
            self.stack = self.stack[1:] + [(0, 0, 0)]
            self.tos = (self.tos - 1) % self.depth
            if self.cycles is None:
                self.pending(since)
            return
        if not recorded or (call_stack and cls not in CALLS):
            if self.cycles is None:
                self.pending(since)
            return
        info = 0
        if f.kind == "arch":
            info = (flags >> 2 & 1 and f.mispred and MISPRED) | (
                f.typed and (CLASSES.get(cls) or OTHER.get(cls))[2] << 56)
            if f.tsx:
                info |= (flags & 3) << 61
            if f.timed and self.cycles is not None:
                info |= VALID | min(since, 0xFFFF)
            for n in range(4):
                if f.logging >> n & 1:
                    info |= self.events[n] << (32 + 2 * n)
        elif f.kind == "amd":
            info = (flags >> 2 & 1) * MISPRED
        else:
            if f.fmt >= 3:
                info |= (flags >> 2 & 1) * MISPRED
            if f.fmt in (4, 5) and f.tsx:
                info |= (flags & 3) << 61
            if f.fmt >= 5 and self.cycles is not None:
                info |= min(since, 0xFFFF)
        self.cycles, self.events = 0, [0] * 4
        self.stack = [(ONES if hidden else from_, to, info)] + self.stack[:-1]
        self.tos = (self.tos + 1) % self.depth

    def pending(self, since):
        """Before the first record cycles have no meaning."""

    # ------------------------------------------------------------ PMU

    def enabled(self):
        """(bit, event, user, kernel, in_tx) of the counters that count."""
        f = self.facts
        if self.stopped():
            return
        for n, s in enumerate(self.evtsel):
            condition = s & (1 << 18 | 1 << 23 | 0xFF << 24)  # edge, INV, CMASK
            if s >> 22 & 1 and (f.pmu < 2 or self.global_ctrl >> n & 1) and not condition:
                if s >> 33 & 1 and f.kind != "amd":
                    continue
                if f.kind == "amd" and s >> 32 & 15:
                    continue
                yield n, s & 0xFFFF, s >> 16 & 1, s >> 17 & 1, f.kind != "amd" and s >> 32 & 1
        for n in range(min(2, f.fixed)):
            if self.global_ctrl >> (32 + n) & 1 and self.fixed_ctrl >> 4 * n & 3:
                yield (32 + n, ("instructions", "cycles")[n], self.fixed_ctrl >> (4 * n + 1) & 1,
                       self.fixed_ctrl >> 4 * n & 1, 0)

    def amount(self, what, cls, flags, instructions, cycles):
        retires = cls not in (B.INTERRUPT, B.EXCEPTION, B.TSX_ABORT)
        far = cls >= 8
        if self.facts.kind == "amd":
            what = {0x76: "cycles", 0xC0: "instructions", 0xC2: 0xC4, 0xC3: 0xC5,
                    0xC4: "taken"}.get(what)
        if what in ("cycles", 0x3C):
            return cycles
        if what in ("instructions", 0xC0):
            return instructions
        if what == 0xC4:
            return int(retires)
        if what == 0xC5:
            return int(retires and flags >> 2 & 1)
        if what == "taken":
            return int(retires and cls != B.NOT_TAKEN)
        if what == 0x20C4 and self.facts.near_taken:
            return int(retires and cls != B.NOT_TAKEN and not far)
        return None

    def stopped(self):
        return bool(self.status & CTR_FRZ) or self.enclave == "out" or self.smm_saved is not None

    def logging(self):
        if self.stopped():
            return 0
        return sum(1 << n for n in range(4) if self.facts.logging >> n & 1
                   and self.evtsel[n] >> 35 & 1 and self.evtsel[n] >> 22 & 1
                   and self.global_ctrl >> n & 1)

    def retire(self, cls, from_, to, flags=0, cycles=0, instructions=1, cpl_from=3, cpl_to=3,
               events=(0, 0, 0, 0)):
        if self.in_tsx:
            flags |= 2
        adds, events = {}, list(events)
        for bit, what, user, kernel, in_tx in self.enabled():
            n = self.amount(what, cls, flags, instructions, cycles)
            if n is None or not (user or kernel):
                continue
            if not (user if cpl_from > 0 else kernel) or (in_tx and not flags & 2):
                n = 0
            adds[bit] = n
            if bit < 4 and self.logging() >> bit & 1:
                events[bit] = min(n, 3)
        self.record(cls, from_, to, flags, cycles, cpl_from, cpl_to, events)
        self.overflow(self.add(adds), to)

    def idle(self, instructions, cycles, cpl, ip):
        """Instructions and time without a branch."""
        adds = {}
        for bit, what, user, kernel, in_tx in self.enabled():
            if (user if cpl else kernel) and not in_tx:
                # An interrupt is no instruction: of the branch events none counts it.
                adds[bit] = self.amount(what, B.INTERRUPT, 0, instructions, cycles) or 0
        if self.on() and self.cycles is not None:
            self.cycles += cycles
        self.overflow(self.add(adds), ip)

    def add(self, adds):
        over = 0
        for bit, n in adds.items():
            bank, i = (self.pmc, bit) if bit < 32 else (self.fixed, bit - 32)
            width = self.facts.pmc_width if bit < 32 else self.facts.fixed_width
            bank[i] += n
            if bank[i] >> width:
                bank[i] -= 1 << width
                over |= 1 << bit
        return over

    def overflow(self, over, ip):
        for bit in range(36):
            if over & self.pebs_enable & 1 << bit:
                over &= ~(1 << bit)
                wants = (self.evtsel[bit] >> 34 & 1 if bit < 32
                         else self.fixed_ctrl >> (32 + 4 * (bit - 32)) & 1)
                group = None
                if self.facts.adaptive and self.pebs_cfg >> 3 & 1 and wants:
                    n = (self.pebs_cfg >> 24) + 1
                    shown = [tuple(self.shown(one, part) for part in range(3))
                             for one in self.stack]
                    group = (shown + [(0, 0, 0)] * n)[:n]
                reload = self.on_pebs(bit, ip, group)
                if reload is not None:
                    bank, i, width = ((self.pmc, bit, self.facts.pmc_width) if bit < 32 else
                                      (self.fixed, bit - 32, self.facts.fixed_width))
                    bank[i] = reload % (1 << width)
        self.status |= over if self.facts.pmu >= 2 else 0
        wants = any(over >> n & 1 and self.evtsel[n] >> 20 & 1 for n in range(self.facts.counters))
        wants |= any(over >> (32 + n) & 1 and self.fixed_ctrl >> (4 * n + 3) & 1
                     for n in range(self.facts.fixed))
        if wants:
            self.pmi()

    def pmi(self):
        new = self.facts.pmu >= 4 or self.facts.kind == "amd"
        if self.debugctl >> 11 & 1:
            if new:
                self.status |= LBR_FRZ
            else:
                self.debugctl &= ~1
        if self.debugctl >> 12 & 1:
            if new:
                self.status |= CTR_FRZ
            else:
                self.global_ctrl = 0
        self.settle()
        if self.on_pmi:
            self.on_pmi(self)

    # ------------------------------------------------------------ MSRs

    def status_mask(self):
        f = self.facts
        mask = (1 << f.counters) - 1 | ((1 << f.fixed) - 1) << 32
        if f.kind == "amd":
            return mask | LBR_FRZ | CTR_FRZ
        mask |= 1 << 63 | 1 << 62 | (1 << 61 if f.pmu >= 3 else 0)
        mask |= LBR_FRZ | CTR_FRZ if f.pmu >= 4 else 0
        mask |= ASCI if f.sgx and f.pmu >= 4 else 0
        mask |= (1 << 55 if f.pt else 0) | (1 << 48 if f.metrics else 0)
        return mask

    def global_mask(self):
        f = self.facts
        return ((1 << f.counters) - 1 | ((1 << f.fixed) - 1) << 32
                | (1 << 48 if f.metrics else 0))

    def newest_index(self, physical):
        return (self.tos - physical) % self.depth

    def shut(self):
        return self.facts.pt_excludes and self.pt & 1

    def rdmsr(self, i):
        if self.vmcs and self.smm is None and i in self.vmcs["read exits"]:
            raise Exit(31)
        return self.read(i)

    def read(self, i):
        f = self.facts
        value = self.read_records(i)
        if value is not None:
            return value
        if i == IA32_DEBUGCTL:
            return self.debugctl
        if f.kind == "amd":
            return self.read_amd(i)
        if IA32_PMC0 <= i < IA32_PMC0 + f.counters:
            return self.pmc[i - IA32_PMC0]
        if f.full_width and IA32_A_PMC0 <= i < IA32_A_PMC0 + f.counters:
            return self.pmc[i - IA32_A_PMC0]
        if IA32_PERFEVTSEL0 <= i < IA32_PERFEVTSEL0 + f.counters:
            return self.evtsel[i - IA32_PERFEVTSEL0]
        if IA32_FIXED_CTR0 <= i < IA32_FIXED_CTR0 + f.fixed:
            return self.fixed[i - IA32_FIXED_CTR0]
        simple = {}
        if f.pmu >= 2:
            simple = {IA32_FIXED_CTR_CTRL: self.fixed_ctrl, IA32_PERF_GLOBAL_STATUS: self.status,
                      IA32_PERF_GLOBAL_CTRL: self.global_ctrl,
                      IA32_PERF_GLOBAL_STATUS_RESET: 0}
        if f.pmu >= 4:
            simple[IA32_PERF_GLOBAL_STATUS_SET] = 0
            simple[IA32_PERF_GLOBAL_INUSE] = self.in_use()
        simple[IA32_DS_AREA] = self.ds_area
        if f.pebs:
            simple[IA32_PEBS_ENABLE] = self.pebs_enable
        if f.adaptive:
            simple[MSR_PEBS_DATA_CFG] = self.pebs_cfg
        if f.kind == "arch":
            simple[IA32_XSS] = self.xss
        if f.pt:
            simple[IA32_RTIT_CTL] = self.pt
        if i in simple:
            return simple[i]
        raise Fault

    def in_use(self):
        used = sum(1 << n for n, s in enumerate(self.evtsel) if s & 0xFF)
        used |= sum(1 << (32 + n) for n in range(self.facts.fixed)
                    if self.fixed_ctrl >> 4 * n & 3)
        pmi = any(s >> 20 & 1 for s in self.evtsel) or self.fixed_ctrl & 0x8888
        return used | (1 << 63 if pmi or self.pebs_enable else 0)

    def read_records(self, i):
        f = self.facts
        if f.kind == "arch":
            if i == IA32_LBR_CTL:
                return self.ctl
            if i == IA32_LBR_DEPTH:
                return self.depth
            for part, base in enumerate((IA32_LBR_0_FROM_IP, IA32_LBR_0_TO_IP, IA32_LBR_0_INFO)):
                if base <= i < base + 32:
                    if i - base >= self.depth:
                        raise Fault
                    return self.shown(self.stack[i - base], part)
            if i in (IA32_LER_FROM_IP, IA32_LER_TO_IP, IA32_LER_INFO):
                return self.shown(self.ler, (IA32_LER_FROM_IP, IA32_LER_TO_IP,
                                             IA32_LER_INFO).index(i))
        if f.kind == "legacy":
            known = {MSR_LASTBRANCH_TOS: self.tos,
                     **({MSR_LBR_SELECT: self.ctl} if f.select else {})}
            if i in known:
                return 0 if self.shut() else known[i]
            if i in (IA32_LER_FROM_IP, IA32_LER_TO_IP):
                if f.fmt == 0:
                    return self.ler[i - IA32_LER_FROM_IP] & 0xFFFFFFFF
                return 0 if self.shut() else self.legacy_shown(self.ler, i - IA32_LER_FROM_IP)
            for base, part in ((f.from_base, 0), (f.to_base, 1), (f.info_base, 2)):
                if base and base <= i < base + f.depth:
                    one = self.stack[self.newest_index(i - base)]
                    return 0 if self.shut() else self.legacy_shown(one, part)
        return None

    def shown(self, one, part):
        return one[2] if part == 2 else signed(one[part], self.facts.width)

    def legacy_shown(self, one, part):
        from_, to, info = signed(one[0], 48), signed(one[1], 48), one[2]
        fmt = self.facts.fmt
        if fmt == 0:
            return from_ & 0xFFFFFFFF | (to & 0xFFFFFFFF) << 32
        if part == 2:
            return info
        if part == 0:
            if fmt in (3, 6):
                return info & MISPRED | from_ & ~MISPRED & ONES
            if fmt == 4:
                return info & (7 << 61) | from_ & ((1 << 61) - 1)
            return from_
        return (info & 0xFFFF) << 48 | to & ((1 << 48) - 1) if fmt == 6 else to

    def read_amd(self, i):
        if i == DBG_EXTN_CFG:
            return self.amd_on << 6
        if i == LBR_SELECT:
            return self.ctl
        if SAMP_BR_FROM_0 <= i < 0xC0010320:
            from_, to, info = self.stack[(i - SAMP_BR_FROM_0) // 2]
            ip = (1 << 58) - 1
            if i % 2 == 0:
                return from_ & ip | info & MISPRED
            if info & 1:  # TO was written by software: its flags are kept
                return to & ip | (info >> 1 & 7) << 61
            return to & ip | (1 << 63 if from_ or to else 0)
        if PERF_CTL0 <= i < PERF_CTL0 + 2 * self.facts.counters:
            bank = self.pmc if i % 2 else self.evtsel
            return bank[(i - PERF_CTL0) // 2]
        simple = {PERF_CNTR_GLOBAL_STATUS: self.status, PERF_CNTR_GLOBAL_CTL: self.global_ctrl,
                  PERF_CNTR_GLOBAL_STATUS_CLR: 0}
        if i in simple:
            return simple[i]
        raise Fault

    def wrmsr(self, i, v):
        if self.vmcs and self.smm is None and i in self.vmcs["write exits"]:
            raise Exit(32)
        self.write(i, v)
        self.settle()

    @staticmethod
    def need(v, mask):
        if v & ~mask:
            raise Fault

    def write(self, i, v):
        f = self.facts
        if self.write_records(i, v):
            return
        if i == IA32_DEBUGCTL:
            self.need(v, f.debugctl | 1)
            self.debugctl = v & f.debugctl
        elif f.kind == "amd":
            self.write_amd(i, v)
        elif IA32_PMC0 <= i < IA32_PMC0 + f.counters:
            self.pmc[i - IA32_PMC0] = signed(v, 32) & ((1 << f.pmc_width) - 1)
        elif f.full_width and IA32_A_PMC0 <= i < IA32_A_PMC0 + f.counters:
            self.need(v, (1 << f.pmc_width) - 1)
            self.pmc[i - IA32_A_PMC0] = v
        elif IA32_PERFEVTSEL0 <= i < IA32_PERFEVTSEL0 + f.counters:
            self.need(v, f.evtsel)
            if v >> 33 & 1 and i != 0x188:
                raise Fault
            if v >> 35 & 1 and not f.logging >> (i - IA32_PERFEVTSEL0) & 1:
                raise Fault
            self.evtsel[i - IA32_PERFEVTSEL0] = v
        elif IA32_FIXED_CTR0 <= i < IA32_FIXED_CTR0 + f.fixed:
            self.need(v, (1 << f.fixed_width) - 1)
            self.fixed[i - IA32_FIXED_CTR0] = v
        elif f.pmu < 2 and IA32_FIXED_CTR_CTRL <= i <= IA32_PERF_GLOBAL_STATUS_RESET:
            raise Fault
        elif i == IA32_FIXED_CTR_CTRL:
            self.need(v, f.fixed_ctrl)
            self.fixed_ctrl = v
        elif i == IA32_PERF_GLOBAL_CTRL:
            self.need(v, self.global_mask())
            self.global_ctrl = v
        elif i == IA32_PERF_GLOBAL_STATUS_RESET:
            self.need(v, self.status_mask())
            self.status &= ~v
        elif i == IA32_PERF_GLOBAL_STATUS_SET and f.pmu >= 4:
            self.need(v, self.status_mask() & ~(1 << 63 | 1 << 61))
            self.status |= v
        elif i == IA32_DS_AREA:
            if v != (v & 0xFFFFFFFF if f.width == 32 else signed(v, f.width)):
                raise Fault
            self.ds_area = v
        elif i == IA32_PEBS_ENABLE and f.pebs:
            self.need(v, f.pebs)
            self.pebs_enable = v
        elif i == MSR_PEBS_DATA_CFG and f.adaptive:
            self.need(v, 0xFF00000F)
            self.pebs_cfg = v
        elif i == IA32_XSS and f.kind == "arch":
            self.need(v, f.xss)
            self.xss = v
        elif i == IA32_RTIT_CTL and f.pt:
            self.need(v, 1)  # the test writes nothing else
            self.pt = v
        else:
            raise Fault

    def write_records(self, i, v):
        f = self.facts
        if f.kind == "arch":
            if i == IA32_LBR_CTL:
                self.need(v, f.ctl)
                self.ctl = v
                return True
            if i == IA32_LBR_DEPTH:
                if v not in f.depths:
                    raise Fault
                self.depth, self.stack = v, [(0, 0, 0)] * v
                return True
            for part, base in enumerate((IA32_LBR_0_FROM_IP, IA32_LBR_0_TO_IP, IA32_LBR_0_INFO)):
                if base <= i < base + 32:
                    if i - base >= self.depth:
                        raise Fault
                    one = list(self.stack[i - base])
                    one[part] = v
                    self.stack[i - base] = tuple(one)
                    return True
            if i in (IA32_LER_FROM_IP, IA32_LER_TO_IP, IA32_LER_INFO):
                one = list(self.ler)
                one[(IA32_LER_FROM_IP, IA32_LER_TO_IP, IA32_LER_INFO).index(i)] = v
                self.ler = tuple(one)
                return True
        if f.kind == "legacy":
            return self.write_legacy(i, v)
        return False

    def write_legacy(self, i, v):
        f = self.facts
        if i in (IA32_LER_FROM_IP, IA32_LER_TO_IP):
            raise Fault  # read-only
        if i == MSR_LBR_SELECT and f.select:
            self.need(v, f.select)
            self.ctl = self.ctl if self.shut() else v
            return True
        if i == MSR_LASTBRANCH_TOS:
            self.need(v, f.depth - 1)
            if not self.shut():
                physical = [self.stack[self.newest_index(p)] for p in range(f.depth)]
                self.tos = v
                self.stack = [physical[(v - k) % f.depth] for k in range(f.depth)]
            return True
        for base, part in ((f.from_base, 0), (f.to_base, 1), (f.info_base, 2)):
            if base and base <= i < base + f.depth:
                place = self.newest_index(i - base)
                if f.fmt == 0:
                    self.stack[place] = v & 0xFFFFFFFF, v >> 32, 0
                    return True
                if part == 2:
                    self.need(v, (7 << 61 if f.fmt == 5 else 1 << 63) | 0xFFFF)
                elif not self.legacy_canonical(v, part) and not self.shut():
                    raise Fault
                if not self.shut():
                    self.stack[place] = self.legacy_taken(self.stack[place], part, v)
                return True
        return False

    def legacy_canonical(self, v, part):
        fmt = self.facts.fmt
        if part == 1:
            return fmt == 6 or v == signed(v, 48)
        flags = {3: 1, 6: 1, 4: 1 if self.facts.quirk else 3}.get(fmt, 0)
        low = (1 << (64 - flags)) - 1
        return v & low == signed(v, 48) & low

    def legacy_taken(self, one, part, v):
        from_, to, info = one
        fmt = self.facts.fmt
        if part == 2:
            return from_, to, v
        if part == 1:
            if fmt == 6:
                return from_, signed(v, 48), info & ~0xFFFF | v >> 48
            return from_, v, info
        if fmt in (3, 6):
            return signed(v, 63), to, info & ~MISPRED | v & MISPRED
        if fmt == 4:
            return signed(v, 61), to, info & ~(7 << 61) | v & (7 << 61)
        return v, to, info

    def write_amd(self, i, v):
        f = self.facts
        if i == DBG_EXTN_CFG:
            self.need(v, 1 << 6)
            self.amd_on = bool(v)
        elif i == LBR_SELECT:
            self.need(v, f.select)
            self.ctl = v
        elif SAMP_BR_FROM_0 <= i < 0xC0010320:
            self.need(v, ((1 << 58) - 1) | 1 << 63 | (3 << 61 if i % 2 else 0))
            n = (i - SAMP_BR_FROM_0) // 2
            from_, to, info = self.stack[n]
            seen_to = self.read_amd(SAMP_BR_TO_0 + 2 * n)
            if i % 2:
                self.stack[n] = from_, v & ((1 << 58) - 1), info & MISPRED | 1 | (v >> 61) << 1
            else:
                self.stack[n] = (v & ((1 << 58) - 1), to,
                                 v & MISPRED | 1 | (seen_to >> 61) << 1)
        elif PERF_CTL0 <= i < PERF_CTL0 + 2 * f.counters:
            n = (i - PERF_CTL0) // 2
            if i % 2:
                self.need(v, (1 << 48) - 1)
                self.pmc[n] = v
            else:
                self.need(v, f.evtsel)
                self.evtsel[n] = v
        elif i == PERF_CNTR_GLOBAL_CTL:
            self.need(v, (1 << f.counters) - 1)
            self.global_ctrl = v
        elif i == PERF_CNTR_GLOBAL_STATUS_CLR:
            self.need(v, self.status_mask())
            self.status &= ~v
        else:
            raise Fault

    # ------------------------------------------------------------ events

    def debug_exception(self, indirect_exit=False):
        if self.vmcs and self.smm is None and self.vmcs["db exits"]:
            raise Exit(0)
        if self.facts.kind == "arch":
            self.ctl &= ~1
        self.debugctl &= ~(1 | 2 | 1 << 6)
        self.settle()
        if indirect_exit:
            raise Exit(48)

    def init(self, from_=None, to=None):
        self.in_tsx = False
        self.sipi(from_, to)

    def sipi(self, from_=None, to=None):
        if from_ is not None:
            self.retire(B.FAR_BRANCH, from_, to, cpl_from=0, cpl_to=0)

    def smi(self):
        self.smm = self.ctl & 1
        if self.facts.kind == "arch":
            self.ctl &= ~1
        if self.debugctl >> 14 & 1:
            self.smm_saved = self.debugctl
            self.debugctl &= ~(1 | 2 | 1 << 6 | 1 << 7)
        self.settle()

    def rsm(self):
        if self.facts.kind == "arch":
            self.ctl = self.ctl & ~1 | self.smm
        self.smm = None
        if self.smm_saved is not None:
            self.debugctl, self.smm_saved = self.smm_saved, None
        self.settle()

    def mwait(self, deep=True, lose=True):
        if self.facts.mwait and deep and lose:
            self.stack, self.ler = [(0, 0, 0)] * self.depth, (0, 0, 0)
            self.cycles, self.tos = None, 0

    def tsx_abort(self, from_, to):
        self.in_tsx = False
        self.retire(B.TSX_ABORT, from_, to, flags=1, instructions=0)

    def enclave_enter(self, from_, to, opt_in):
        self.entered = from_
        self.enclave = "in" if opt_in else "out"
        if opt_in:
            self.retire(B.FAR_BRANCH, from_, to)
        elif self.facts.pmu >= 4:
            self.status |= ASCI
        self.settle()

    def enclave_exit(self, from_, to):
        from_ = self.entered if self.enclave == "out" else from_
        self.enclave = ""
        self.settle()
        self.retire(B.FAR_BRANCH, from_, to)

    aex = enclave_exit

    def pebs_threshold(self):
        self.status |= 1 << 62
        self.pmi()

    # ------------------------------------------------------------ XSAVES, one layout: {15}

    def xsaves(self, area):
        registers = [self.ctl, *self.ler, *(x for one in self.stack for x in one)]
        in_use = self.xinuse or any(registers)
        area[512:528] = (in_use << 15).to_bytes(8, "little") + (
            1 << 63 | 1 << 15).to_bytes(8, "little")
        if in_use:
            words = [self.ctl, self.depth, self.shown(self.ler, 0), self.shown(self.ler, 1),
                     self.ler[2]]
            for one in self.stack:
                words += [self.shown(one, part) for part in range(3)]
            area[576:576 + 8 * len(words)] = b"".join(w.to_bytes(8, "little") for w in words)

    def xrstors(self, area):
        if not int.from_bytes(area[512:520], "little"):
            self.ctl, self.ler, self.xinuse = 0, (0, 0, 0), False
            self.stack = [(0, 0, 0)] * self.depth
        else:
            words = [int.from_bytes(area[576 + 8 * k:584 + 8 * k], "little") for k in range(101)]
            self.need(words[0], self.facts.ctl)
            self.ctl, self.ler = words[0], tuple(words[2:5])
            self.stack = [(0, 0, 0)] * self.depth
            if words[1] == self.depth:
                self.stack = [tuple(words[5 + 3 * k:8 + 3 * k]) for k in range(self.depth)]
                self.xinuse = True
        self.was_on = False
        self.settle()

    # ------------------------------------------------------------ VMX

    def vm_entry(self, vmcs):
        f = self.facts
        if (vmcs["load debug"] and vmcs["debugctl"] & ~(f.debugctl | 1)) or (
                vmcs["load ctl"] and vmcs["ctl"] & ~f.ctl):
            self.host(vmcs)
            raise EntryFails(33)
        if vmcs["load ctl"]:
            self.ctl = vmcs["ctl"]
        if vmcs["load debug"]:
            self.debugctl = vmcs["debugctl"] & f.debugctl
        self.settle()
        for i, v in vmcs["entry list"]:
            try:
                self.write(i, v)
            except Fault:
                self.host(vmcs)
                raise EntryFails(34) from None
            self.settle()
        self.vmcs = vmcs

    def vm_exit(self):
        vmcs, self.vmcs = self.vmcs, None
        if vmcs["save debug"]:
            vmcs["debugctl"] = self.debugctl
        if self.facts.kind == "arch":
            vmcs["ctl"] = self.ctl
        vmcs["stored"] = [(i, self.read(i)) for i in vmcs["store"]]
        self.host(vmcs)
        return vmcs

    def host(self, vmcs):
        if self.facts.kind == "arch" and vmcs["clear ctl"]:
            self.ctl = 0
        self.debugctl = 0
        self.settle()
        for i, v in vmcs["exit list"]:
            self.write(i, v)
            self.settle()
