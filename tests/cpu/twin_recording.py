"""Records and counters of the second processor."""

from dataclasses import dataclass, field

from lbrcore import BranchClass as B
from tests.cpu.twin_model import (
    CALLS,
    CLASSES,
    CTR_FRZ,
    LBR_FRZ,
    MISPRED,
    NEHALEM_TOO,
    ONES,
    OTHER,
    VALID,
    Facts,
)


@dataclass
class Recorder:
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
