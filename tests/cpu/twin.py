"""A second processor, slow and obvious, written from the manual's rules and not from the code.

It shares nothing with ``pylbr`` but the numbers of `BranchClass`.  Registers are `if` chains,
the record stack is a Python list, counters step branch by branch.
"""

from lbrcore import BranchClass as B
from tests.cpu.twin_model import (
    ASCI,
    CTR_FRZ,
    LBR_FRZ,
    MISPRED,
    MODELS,
    ONES,
    EntryFails,
    Exit,
    Facts,
    Fault,
    signed,
)
from tests.cpu.twin_recording import Recorder
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
)

__all__ = ["MODELS", "EntryFails", "Exit", "Facts", "Fault", "Twin"]


class Twin(Recorder):
    """The processor: its registers, its modes, its guests."""

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
