"""PMU version 6, architectural PEBS and FRED: the model of 2025 that has them."""

import struct

import numpy as np
import pytest

from lbrcore import BranchClass
from pylbr.arch import architectural, find, model
from pylbr.arch.cpuid import cpuid
from pylbr.cli import main
from pylbr.cpu import Processor, fred
from pylbr.errors import ConfigurationError, GeneralProtection, UnsupportedFeature
from tests.cpu.helpers import some_branches
from tests.manual import (
    CTL_CLASSES,
    CTL_CPL,
    CTL_LBREN,
    CTL_OS,
    CTL_OTHER_BRANCH,
    CTL_USR,
    DEBUGCTL_FREEZE_LBRS_ON_PMI,
    EVTSEL_EN,
    EVTSEL_EN_LBR_LOG,
    EVTSEL_INT,
    EVTSEL_USR,
    IA32_A_PMC0,
    IA32_DEBUGCTL,
    IA32_FIXED_CTR0,
    IA32_FIXED_CTR_CTRL,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_PEBS_ENABLE,
    IA32_PERF_GLOBAL_CTRL,
    IA32_PERF_GLOBAL_STATUS,
    IA32_PERFEVTSEL0,
    MSR_PEBS_DATA_CFG,
)

NAME = "arch-pebs-2025"
CTL, ALL = IA32_LBR_CTL, CTL_CLASSES | CTL_CPL | CTL_LBREN
# Registers that this model alone has.
GP_CTR, CFG_A, CFG_C, FX_CTR, FX_CFG_C = 0x1900, 0x1901, 0x1903, 0x1980, 0x1983
PEBS_BASE, PEBS_INDEX, FRED_RSP, FRED_SSP, FRED_CFG = 0x3F4, 0x3F5, 0x1CC, 0x1D1, 0x1D4
RETIRED = 0xC4                  # branches, by CFG_A
WIDTH = 1 << 48


class Buffer:
    """Takes the records."""

    def __init__(self):
        self.records, self.pmis = [], 0

    def pebs(self, cpu, counter, record):
        self.records.append((counter, record))

    def pmi(self, cpu):
        self.pmis += 1
        return False


def armed(lbr, period=40, buffer=None, reload=0):
    """Counter 0 has `period` branches to go, and writes records with that LBR group."""
    cpu = Processor(NAME, buffer or Buffer())
    cpu.wrmsr(CTL, ALL)
    cpu.wrmsr(CFG_A, RETIRED | EVTSEL_USR | EVTSEL_INT | EVTSEL_EN)
    cpu.wrmsr(GP_CTR, WIDTH - period)
    cpu.wrmsr(CFG_C, 1 << 63 | lbr << 40 | reload)
    return cpu


def parsed(record):
    """Header, basic group, and the LBR group's header and entries, newest first."""
    words = list(struct.unpack(f"<{len(record) // 8}Q", record))
    header, rest = words[0], words[8:]
    assert header & 0xFFFF == len(record) and header >> 63 == 1 and words[1] == 0
    kind = header >> 40 & 3
    if not kind:
        assert not rest
        return words[2:8], None, []
    entries = [tuple(rest[at:at + 3]) for at in range(6, len(rest), 3)]
    assert len(entries) == (rest[2] if kind == 3 else 8 * kind)
    return words[2:8], rest[:6], entries


@pytest.mark.parametrize(("lbr", "depth", "count"), [
    (0, 32, 0), (1, 32, 8), (2, 32, 16), (3, 32, 32), (3, 16, 16), (3, 8, 8), (2, 8, 16)])
def test_groups_of_8_16_and_as_many_as_there_are(lbr, depth, count):
    buffer = Buffer()
    cpu = armed(lbr, buffer=buffer)
    cpu.wrmsr(IA32_LBR_DEPTH, depth)
    cpu.record(some_branches(40, classes=(0,)))
    [(counter, record)] = buffer.records
    basic, header, entries = parsed(record)
    assert counter == 0 and basic[1] == 1 and len(entries) == count and not buffer.pmis
    if count:
        assert header[1:3] == [ALL, depth] and header[0] == 0
        expected = [tuple(int(v) for v in entry) for entry in cpu.records()[:count].tolist()]
        assert entries[:len(expected)] == expected
        assert all(entry == (0, 0, 0) for entry in entries[len(expected):])


def test_ler_is_in_the_groups_header():
    buffer = Buffer()
    cpu = armed(1, period=3, buffer=buffer)
    cpu.branch(BranchClass.COND, 0x1000, 0x2000)
    cpu.branch(BranchClass.EXCEPTION, 0x2004, 0xFFFF800000000000, cpl_to=0)
    while not buffer.records:
        cpu.branch(BranchClass.COND, 0x3000, 0x4000)
    _, header, _ = parsed(buffer.records[0][1])
    assert header[3:5] == [0x1000, 0x2000]


def test_a_fixed_counter_has_a_group_of_its_own():
    buffer = Buffer()
    cpu = armed(0, period=10_000, buffer=buffer)
    cpu.wrmsr(IA32_FIXED_CTR_CTRL, 0xB)  # fixed counter 0: instructions, at every level, with a PMI
    cpu.wrmsr(IA32_PERF_GLOBAL_CTRL, cpu.rdmsr(IA32_PERF_GLOBAL_CTRL) | 1 << 32)
    cpu.wrmsr(FX_CTR, WIDTH - 5)
    cpu.wrmsr(FX_CFG_C, 1 << 63 | 1 << 40)
    branches = some_branches(20, classes=(0,))
    branches["instructions"] = 1
    cpu.record(branches)
    assert [counter for counter, _ in buffer.records] == [32]
    basic, _, entries = parsed(buffer.records[0][1])
    assert basic[1] == 1 << 32 and len(entries) == 8


def test_without_en_an_overflow_is_a_pmi():
    buffer = Buffer()
    cpu = armed(1, buffer=buffer)
    cpu.wrmsr(CFG_C, 1 << 40)
    cpu.record(some_branches(40, classes=(0,)))
    assert not buffer.records and buffer.pmis == 1 and cpu.rdmsr(IA32_PERF_GLOBAL_STATUS) & 1


def test_the_counter_continues_with_reload():
    buffer = Buffer()
    cpu = armed(1, period=10, buffer=buffer, reload=-10 & 0xFFFFFFFF)
    cpu.record(some_branches(40, classes=(0,)))
    assert len(buffer.records) == 4


def test_the_threshold_is_bit_54():
    cpu = Processor(NAME)
    cpu.wrmsr(CTL, ALL)
    cpu.wrmsr(IA32_DEBUGCTL, DEBUGCTL_FREEZE_LBRS_ON_PMI)
    cpu.pebs_threshold()
    assert cpu.rdmsr(IA32_PERF_GLOBAL_STATUS) == 1 << 54 | 1 << 58


def test_two_numbers_of_one_register():
    cpu = Processor(NAME)
    for n in range(8):
        cpu.wrmsr(CFG_A + 4 * n, RETIRED | EVTSEL_EN | n << 24)
        assert cpu.rdmsr(IA32_PERFEVTSEL0 + n) == RETIRED | EVTSEL_EN | n << 24
        cpu.wrmsr(IA32_A_PMC0 + n, 77 + n)
        assert cpu.rdmsr(GP_CTR + 4 * n) == 77 + n
    for n in range(3):
        cpu.wrmsr(IA32_FIXED_CTR0 + n, 7 + n)
        assert cpu.rdmsr(FX_CTR + 4 * n) == 7 + n


@pytest.mark.parametrize(("index", "value"), [
    (CFG_C, 1 << 32), (CFG_C, 1 << 42), (FX_CFG_C, 1 << 39), (PEBS_BASE, 1 << 4),
    (PEBS_INDEX, 1), (PEBS_INDEX, 1 << 63), (FRED_CFG, 1 << 2), (FRED_CFG, 1 << 60),
    (FRED_RSP, 1), (FRED_SSP, 4), (IA32_PEBS_ENABLE, 0), (MSR_PEBS_DATA_CFG, 0),
    (GP_CTR + 4 * 8, 0), (FX_CTR + 4 * 3, 0)])
def test_reserved_bits_and_registers_that_are_not_there(index, value):
    with pytest.raises(GeneralProtection):
        Processor(NAME).wrmsr(index, value)


@pytest.mark.parametrize("index", [CFG_C, PEBS_BASE, PEBS_INDEX, FRED_CFG, GP_CTR, FRED_RSP])
def test_other_models_have_none_of_the_registers(index):
    with pytest.raises(GeneralProtection):
        Processor("sierra-forest").rdmsr(index)


def test_shadow_stacks_are_numbered_from_1():
    assert [find(model(NAME), f"IA32_FRED_SSP{n}").index for n in (1, 2, 3)] == [
        FRED_SSP, FRED_SSP + 1, FRED_SSP + 2]
    for level in (0, 4):
        with pytest.raises(ConfigurationError):
            find(model(NAME), f"IA32_FRED_SSP{level}")


@pytest.mark.parametrize("bit", range(12))
def test_reserved_bits_of_the_configuration_are_those_of_other_sources(bit):
    cpu = Processor(NAME)
    if 0x834 >> bit & 1:
        with pytest.raises(GeneralProtection):
            cpu.wrmsr(FRED_CFG, 1 << bit)
    else:
        cpu.wrmsr(FRED_CFG, 1 << bit)
        assert cpu.rdmsr(FRED_CFG) == 1 << bit


def test_cpuid():
    m = model(NAME)
    assert cpuid(m, 0)[0] == 0x23 and cpuid(m, 7, 1)[0] == 1 << 8 | 1 << 17 | 1 << 18
    assert cpuid(m, 0xA)[0] & 0xFF == 6
    assert cpuid(m, 0x23, 0)[0] == 0b111011
    assert cpuid(m, 0x23, 1)[:2] == (0xFF, 7)
    assert cpuid(m, 0x23, 4)[1] << 32 == 3 << 40 | 1 << 61 | 1 << 62
    assert cpuid(m, 0x23, 5) == (0xFF, 0, 7, 0)
    assert cpuid(m, 0x1C)[2] >> 16 == 0xF  # event logging
    assert cpuid(model("sierra-forest"), 0x23, 4) == (0, 0, 0, 0)


def test_the_state_is_saved_and_restored():
    buffer = Buffer()
    cpu = armed(2, buffer=buffer)
    cpu.wrmsr(FRED_CFG, 0xFFFF800000001000 | 1 << 9)
    cpu.record(some_branches(20, classes=(0,)))
    again = Processor.from_state(cpu.state(), buffer)
    assert again.state() == cpu.state()
    again.record(some_branches(20, classes=(0,)))
    assert len(buffer.records) == 1 and again.rdmsr(FRED_CFG) == cpu.rdmsr(FRED_CFG)


def test_event_logging_counts_in_version_6_too():
    cpu = armed(0, period=10_000)
    cpu.wrmsr(CFG_C, 0)
    cpu.wrmsr(CFG_A, RETIRED | EVTSEL_USR | EVTSEL_EN | EVTSEL_EN_LBR_LOG)
    cpu.record(some_branches(8, classes=(0,)))
    assert (cpu.records()["info"][:8] >> np.uint64(32) & np.uint64(3)).tolist() == [1] * 8


@pytest.mark.parametrize("bad", [
    {"version": 5, "extended": True}, {"version": 6, "extended": False},
    {"version": 6, "extended": True, "pebs_format": 5}])
def test_models_that_cannot_be(bad):
    from dataclasses import replace
    pmu = replace(model(NAME).pmu, arch_pebs=True, **bad)
    with pytest.raises(ConfigurationError, match="PEBS"):
        architectural("x", base=NAME, pmu=pmu)


# FRED

ENTRY = 0xFFFF800000001000
MODES = {"both": ALL, "user": ALL & ~CTL_OS, "kernel": ALL & ~CTL_USR}
ONES = (1 << 64) - 1


def entries(cpu):
    return [(int(e["from"]), int(e["to"]), int(e["info"]) >> 56 & 15)
            for e in cpu.records() if e["from"]]


def with_fred(ctl):
    cpu = Processor(NAME)
    cpu.wrmsr(CTL, ctl)
    cpu.wrmsr(FRED_CFG, ENTRY)
    return cpu


@pytest.mark.parametrize("cls", sorted(fred.DELIVERED))
@pytest.mark.parametrize("mode", MODES)
def test_a_delivery_and_its_return(cls, mode):
    """From user code and back; the same from the supervisor."""
    cpu = with_fred(MODES[mode])
    fred.deliver(cpu, cls, 0x401000, cpl=3)
    fred.eretu(cpu, ENTRY + 0x40, 0x401002)
    assert entries(cpu) == {
        "both": [(ENTRY + 0x40, 0x401002, 8), (0x401000, ENTRY, 8)],
        "user": [(ONES, 0x401002, 8)],
        "kernel": [(ONES, ENTRY, 8)]}[mode]
    cpu = with_fred(MODES[mode])
    fred.deliver(cpu, cls, ENTRY + 0x80, cpl=0)
    fred.erets(cpu, ENTRY + 0x140, ENTRY + 0x82)
    assert entries(cpu) == ([] if mode == "user" else [
        (ENTRY + 0x140, ENTRY + 0x82, 8), (ENTRY + 0x80, ENTRY + 256, 8)])


def test_only_other_branch_lets_them_in():
    cpu = with_fred(ALL & ~CTL_OTHER_BRANCH)
    fred.deliver(cpu, BranchClass.INTERRUPT, 0x401000, cpl=3)
    fred.eretu(cpu, ENTRY, 0x401000)
    assert not entries(cpu)


def test_a_debug_exception_makes_no_record_and_clears_lbren():
    cpu = with_fred(MODES["both"])
    fred.debug_exception(cpu)
    assert not entries(cpu) and cpu.rdmsr(CTL) == ALL & ~CTL_LBREN


def test_what_fred_does_not_deliver():
    cpu = with_fred(MODES["both"])
    with pytest.raises(ValueError, match="FRED does not deliver NEAR_RET"):
        fred.deliver(cpu, BranchClass.NEAR_RET, 1, cpl=3)
    old = Processor("sierra-forest")
    for act in (lambda: fred.eretu(old, 1, 2), lambda: fred.handler(old, 3)):
        with pytest.raises(UnsupportedFeature, match="sierra-forest has no FRED"):
            act()


def test_commands(capsys):
    assert main(["cpuid", "-m", NAME, "0x23", "5"]) == 0
    assert main(["msr", "-m", NAME, "IA32_PMC_GP1_CFG_C", "0x8000020000000000"]) == 0
    assert main(["cpuid", "--models"]) == 0
    out = capsys.readouterr().out
    assert "general counters with PEBS, bitmap" in out and "PMU v6" in out and NAME in out
