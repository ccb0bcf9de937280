"""The processor: MSR dispatch, counted batches, PMIs, copies."""

from contextlib import suppress

import pytest

from bench.conftest import QUICK, best_of
from lbrcore import LbrConfig, LbrState
from pylbr.arbitration import make_policy
from pylbr.bench.streams import random_branches
from pylbr.cpu import NO_EVENTS, Processor, Vmcs, decode, encode
from pylbr.embed.machine import executable_model
from pylbr.embed.vcpu import VirtualProcessor, guest_model
from pylbr.errors import GeneralProtection
from tests.manual import (
    DEBUGCTL_FREEZE_LBRS_ON_PMI,
    IA32_A_PMC0,
    IA32_DEBUGCTL,
    IA32_LBR_0_FROM_IP,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_PERF_GLOBAL_STATUS,
    IA32_PERF_GLOBAL_STATUS_RESET,
    IA32_PERFEVTSEL0,
    MSR_LASTBRANCH_TOS,
    MSR_LBR_SELECT,
    RECORD_ALL,
    SAMP_BR_FROM_0,
)

UNIFORM = dict.fromkeys(range(7), 1)
N = 1_000_000
CTL, A_PMC0, EVTSEL0 = IA32_LBR_CTL, IA32_A_PMC0, IA32_PERFEVTSEL0
STATUS_RESET, DEBUGCTL = IA32_PERF_GLOBAL_STATUS_RESET, IA32_DEBUGCTL


def report(benchmark, name, seconds, goal):
    benchmark.extra_info[name] = round(seconds * 1e6, 3)
    benchmark.extra_info["goal_us"] = goal


@pytest.mark.parametrize("instruction, index, value", [
    ("rdmsr", CTL, None), ("rdmsr", IA32_LBR_0_FROM_IP, None),
    ("rdmsr", IA32_PERF_GLOBAL_STATUS, None),
    ("wrmsr", CTL, RECORD_ALL), ("wrmsr", IA32_LBR_0_FROM_IP, 0x401000), ("wrmsr", A_PMC0, 1),
    ("wrmsr", IA32_LBR_DEPTH, 32), ("wrmsr", STATUS_RESET, 1 << 58),
])
def test_dispatch(benchmark, instruction, index, value):
    """One instruction from Python, in microseconds; the goal is 1.5."""
    cpu = Processor("sapphire-rapids")
    args = (index,) if value is None else (index, value)
    call = getattr(cpu, instruction)

    def thousand():
        for _ in range(1000):
            call(*args)

    benchmark.pedantic(thousand, rounds=5 if QUICK else 50)
    report(benchmark, "us", best_of(thousand, 20) / 1000, 1.5)


@pytest.mark.parametrize("name", ["skylake", "haswell", "zen4"])
def test_dispatch_of_other_flavours(benchmark, name):
    cpu = Processor(name)
    index = SAMP_BR_FROM_0 if cpu.model.amd else cpu.model.legacy.from_base

    def thousand():
        for _ in range(1000):
            cpu.rdmsr(index)

    benchmark.pedantic(thousand, rounds=5 if QUICK else 50)
    report(benchmark, "us", best_of(thousand, 20) / 1000, 1.5)


@pytest.mark.parametrize("what", ["fault", "guest", "host"])
def test_dispatch_off_the_quick_path(benchmark, what):
    """A #GP, an access that the MSR bitmap lets pass, and one that the host initiates."""
    cpu = Processor("sapphire-rapids")
    if what == "guest":
        cpu.vm_entry(Vmcs.for_model(cpu.model, "use MSR bitmaps"))

    def thousand():
        for _ in range(1000):
            if what == "fault":
                with suppress(GeneralProtection):
                    cpu.wrmsr(CTL, 1 << 4)
            else:
                cpu.wrmsr(CTL, 0, what == "host")

    benchmark.pedantic(thousand, rounds=5 if QUICK else 50)
    report(benchmark, "us", best_of(thousand, 20) / 1000, 1.5)


@pytest.mark.parametrize("events", [
    (0x00C4,), (0x00C5,), (0x20C4,), (0x00C0,), (0x003C,), (0x00C4, 0x00C5, 0x00C0, 0x003C),
], ids=["branches", "mispredicts", "taken", "instructions", "cycles", "all-four"])
@pytest.mark.parametrize("ctl", [RECORD_ALL, 0x7F0005, 0x38000D], ids=hex)
def test_counted_batch(versus, events, ctl):
    """A million branches with counters armed and no overflow, beside the core alone; the goal
    is for one counter."""
    branches = random_branches(N, UNIFORM)
    cpu = Processor("sapphire-rapids")
    cpu.wrmsr(CTL, ctl)
    for n, event in enumerate(events):
        cpu.wrmsr(EVTSEL0 + n, event | 0x530000)
    alone = LbrState(LbrConfig(depth_bitmap=0x0B, linear_width=57))
    alone.ctl = ctl
    versus(lambda: cpu.record(branches), lambda: alone.record(branches), N, name="core alone",
           limit=1.2 if len(events) == 1 else None, rounds=3 if QUICK else 10)


def test_pmi(benchmark):
    """Freeze, drain 32 records, re-arm: what a PMI adds to a branch; the goal is 5 us."""
    branches = random_branches(1, {0: 1})

    class Handler:
        drained = None

        def pmi(self, cpu):
            self.drained = cpu.records()
            cpu.wrmsr(A_PMC0, (1 << 48) - 1)
            cpu.wrmsr(STATUS_RESET, 1 | 1 << 58)

    handler = Handler()
    cpu = Processor("sapphire-rapids", handler)
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.wrmsr(DEBUGCTL, DEBUGCTL_FREEZE_LBRS_ON_PMI)
    idle = Processor("sapphire-rapids")
    idle.wrmsr(CTL, RECORD_ALL)
    cpu.wrmsr(EVTSEL0, 0x5300C4)
    cpu.wrmsr(A_PMC0, (1 << 48) - 1)
    idle.wrmsr(EVTSEL0, 0x5300C4)

    def hundred(one):
        for _ in range(100):
            one.record(branches)

    benchmark.pedantic(hundred, args=(cpu,), rounds=5 if QUICK else 50)
    with_pmi, without = (best_of(lambda one=one: hundred(one), 50) / 100 for one in (cpu, idle))
    assert len(handler.drained) == 32
    report(benchmark, "us", with_pmi - without, 5)


def test_sampled_batch(versus):
    """A PMI every 1000 branches, drained and re-armed, beside the core alone."""
    branches = random_branches(N // 4, UNIFORM)

    class Handler:
        samples = 0

        def pmi(self, cpu):
            self.samples += len(cpu.records()) > 0
            cpu.wrmsr(A_PMC0, (1 << 48) - 1000)
            cpu.wrmsr(STATUS_RESET, 1 | 1 << 58)

    cpu = Processor("sapphire-rapids", Handler())
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.wrmsr(DEBUGCTL, DEBUGCTL_FREEZE_LBRS_ON_PMI)
    cpu.wrmsr(EVTSEL0, 0x5300C4)
    cpu.wrmsr(A_PMC0, (1 << 48) - 1000)
    alone = LbrState(LbrConfig())
    alone.ctl = RECORD_ALL
    versus(lambda: cpu.record(branches), lambda: alone.record(branches), N // 4,
           name="core alone", rounds=3 if QUICK else 10)


@pytest.mark.parametrize("what", ["copy", "state", "codec"])
def test_state(benchmark, what):
    cpu = Processor("sapphire-rapids")
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.record(random_branches(100, UNIFORM))
    call = {"copy": cpu.copy, "state": cpu.state,
            "codec": lambda: decode(encode(cpu.state()))}[what]
    benchmark.pedantic(call, rounds=100, iterations=10)
    benchmark.extra_info["us"] = round(best_of(call, 500) * 1e6, 2)



GUESTS = [("arch-lbr-v2", "sapphire-rapids"), ("request", "sapphire-rapids"),
          ("mediated", "sapphire-rapids"), ("lease", "sapphire-rapids"), ("kvm-legacy", "skylake")]
#: Name -> MSR number and value; None reads.
ACCESSES = {
    "sapphire-rapids": {
        "wrmsr-ctl": (CTL, RECORD_ALL), "rdmsr-ctl": (CTL, None),
        "rdmsr-from": (IA32_LBR_0_FROM_IP, None),
        "wrmsr-from": (IA32_LBR_0_FROM_IP, 0x401000), "wrmsr-depth": (IA32_LBR_DEPTH, 32),
        "wrmsr-debugctl": (DEBUGCTL, DEBUGCTL_FREEZE_LBRS_ON_PMI), "rdmsr-counter": (A_PMC0, None)},
    "skylake": {
        "wrmsr-select": (MSR_LBR_SELECT, 1), "rdmsr-select": (MSR_LBR_SELECT, None),
        "rdmsr-from": (0x680, None),
        "wrmsr-from": (0x680, 0x401000), "rdmsr-tos": (MSR_LASTBRANCH_TOS, None),
        "wrmsr-debugctl": (DEBUGCTL, 1), "rdmsr-counter": (A_PMC0, None)},
}


@pytest.mark.parametrize("policy, name, access", [
    (policy, name, access) for policy, name in GUESTS for access in ACCESSES[name]])
def test_access_beside_a_host(versus, policy, name, access):
    """A guest's access, emulated or passed on as the policy says, beside the same alone."""
    model = guest_model(executable_model(name))
    guest = VirtualProcessor(model, NO_EVENTS, make_policy(policy))
    alone = Processor(model)
    index, value = ACCESSES[name][access]
    for cpu in (guest, alone):
        cpu.wrmsr(*((DEBUGCTL, 1) if model.legacy else (CTL, RECORD_ALL)))

    def thousand(cpu):
        if value is None:
            for _ in range(1000):
                cpu.rdmsr(index)
        else:
            for _ in range(1000):
                cpu.wrmsr(index, value)

    versus(lambda: thousand(guest), lambda: thousand(alone), 1000, name="alone", limit=1.3,
           rounds=5 if QUICK else 20)
