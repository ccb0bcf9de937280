"""Replay against a processor: real counters, a PMI handler, records read through MSRs."""

from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore.events import Unit
from pylbr.cpu import Processor
from pylbr.sample import Sampler, SampleSetup
from tests.manual import (
    DEBUGCTL_FREEZE_LBRS_ON_PMI,
    EVTSEL_EN,
    EVTSEL_INT,
    EVTSEL_OS,
    EVTSEL_USR,
    IA32_A_PMC0,
    IA32_DEBUGCTL,
    IA32_LBR_CTL,
    IA32_PERF_GLOBAL_CTRL,
    IA32_PERF_GLOBAL_STATUS_RESET,
    IA32_PERFEVTSEL0,
    MSR_LASTBRANCH_TOS,
    MSR_LBR_SELECT,
)
from tests.replay.strategies import columns, traces

PERFEVTSEL0, A_PMC0, DEBUGCTL = IA32_PERFEVTSEL0, IA32_A_PMC0, IA32_DEBUGCTL
GLOBAL_CTRL, GLOBAL_STATUS_RESET = IA32_PERF_GLOBAL_CTRL, IA32_PERF_GLOBAL_STATUS_RESET
LBR_CTL, LBR_SELECT, TOS = IA32_LBR_CTL, MSR_LBR_SELECT, MSR_LASTBRANCH_TOS
USR, OS, INT, EN = EVTSEL_USR, EVTSEL_OS, EVTSEL_INT, EVTSEL_EN
FREEZE_LBRS_ON_PMI = DEBUGCTL_FREEZE_LBRS_ON_PMI
WIDTH = (1 << 48) - 1


class PmiHandler:
    """What perf does: read the records, work out the next period, acknowledge."""

    def __init__(self, period, architectural):
        self.period, self.left, self.architectural = period, 0, architectural
        self.samples = []

    def pmi(self, cpu):
        records = []
        for i in range(cpu.lbr.depth):
            at = i if self.architectural else (cpu.rdmsr(TOS) - i) % cpu.lbr.depth
            bases = (0x1500, 0x1600, 0x1200) if self.architectural else (0x680, 0x6C0, 0xDC0)
            from_, to, info = (cpu.rdmsr(base + at) for base in bases)
            if not from_:
                break
            records.append((from_, to, info))
        self.samples.append(records)
        counted = cpu.rdmsr(A_PMC0)  # since the overflow
        left = self.period if counted >= self.period else self.period - counted
        cpu.wrmsr(A_PMC0, -left & WIDTH)
        cpu.wrmsr(GLOBAL_STATUS_RESET, 1 | 1 << 58)

    def pebs(self, cpu, counter, record):
        raise AssertionError("no PEBS here")


@given(traces(500), st.sampled_from(["sapphire-rapids", "skylake"]),
       st.sampled_from(["branches:u", "instructions", "cycles:k", "branch-misses"]),
       st.integers(1, 60), st.sampled_from(["any,u", "any", "stack,u", "any_call,k", "cond"]),
       st.booleans(), st.sampled_from(["lazy", "architectural"]))
@settings(max_examples=60, deadline=None)
def test_a_processor_with_a_pmi_handler_takes_the_same_samples(
    batch, model, event, period, branches, freeze, engine
):
    setup = SampleSetup.of(
        event, period, model=model, branches=branches, freeze=freeze, engine=engine)
    if setup.events[0].counted.unit == Unit.CYCLES:
        batch["cycles"] &= 0xFF  # a counter told of 2**32 cycles at once would wrap
    architectural = model == "sapphire-rapids"
    handler = PmiHandler(period, architectural)
    cpu = Processor(model, handler)
    select = setup.facility().ctl
    cpu.wrmsr(DEBUGCTL, (FREEZE_LBRS_ON_PMI if freeze else 0) | (not architectural))
    cpu.wrmsr(LBR_CTL if architectural else LBR_SELECT, select)
    generic = {"branches": 0xC4, "branch-misses": 0xC5, "instructions": 0xC0, "cycles": 0x3C}
    name, _, level = event.partition(":")
    rings = {"u": USR, "k": OS, "": USR | OS}[level]
    cpu.wrmsr(PERFEVTSEL0, generic[name] | rings | INT | EN)
    cpu.wrmsr(A_PMC0, -period & WIDTH)
    cpu.wrmsr(GLOBAL_CTRL, 1)
    cpu.record(batch)

    found = [
        [tuple(entry) for entry in b.stack(i).tolist()]
        for b in Sampler(setup).take(columns(batch)) for i in range(len(b))
    ]
    assert found == handler.samples
