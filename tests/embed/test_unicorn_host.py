"""What the host does to the processor of an engine takes effect at once; records as text."""

import pytest
from unicorn import UC_HOOK_BLOCK, UC_HOOK_CODE

from pylbr.cpu import Processor
from pylbr.embed.unicorn import attach
from pylbr.errors import GeneralProtection
from tests.embed.test_unicorn import ALL, CODE, engine
from tests.manual import (
    IA32_A_PMC0,
    IA32_DEBUGCTL,
    IA32_FIXED_CTR0,
    IA32_FIXED_CTR_CTRL,
    IA32_LBR_CTL,
    IA32_PERF_GLOBAL_CTRL,
    IA32_PERFEVTSEL0,
    IA32_PMC0,
)

COUNT_BRANCHES = 0x4300C4  # BR_INST_RETIRED.ALL_BRANCHES, both rings, enabled
LOOP = "mov $100, %ebx\n1: dec %ebx\njnz 1b\nnop"  # 100 conditional branches, 99 taken


def attached(source):
    uc, end = engine(source)
    cpu = Processor("sapphire-rapids")
    return uc, end, cpu, attach(uc, cpu)


def test_counters_set_after_attach_count_from_the_first_branch():
    uc, end, cpu, _ = attached(LOOP)
    cpu.wrmsr(IA32_PERFEVTSEL0, COUNT_BRANCHES)
    cpu.wrmsr(IA32_PERF_GLOBAL_CTRL, 1)
    uc.emu_start(CODE, end)
    assert cpu.rdmsr(IA32_PMC0) == 100
    cpu.wrmsr(IA32_PERF_GLOBAL_CTRL, 0)
    uc.emu_start(CODE, end)
    assert cpu.rdmsr(IA32_PMC0) == 100
    cpu.wrmsr(IA32_A_PMC0, 7)
    cpu.wrmsr(IA32_PERF_GLOBAL_CTRL, 1)
    uc.emu_start(CODE, end)
    assert cpu.state().pmu.pmc[0] == 107


def test_records_follow_without_settling():
    uc, end, cpu, _ = attached(LOOP)
    uc.emu_start(CODE, end)
    assert not cpu.records()["from"].any()
    cpu.wrmsr(IA32_LBR_CTL, ALL)
    uc.emu_start(CODE, end)
    assert (cpu.records()["from"] == CODE + 7).all() and len(cpu.records()) == 32
    cpu.wrmsr(IA32_LBR_CTL, 0)
    before = cpu.records().tolist()
    uc.emu_start(CODE, end)
    assert cpu.records().tolist() == before


@pytest.mark.parametrize("kind", [UC_HOOK_CODE, UC_HOOK_BLOCK])
def test_a_hook_of_the_host_starts_and_stops_counting_where_it_is(kind):
    """At entries 30 and 70 of the loop's block."""
    uc, end, cpu, link = attached(LOOP)
    cpu.wrmsr(IA32_PERFEVTSEL0, COUNT_BRANCHES)
    cpu.wrmsr(IA32_PERF_GLOBAL_CTRL, 0)
    seen, read = [], []

    def hook(uc, address, size, data):
        if address == CODE + 5:
            seen.append(address)
            if len(seen) in (30, 70):
                read.append(cpu.rdmsr(IA32_PMC0))
                cpu.wrmsr(IA32_PERF_GLOBAL_CTRL, len(seen) == 30)

    uc.hook_add(kind, hook)
    uc.emu_start(CODE, end)
    assert read == [0, 40] and cpu.rdmsr(IA32_PMC0) == 40 and len(seen) > 90


def test_instructions_count_up_to_the_access():
    uc, end, cpu, _ = attached(LOOP)
    cpu.wrmsr(IA32_FIXED_CTR_CTRL, 3)
    cpu.wrmsr(IA32_PERF_GLOBAL_CTRL, 1 << 32)
    uc.emu_start(CODE, end)
    assert cpu.rdmsr(IA32_FIXED_CTR0) == 1 + 200 + 1


def test_a_refused_access_leaves_the_link_usable():
    uc, end, cpu, _ = attached(LOOP)
    with pytest.raises(GeneralProtection):
        cpu.wrmsr(IA32_LBR_CTL, 1 << 40)
    cpu.wrmsr(IA32_LBR_CTL, ALL)
    uc.emu_start(CODE, end)
    assert cpu.records()["from"].all()


def test_a_detached_processor_has_its_own_methods():
    uc, end, cpu, link = attached(LOOP)
    assert cpu.rdmsr.__wrapped__
    link.detach()
    assert cpu.rdmsr.__func__ is Processor.rdmsr and "rdmsr" not in vars(cpu)


def test_a_link_prints_its_records():
    uc, end, cpu, link = attached("call 1f\njmp 2f\n1: ret\n2: nop")
    assert str(link) == "no branch is recorded"
    cpu.wrmsr(IA32_LBR_CTL, ALL)
    uc.emu_start(CODE, end)
    link.symbols = {"main": CODE, "callee": CODE + 7}
    assert str(link).splitlines() == [
        "0 0x10005 main+0x5 -> 0x10008 callee+0x1 NEAR_REL_JMP  cycles 1",
        "1 0x10007 callee   -> 0x10005 main+0x5   NEAR_RET      cycles 1",
        "2 0x10000 main     -> 0x10007 callee     NEAR_REL_CALL"]  # the first one: cycles not known


def test_classes_of_records_without_a_type_are_read_from_the_code():
    uc, end = engine("call 1f\njmp 2f\n1: ret\n2: nop")
    cpu = Processor("skylake")
    link = attach(uc, cpu)
    cpu.wrmsr(IA32_DEBUGCTL, 1)
    uc.emu_start(CODE, end)
    assert [line.split()[4] for line in str(link).splitlines()] == [
        "NEAR_REL_JMP", "NEAR_RET", "NEAR_REL_CALL"]
    uc.mem_write(CODE + 7, b"\x90")
    assert "other code by now" in str(link).splitlines()[1]
