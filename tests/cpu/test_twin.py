"""The whole processor against its independent twin, by random walks."""

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lbrcore import BRANCH_DTYPE
from pylbr.arch import ExitReason, registers
from pylbr.cpu import Processor, Vmcs, VmEntryFailure, VmExit, decode, encode
from pylbr.errors import GeneralProtection
from tests.cpu import twin
from tests.cpu.helpers import Listener
from tests.manual import (
    DBG_EXTN_CFG,
    IA32_A_PMC0,
    IA32_DEBUGCTL,
    IA32_FIXED_CTR0,
    IA32_FIXED_CTR_CTRL,
    IA32_LBR_0_FROM_IP,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_LER_FROM_IP,
    IA32_PEBS_ENABLE,
    IA32_PERF_GLOBAL_CTRL,
    IA32_PERF_GLOBAL_STATUS_RESET,
    IA32_PERFEVTSEL0,
    IA32_PMC0,
    IA32_RTIT_CTL,
    IA32_XSS,
    LBR_SELECT,
    MSR_LASTBRANCH_TOS,
    MSR_LBR_SELECT,
    MSR_PEBS_DATA_CFG,
    PERF_CNTR_GLOBAL_STATUS_CLR,
    PERF_CTL0,
    PERF_CTR0,
    RECORD_ALL,
    STATUS_CTR_FRZ,
    STATUS_LBR_FRZ,
)

ADDRESSES = st.sampled_from([
    0, 0x401000, 0x7FFFFFFFF000, 0xFFFFFFFF81000000, 0x0000800000000000, 1 << 56, 1 << 63,
    (1 << 61) - 0x1000, 0x1FFFFFFF81000000, (1 << 64) - 1])
VALUES = ADDRESSES | st.integers(0, 40) | st.integers(0, 63).map(lambda b: 1 << b) | st.integers(
    0, (1 << 64) - 1)
EVENTS = [0x3C, 0xC0, 0xC4, 0xC5, 0x20C4, 0x76, 0xC2, 0xC3, 0x1234]
SELECTS = st.builds(
    lambda event, bits: event | bits, st.sampled_from(EVENTS),
    st.sampled_from([0x410000, 0x420000, 0x430000, 0x530000, 0x510000, 0x30000, 0x4430000,
                     0x1430000 << 4, 1 << 32 | 0x430000, 1 << 33 | 0x430000,
                     1 << 35 | 0x430000, 1 << 34 | 0x430000]))
CTLS = st.sampled_from([RECORD_ALL, 0x7F0006, 0x7F0005, 0x7F0003, 0x38000D, 0x38000F, 0x3F0003,
                        0x10007, 1, 0, 0x7F0001])
COUNTS = st.integers(1, 40).map(lambda n: (1 << 48) - n) | st.just(0)


@st.composite
def branches(draw, longest=120):
    """A batch; long ones go through the core's backward recorder."""
    n = draw(st.integers(1, longest))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    classes = draw(st.sampled_from([range(16), (0, 3, 4, 5), (0, 6), (4, 5), (0,)]))
    b = np.zeros(n, BRANCH_DTYPE)
    b["from"] = rng.integers(0, 1 << 47, n)
    b["to"] = rng.integers(0, 1 << 47, n)
    b["class"] = rng.choice(list(classes), n)
    b["cycles"] = rng.choice([0, 1, 30, 0x9000], n)
    b["instructions"] = rng.integers(0, 9, n)
    b["flags"] = rng.choice([0, 4], n)
    b["cpl_from"] = rng.choice([0, 3], n)
    b["cpl_to"] = np.where(rng.random(n) < 0.8, b["cpl_from"], rng.choice([0, 1, 3], n))
    b["events"] = rng.integers(0, 3, (n, 4))
    return b


class Walk(RuleBasedStateMachine):
    """Every operation goes to both; then all registers must read alike."""

    name = "sapphire-rapids"

    @initialize(rearm=st.sampled_from([None, 5, 33]), debugctl=st.sampled_from(
        [0x801, 0x1801, 0x4803, 0x48C3, 0]), select=SELECTS, count=COUNTS, n=st.integers(0, 7),
        first=branches())
    def start(self, rearm, debugctl, select, count, n, first):
        """Recording, with a counter armed: most operations then show an effect."""
        facts = twin.MODELS[self.name]
        amd = facts.kind == "amd"
        self.unfreeze = PERF_CNTR_GLOBAL_STATUS_CLR if amd else IA32_PERF_GLOBAL_STATUS_RESET
        counter = PERF_CTR0 if amd else IA32_A_PMC0 if facts.full_width else IA32_PMC0
        low = facts.full_width or amd
        minus = ((1 << 48) if low else (1 << 32)) - (rearm or 1)

        def handler(cpu):
            self.pmis[cpu is self.twin] += 1
            if rearm:
                cpu.wrmsr(counter, minus)
                if facts.pmu >= 2:
                    cpu.wrmsr(self.unfreeze, 1
                              | (STATUS_LBR_FRZ if facts.pmu >= 4 or facts.kind == "amd"
                                                  else 0))

        reload = rearm and (1 << 48) - rearm

        def pebs(bit, ip, group):
            self.records.append((bit, ip, group))
            return reload

        self.pmis, self.records = {True: 0, False: 0}, []
        self.cpu = Processor(self.name, Listener(handler, reload))
        self.twin = twin.Twin(facts, handler, pebs)
        self.kind = facts.kind
        self.area = {id(self.cpu): bytearray(1384), id(self.twin): bytearray(1384)}
        self.watched = [i for i in registers(self.cpu.model) if self.known(i)]
        self.vmcs = None
        if debugctl:
            self.enable(True)
        self.debugctl(debugctl)
        self.arm(n, select, count)
        self.arm(0, 0x5300C2 if self.kind == "amd" else 0x5300C4, minus)
        self.batch(first)

    def known(self, i):
        try:
            self.twin.rdmsr(i)
        except twin.Fault:
            return False
        return True

    # Registers

    def wrmsr(self, i, v):
        outcomes, before = [], self.cpu.state()
        for cpu, fault, exit_ in ((self.cpu, GeneralProtection, VmExit),
                                  (self.twin, twin.Fault, twin.Exit)):
            try:
                cpu.wrmsr(i, v)
                outcomes.append("done")
            except fault:
                outcomes.append("#GP")
            except exit_:
                outcomes.append("exit")
        assert outcomes[0] == outcomes[1], f"WRMSR {i:#x} of {v:#x}: {outcomes}"
        assert outcomes[0] == "done" or self.cpu.state() == before, "what fails changes nothing"
        self.compare()

    @rule(i=st.integers(0, 400), v=VALUES)
    def write_something(self, i, v):
        index = self.watched[i % len(self.watched)]
        self.wrmsr(index, v & 1 if index == IA32_RTIT_CTL else v)

    @rule(n=st.integers(0, 7), v=SELECTS, count=COUNTS)
    def arm(self, n, v, count):
        if self.kind == "amd":
            self.wrmsr(PERF_CTL0 + 2 * (n % 6), v)
            self.wrmsr(PERF_CTR0 + 2 * (n % 6), count)
        else:
            n %= len(self.twin.pmc)
            self.wrmsr(IA32_PERFEVTSEL0 + n, v)
            self.wrmsr(IA32_A_PMC0 + n if self.twin.facts.full_width else IA32_PMC0 + n, count)

    @rule(v=st.sampled_from([0xB, 0xBB, 0x33, 0x12, 0x8, 0]), count=COUNTS)
    def arm_fixed(self, v, count):
        if self.twin.facts.fixed:
            self.wrmsr(IA32_FIXED_CTR_CTRL, v)
            self.wrmsr(IA32_PERF_GLOBAL_CTRL, self.twin.global_ctrl | 7 << 32)
            self.wrmsr(IA32_FIXED_CTR0, count)

    @precondition(lambda self: self.twin.facts.pebs)
    @rule(enable=st.sampled_from([0, 1, 3, 1 << 32]), lbrs=st.sampled_from([0, 8, 8 | 5 << 24,
                                                                            8 | 40 << 24]),
          count=COUNTS)
    def arm_pebs(self, enable, lbrs, count):
        self.wrmsr(IA32_PEBS_ENABLE, enable)
        self.wrmsr(MSR_PEBS_DATA_CFG, lbrs)
        self.wrmsr(IA32_PERFEVTSEL0, 0x4_0053_00C4)
        self.wrmsr(IA32_PMC0, count & 0xFFFFFFFF)

    @precondition(lambda self: self.twin.facts.pebs)
    @rule()
    def pebs_threshold(self):
        self.both("pebs_threshold")

    @rule(v=CTLS)
    def control(self, v):
        if self.kind == "arch":
            self.wrmsr(IA32_LBR_CTL, v)
        elif self.kind == "legacy":
            self.wrmsr(MSR_LBR_SELECT, v & 0x3FF if v & 8 == 0 else 0x3C4)
        else:
            self.wrmsr(LBR_SELECT, v & 0x1FF)

    @rule(bits=st.sampled_from([0, 1, 0x801, 0x1801, 0x4803, 0x1000, 0x48C3]))
    def debugctl(self, bits):
        self.wrmsr(IA32_DEBUGCTL, bits)

    @rule(on=st.booleans())
    def enable(self, on):
        if self.kind == "arch":
            self.wrmsr(IA32_LBR_CTL, 0x7F0006 | on)
        elif self.kind == "amd":
            self.wrmsr(DBG_EXTN_CFG, on << 6)
        else:
            self.wrmsr(IA32_DEBUGCTL, 0x800 | on)

    @rule(depth=st.sampled_from([8, 16, 32, 24]))
    def depth(self, depth):
        self.wrmsr(IA32_LBR_DEPTH, depth)

    @rule()
    def unfreeze_all(self):
        self.wrmsr(self.unfreeze, STATUS_LBR_FRZ | STATUS_CTR_FRZ | 1)

    # Branches

    @rule(batch=branches())
    def batch(self, batch):
        assert self.cpu.record(batch) == len(batch)
        for b in batch:
            self.twin.retire(
                int(b["class"]), int(b["from"]), int(b["to"]), int(b["flags"]), int(b["cycles"]),
                int(b["instructions"]), int(b["cpl_from"]), int(b["cpl_to"]),
                tuple(map(int, b["events"])))
        self.compare()

    @rule(instructions=st.integers(0, 50), cycles=st.integers(0, 50), cpl=st.sampled_from([0, 3]))
    def retire(self, instructions, cycles, cpl):
        self.cpu.retire(instructions, cycles=cycles, cpl=cpl, ip=0x99)
        self.twin.idle(instructions, cycles, cpl, 0x99)
        self.compare()

    @rule(batch=branches(longest=3))
    def singles(self, batch):
        for b in batch:
            self.cpu.branch(
                int(b["class"]), int(b["from"]), int(b["to"]), flags=int(b["flags"]),
                cycles=int(b["cycles"]), instructions=int(b["instructions"]),
                cpl_from=int(b["cpl_from"]), cpl_to=int(b["cpl_to"]),
                events=tuple(map(int, b["events"])))
            self.twin.retire(
                int(b["class"]), int(b["from"]), int(b["to"]), int(b["flags"]), int(b["cycles"]),
                int(b["instructions"]), int(b["cpl_from"]), int(b["cpl_to"]),
                tuple(map(int, b["events"])))
        self.compare()

    # Events

    def both(self, what, *args, **more):
        exits = []
        for cpu in (self.cpu, self.twin):
            try:
                getattr(cpu, what)(*args, **more)
            except (VmExit, twin.Exit) as exit_:
                exits.append(exit_.reason if cpu is self.cpu else exit_.args[0])
        assert len(exits) in (0, 2) and len(set(exits)) < 2, exits
        self.compare()

    @precondition(lambda self: not self.vmcs)
    @rule(kind=st.sampled_from(["cold", "warm"]), in_c6=st.booleans())
    def reset(self, kind, in_c6):
        self.both("reset", kind, in_c6=in_c6)

    @rule(indirect=st.booleans())
    def debug_exception(self, indirect):
        guest = self.vmcs and self.twin.smm is None
        self.both("debug_exception", indirect_exit=bool(guest and indirect))

    @precondition(lambda self: not self.vmcs and self.twin.smm is None)
    @rule(what=st.sampled_from(["init", "sipi"]), addresses=st.sampled_from([(), (0x10, 0x20)]))
    def init(self, what, addresses):
        self.both(what, *addresses)

    @rule()
    def smm(self):
        self.both("smi" if self.twin.smm is None else "rsm")

    @rule(deep=st.booleans(), lose=st.booleans())
    def mwait(self, deep, lose):
        self.both("mwait", deep, lose=lose)

    @precondition(lambda self: self.twin.facts.tsx)
    @rule(how=st.sampled_from(["commit", "abort"]))
    def transaction(self, how):
        if not self.twin.in_tsx:
            self.cpu.tsx_begin()
            self.twin.in_tsx = True
        elif how == "commit":
            self.cpu.tsx_commit()
            self.twin.in_tsx = False
        else:
            self.both("tsx_abort", 0x401000, 0x402000)
        self.compare()

    @precondition(lambda self: self.twin.facts.sgx)
    @rule(opt_in=st.booleans(), how=st.sampled_from(["enclave_exit", "aex"]))
    def enclave(self, opt_in, how):
        if self.twin.enclave:
            self.both(how, 0x403000, 0x404000)
        else:
            self.both("enclave_enter", 0x405000, 0x406000, opt_in=opt_in)

    # XSAVES

    @precondition(lambda self: self.kind == "arch" and not self.vmcs)
    @rule()
    def xsaves(self):
        self.wrmsr(IA32_XSS, 1 << 15)
        for cpu in (self.cpu, self.twin):
            cpu.xsaves(self.area[id(cpu)])
        assert self.area[id(self.cpu)] == self.area[id(self.twin)]

    @precondition(lambda self: self.kind == "arch" and not self.vmcs)
    @rule(fresh=st.booleans())
    def xrstors(self, fresh):
        self.wrmsr(IA32_XSS, 1 << 15)
        for cpu in (self.cpu, self.twin):
            area = self.area[id(cpu)]
            if fresh or not area[527] & 0x80:
                area[512:576] = bytes(15) + b"\x80" + bytes(48)
            cpu.xrstors(area)
        self.compare()

    # VMX

    @precondition(lambda self: self.kind != "amd" and self.twin.facts.vmx and not self.vmcs
                  and self.twin.smm is None)
    @rule(controls=st.tuples(*[st.booleans()] * 4), ctl=CTLS | st.just(1 << 5),
          debugctl=st.sampled_from([0, 0x800, 1, 8]), watch=st.booleans(),
          db_exits=st.booleans(), inject=st.booleans(),
          lists=st.tuples(*[st.lists(st.integers(0, 5), max_size=3)] * 2))
    def vm_entry(self, controls, ctl, debugctl, watch, db_exits, inject, lists):
        facts = self.twin.facts
        arch = self.kind == "arch"
        if not arch:
            controls = (False, False, *controls[2:])
        made = Vmcs.for_model(self.cpu.model, "use MSR bitmaps")
        names = ("load IA32_LBR_CTL", "clear IA32_LBR_CTL", "load debug controls",
                 "save debug controls")
        for name, on in zip(names, controls, strict=True):
            if arch or on:
                made.set(name, on)
        made.guest_lbr_ctl, made.guest_debugctl = ctl, debugctl
        exits = {IA32_DEBUGCTL} if watch else set()
        for index in exits:
            made.intercept(index)
        made.exception_bitmap = 2 * db_exits
        made.entry_interruption_info = inject and 1 << 31 | 3 << 8 | 1
        listed = [(IA32_LBR_DEPTH, 16), (IA32_LBR_0_FROM_IP, 0x77), (IA32_LER_FROM_IP, 5),
                  (IA32_LBR_CTL, RECORD_ALL), (IA32_DEBUGCTL, 0x800),
                  (IA32_LBR_DEPTH, 24)] if arch else [
            (MSR_LASTBRANCH_TOS, 3), (facts.from_base, 0x77),
            (MSR_LBR_SELECT, 4) if facts.select else (MSR_LASTBRANCH_TOS, 1),
            (IA32_DEBUGCTL, 0x801), (IA32_PEBS_ENABLE, 0) if facts.pebs else (IA32_PMC0, 5),
            (IA32_LER_FROM_IP, 5)]
        # The last of them is refused; at a VM exit that would be a VMX abort.
        made.entry_msr_load = [listed[n] for n in lists[0]]
        made.exit_msr_load = [listed[n % 5] for n in lists[1]]
        made.exit_msr_store = [(listed[n][0], 0) for n in lists[0]]
        other = {
            **dict(zip(("load ctl", "clear ctl", "load debug", "save debug"), controls,
                       strict=True)),
            "ctl": ctl, "debugctl": debugctl, "read exits": exits, "write exits": exits,
            "db exits": db_exits, "entry list": made.entry_msr_load,
            "exit list": made.exit_msr_load, "store": [i for i, _ in made.exit_msr_store]}
        failed = []
        try:
            self.cpu.vm_entry(made)
        except VmEntryFailure as failure:
            failed.append(failure.reason)
        try:
            self.twin.vm_entry(other)
        except twin.EntryFails as failure:
            failed.append(failure.args[0])
        assert len(failed) in (0, 2) and len(set(failed)) < 2, failed
        assert facts.kind != "amd"
        if not failed:
            self.vmcs = made
        self.compare()

    @precondition(lambda self: self.vmcs and self.twin.smm is None)
    @rule()
    def vm_exit(self):
        self.cpu.vm_exit(ExitReason.CPUID)
        ended = self.twin.vm_exit()
        assert self.vmcs.guest_debugctl == ended["debugctl"]
        assert self.vmcs.exit_msr_store == ended["stored"]
        if self.kind == "arch":
            assert self.vmcs.guest_lbr_ctl == ended["ctl"]
        self.vmcs = None
        self.compare()

    # State

    @rule()
    def save_and_load(self):
        state = decode(encode(self.cpu.state()))
        assert state == self.cpu.state()
        events, area = self.cpu.events, self.area.pop(id(self.cpu))
        self.cpu = Processor.from_state(state, events)
        self.area[id(self.cpu)] = area
        self.vmcs = self.cpu.vmx.vmcs
        self.compare()

    @rule()
    def copy(self):
        area = self.area.pop(id(self.cpu))
        self.cpu = self.cpu.copy()
        self.area[id(self.cpu)] = area
        self.vmcs = self.cpu.vmx.vmcs

    def compare(self):
        for i in self.watched:
            seen = []
            for cpu, fault, exit_ in ((self.cpu, GeneralProtection, VmExit),
                                      (self.twin, twin.Fault, twin.Exit)):
                try:
                    seen.append(cpu.rdmsr(i))
                except fault:
                    seen.append("#GP")
                except exit_:
                    seen.append("exit")
            assert seen[0] == seen[1], f"MSR {i:#x}: {seen}"
        assert self.pmis[True] == self.pmis[False]
        records = self.cpu.events.records
        assert len(records) == len(self.records)
        for (bit, record), (bit2, ip, group) in zip(records, self.records, strict=True):
            words = struct.unpack(f"<{len(record) // 8}Q", record)
            entries = [x for one in group or () for x in one]
            assert bit == bit2 and list(words) == [
                (group is not None) << 3 | len(record) << 48, ip, 1 << bit, 0, *entries]
        records.clear()
        self.records.clear()


def run(name, examples, steps):
    walk = type(name, (Walk,), {"name": name})
    run_state_machine_as_test(
        walk, settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None,
            phases=set(Phase) - {Phase.explain}, suppress_health_check=[HealthCheck.too_slow]))


@pytest.mark.parametrize("name", ["sierra-forest", "skylake", "zen4"])
def test_short_walks(name):
    run(name, 60, 30)


@pytest.mark.slow
@pytest.mark.parametrize("name", twin.MODELS)
def test_long_walks(name):
    run(name, 80, 50)
