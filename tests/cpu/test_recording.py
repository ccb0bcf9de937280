"""Counters and PMIs around the record path."""

import struct

import numpy as np
import pytest

from lbrcore import BranchClass
from pylbr.arch import MODELS, architectural, model
from pylbr.cpu import Processor
from tests.cpu.helpers import Listener, some_branches, taken
from tests.manual import (
    DEBUGCTL_FREEZE_LBRS_ON_PMI,
    DEBUGCTL_FREEZE_PERFMON_ON_PMI,
    EVTSEL_EN,
    EVTSEL_INT,
    EVTSEL_OS,
    EVTSEL_USR,
    IA32_A_PMC0,
    IA32_DEBUGCTL,
    IA32_FIXED_CTR0,
    IA32_FIXED_CTR_CTRL,
    IA32_LBR_0_INFO,
    IA32_LBR_CTL,
    IA32_PEBS_ENABLE,
    IA32_PERF_GLOBAL_CTRL,
    IA32_PERF_GLOBAL_INUSE,
    IA32_PERF_GLOBAL_STATUS,
    IA32_PERF_GLOBAL_STATUS_RESET,
    IA32_PERF_GLOBAL_STATUS_SET,
    IA32_PERFEVTSEL0,
    IA32_PMC0,
    MSR_LASTBRANCH_TOS,
    MSR_PEBS_DATA_CFG,
    RECORD_ALL,
    STATUS_CTR_FRZ,
    STATUS_LBR_FRZ,
    STATUS_OVFBUF,
)

CTL, ALL = IA32_LBR_CTL, RECORD_ALL
EVTSEL0, PMC0, A_PMC0, FIXED0 = IA32_PERFEVTSEL0, IA32_PMC0, IA32_A_PMC0, IA32_FIXED_CTR0
FIXED_CTRL = IA32_FIXED_CTR_CTRL
STATUS, GLOBAL_CTRL = IA32_PERF_GLOBAL_STATUS, IA32_PERF_GLOBAL_CTRL
STATUS_RESET, STATUS_SET = IA32_PERF_GLOBAL_STATUS_RESET, IA32_PERF_GLOBAL_STATUS_SET
INUSE = IA32_PERF_GLOBAL_INUSE
DEBUGCTL, TOS = IA32_DEBUGCTL, MSR_LASTBRANCH_TOS
LBR_FRZ, CTR_FRZ = STATUS_LBR_FRZ, STATUS_CTR_FRZ
BRANCH_INSTRUCTIONS, MISPREDICTS = 0x00C4, 0x00C5
USR, OS, INT, EN = EVTSEL_USR, EVTSEL_OS, EVTSEL_INT, EVTSEL_EN


def armed(event=BRANCH_INSTRUCTIONS, minus=10, name="sapphire-rapids", listener=None, flags=USR
          | OS | INT):
    cpu = Processor(name, listener or Listener())
    cpu.wrmsr(CTL, ALL)
    cpu.wrmsr(EVTSEL0, event | flags | EN)
    cpu.wrmsr(A_PMC0, (1 << 48) - minus)
    return cpu


def test_a_counter_overflows_at_the_exact_branch():
    branches = some_branches(1000)
    seen = []
    listener = Listener(lambda cpu: seen.append(cpu.records()[0]["from"]))
    cpu = armed(minus=700, listener=listener)
    assert cpu.record(branches) == 1000
    assert len(listener.pmis) == 1 and cpu.rdmsr(STATUS) == 1
    upto = taken(branches[:700])
    assert seen == [upto[-1]["from"]]
    assert cpu.rdmsr(PMC0) == 300, "the counter continues from 0"


@pytest.mark.parametrize("event, count", [
    (BRANCH_INSTRUCTIONS, lambda b: np.ones(len(b), int)),
    (MISPREDICTS, lambda b: (b["flags"] & 4 != 0).astype(int)),
    (0x00C0, lambda b: b["instructions"].astype(int)),
    (0x003C, lambda b: b["cycles"].astype(int)),
    (0x20C4, lambda b: (b["class"] != BranchClass.NOT_TAKEN).astype(int)),
    (0x10C4, lambda b: (b["class"] == BranchClass.NOT_TAKEN).astype(int)),
    (0x11C4, lambda b: np.isin(b["class"], (0, 6)).astype(int)),
    (0x02C4, lambda b: np.isin(b["class"], (3, 4)).astype(int)),
    (0x08C4, lambda b: (b["class"] == 5).astype(int)),
    (0x80C4, lambda b: np.isin(b["class"], (1, 3)).astype(int)),
])
def test_what_events_count(event, count):
    branches = some_branches(5000, seed=event)
    amounts = count(branches)
    cpu = armed(event, minus=1 << 47)
    cpu.wrmsr(PMC0, 0)
    cpu.record(branches)
    assert cpu.rdmsr(PMC0) == amounts.sum()
    limit = int(amounts.sum()) // 2
    stopped = Listener(lambda cpu: True)
    cpu = armed(event, minus=limit, listener=stopped)
    taken_n = cpu.record(branches)
    assert taken_n == int(np.searchsorted(np.cumsum(amounts), limit)) + 1
    one_by_one = armed(event, minus=limit, listener=Listener(lambda cpu: True))
    alone = 0
    for b in branches:
        alone += 1
        if one_by_one.branch(*(int(b[k]) for k in ("class", "from", "to")),
                             flags=int(b["flags"]), cycles=int(b["cycles"]),
                             instructions=int(b["instructions"])):
            break
    assert alone == taken_n
    assert one_by_one.state() == cpu.state()


@pytest.mark.parametrize("flags, cpl, counts", [
    (USR, 3, True), (USR, 0, False), (OS, 0, True), (OS, 3, False), (0, 3, False)])
def test_privilege_levels_of_counters(flags, cpl, counts):
    cpu = armed(flags=flags)
    cpu.wrmsr(PMC0, 0)
    cpu.record(some_branches(100, cpl=cpl))
    assert cpu.rdmsr(PMC0) == (100 if counts else 0)


@pytest.mark.parametrize("flags", [1 << 18, 1 << 23, 1 << 24])
def test_conditions_that_a_stream_does_not_carry_count_nothing(flags):
    cpu = armed(flags=USR | flags)
    cpu.wrmsr(PMC0, 0)
    cpu.record(some_branches(100))
    assert cpu.rdmsr(PMC0) == 0


def test_events_that_are_no_instructions_are_not_counted():
    cpu = armed()
    cpu.wrmsr(PMC0, 0)
    for cls in BranchClass:
        cpu.branch(cls, 0x10, 0x20)
    assert cpu.rdmsr(PMC0) == 13  # all but INTERRUPT, EXCEPTION and TSX_ABORT


def test_in_tx_counts_transactions_only():
    cpu = armed(flags=USR | 1 << 32)
    cpu.wrmsr(PMC0, 0)
    cpu.record(some_branches(10))
    cpu.tsx_begin()
    cpu.record(some_branches(7))
    cpu.branch(0, 1, 2)
    cpu.tsx_commit()
    cpu.record(some_branches(5))
    assert cpu.rdmsr(PMC0) == 8


def test_fixed_counters():
    branches = some_branches(300)
    cpu = Processor("sapphire-rapids")
    cpu.wrmsr(FIXED_CTRL, 0x3 | 0x3 << 4 | 0x3 << 8)
    cpu.wrmsr(GLOBAL_CTRL, 7 << 32)
    cpu.record(branches)
    assert cpu.rdmsr(FIXED0) == branches["instructions"].sum()
    assert cpu.rdmsr(FIXED0 + 1) == branches["cycles"].sum()
    assert cpu.rdmsr(FIXED0 + 2) == 0, "reference cycles are not in a stream"


def test_fixed_counter_pmi_and_status_bit():
    listener = Listener()
    cpu = Processor("sapphire-rapids", listener)
    cpu.wrmsr(FIXED_CTRL, 0xB)
    cpu.wrmsr(GLOBAL_CTRL, 1 << 32)
    cpu.wrmsr(FIXED0, (1 << 48) - 5)
    cpu.branch(0, 1, 2, instructions=6)
    assert cpu.rdmsr(STATUS) == 1 << 32 and listener.pmis == [1 << 32]
    assert cpu.rdmsr(FIXED0) == 1


@pytest.mark.parametrize("how", ["evtsel", "global", "frozen"])
def test_a_counter_that_is_off_counts_nothing(how):
    cpu = armed()
    cpu.wrmsr(PMC0, 0)
    if how == "evtsel":
        cpu.wrmsr(EVTSEL0, BRANCH_INSTRUCTIONS | USR)
    elif how == "global":
        cpu.wrmsr(GLOBAL_CTRL, 0)
    else:
        cpu.wrmsr(STATUS_SET, CTR_FRZ)
    cpu.record(some_branches(10))
    assert cpu.rdmsr(PMC0) == 0


def test_pmc_writes_are_sign_extended_and_full_width_ones_not():
    cpu = Processor("sapphire-rapids")
    cpu.wrmsr(PMC0, 0xFFFFFFF6)
    assert cpu.rdmsr(PMC0) == cpu.rdmsr(A_PMC0) == (1 << 48) - 10
    cpu.wrmsr(PMC0, 0xABC7FFFFFFF)
    assert cpu.rdmsr(PMC0) == 0x7FFFFFFF
    cpu.wrmsr(A_PMC0, 0xFFFFFFF6)
    assert cpu.rdmsr(PMC0) == 0xFFFFFFF6
    narrow = Processor("core2")
    narrow.wrmsr(PMC0, 0x80000000)
    assert narrow.rdmsr(PMC0) == 0xFF80000000


def test_no_pmi_without_int():
    listener = Listener()
    cpu = armed(listener=listener, flags=USR)
    cpu.wrmsr(DEBUGCTL, DEBUGCTL_FREEZE_LBRS_ON_PMI)
    cpu.record(some_branches(20))
    assert cpu.rdmsr(STATUS) == 1 and not listener.pmis


def test_two_counters_that_overflow_on_one_branch_raise_one_pmi():
    listener = Listener()
    cpu = armed(minus=10, listener=listener)
    cpu.wrmsr(EVTSEL0 + 1, BRANCH_INSTRUCTIONS | USR | INT | EN)
    cpu.wrmsr(A_PMC0 + 1, (1 << 48) - 10)
    cpu.record(some_branches(50))
    assert listener.pmis == [3]


# Freeze (spec 1.6)

def test_streamlined_freeze_sets_a_bit_and_keeps_the_enable():
    cpu = armed(minus=10)
    cpu.wrmsr(DEBUGCTL, DEBUGCTL_FREEZE_LBRS_ON_PMI)
    branches = some_branches(100, classes=(0,))
    cpu.record(branches)
    assert cpu.rdmsr(STATUS) == 1 | LBR_FRZ
    assert cpu.rdmsr(CTL) == ALL
    assert cpu.records()[0]["from"] == branches[9]["from"], "the overflowing branch is the last"
    cpu.wrmsr(STATUS_RESET, LBR_FRZ)
    assert cpu.rdmsr(STATUS) == 1
    cpu.record(branches[:1])
    assert cpu.records()[0]["from"] == branches[0]["from"]
    assert cpu.records()[0]["info"] >> 60 & 1 == 0, "cycles have nothing to count from"


def test_status_set_freezes_too():
    cpu = armed()
    cpu.wrmsr(STATUS_SET, LBR_FRZ)
    cpu.branch(0, 1, 2)
    assert not cpu.records()["from"].any()
    assert cpu.rdmsr(STATUS_SET) == cpu.rdmsr(STATUS_RESET) == 0


@pytest.mark.parametrize("name", ["core2", "nehalem", "sandy-bridge", "haswell"])
def test_legacy_freeze_clears_the_enable(name):
    cpu = Processor(name, Listener())
    cpu.wrmsr(DEBUGCTL, 1 | DEBUGCTL_FREEZE_LBRS_ON_PMI)
    cpu.wrmsr(GLOBAL_CTRL, 1)
    cpu.wrmsr(EVTSEL0, BRANCH_INSTRUCTIONS | USR | INT | EN)
    cpu.wrmsr(PMC0, 0xFFFFFFFF & -2)
    cpu.record(some_branches(5, classes=(0,)))
    assert cpu.rdmsr(DEBUGCTL) == DEBUGCTL_FREEZE_LBRS_ON_PMI
    assert cpu.rdmsr(TOS) == 2
    cpu.wrmsr(DEBUGCTL, 1 | DEBUGCTL_FREEZE_LBRS_ON_PMI)
    cpu.branch(0, 1, 2)
    assert cpu.rdmsr(TOS) == 3


def test_legacy_flavour_with_a_streamlined_freeze():
    cpu = Processor("skylake", Listener())
    cpu.wrmsr(DEBUGCTL, 1 | DEBUGCTL_FREEZE_LBRS_ON_PMI)
    cpu.wrmsr(EVTSEL0, BRANCH_INSTRUCTIONS | USR | INT | EN)
    cpu.wrmsr(PMC0, 0xFFFFFFFF & -2)
    cpu.record(some_branches(5, classes=(0,)))
    assert cpu.rdmsr(DEBUGCTL) == 1 | DEBUGCTL_FREEZE_LBRS_ON_PMI
    assert cpu.rdmsr(STATUS) == 1 | LBR_FRZ
    assert cpu.rdmsr(TOS) == 2
    cpu.wrmsr(STATUS_RESET, LBR_FRZ | 1)
    cpu.branch(0, 1, 2)
    assert cpu.rdmsr(TOS) == 3


def test_no_freeze_unless_asked():
    cpu = armed(minus=10)
    cpu.record(some_branches(100, classes=(0,)))
    assert cpu.rdmsr(STATUS) == 1
    assert np.count_nonzero(cpu.records()["from"]) == 32


@pytest.mark.parametrize("name, frozen", [("sapphire-rapids", True), ("haswell", False)])
def test_freeze_perfmon(name, frozen):
    cpu = Processor(name, Listener())
    cpu.wrmsr(GLOBAL_CTRL, 1)
    cpu.wrmsr(DEBUGCTL, DEBUGCTL_FREEZE_PERFMON_ON_PMI)
    cpu.wrmsr(EVTSEL0, BRANCH_INSTRUCTIONS | USR | INT | EN)
    cpu.wrmsr(PMC0, 0xFFFFFFFF & -2)
    cpu.record(some_branches(5))
    assert cpu.rdmsr(PMC0) == 0
    assert bool(cpu.rdmsr(STATUS) & CTR_FRZ) is frozen
    assert cpu.rdmsr(GLOBAL_CTRL) == int(frozen)


def test_freeze_on_a_version_2_pmu_with_architectural_lbrs():
    from dataclasses import replace

    base = model("sapphire-rapids")
    cpu = Processor(architectural(pmu=replace(base.pmu, version=3)), Listener())
    cpu.wrmsr(CTL, ALL)
    cpu.wrmsr(DEBUGCTL, DEBUGCTL_FREEZE_LBRS_ON_PMI)
    cpu.raise_pmi()
    assert cpu.rdmsr(CTL) == ALL & ~1


# The handler

def test_the_handler_drains_and_rearms_within_a_batch():
    drained = []

    def handler(cpu):
        drained.append(cpu.records()["from"].copy())
        cpu.wrmsr(A_PMC0, (1 << 48) - 100)
        cpu.wrmsr(STATUS_RESET, 1 | LBR_FRZ)

    branches = some_branches(1050, classes=(0,))
    cpu = armed(minus=100, listener=Listener(handler))
    cpu.wrmsr(DEBUGCTL, DEBUGCTL_FREEZE_LBRS_ON_PMI)
    assert cpu.record(branches) == 1050
    assert len(drained) == 10
    for n, froms in enumerate(drained, 1):
        assert froms.tolist() == branches["from"][100 * n - 32:100 * n][::-1].tolist()


@pytest.mark.parametrize("change", ["tsx", "mode", "base"])
def test_what_the_handler_changes_holds_for_the_rest_of_the_batch(change):
    """A PMI that aborts a transaction, or a kernel with another code segment."""
    def handler(cpu):
        if change == "tsx" and cpu.mode.in_tsx:
            cpu.tsx_abort(0x10, 0x20)
        elif change == "mode":
            cpu.mode.long_mode = False
        elif change == "base":
            cpu.mode.cs_base = 0x1000

    branches = some_branches(140, classes=(0,))
    branches["to"] |= np.uint64(1 << 40)
    batch, single = (armed(minus=115, listener=Listener(handler)) for _ in range(2))
    for cpu in (batch, single):
        if change == "tsx":
            cpu.tsx_begin()
    batch.record(branches)
    for b in branches:
        single.branch(0, int(b["from"]), int(b["to"]), flags=int(b["flags"]),
                      cycles=int(b["cycles"]), instructions=int(b["instructions"]))
    assert batch.state() == single.state()
    assert batch.mode.cs_base == (0x1000 if change == "base" else 0)
    first, later = batch.records()[[0, -1]]
    assert (first["info"] ^ later["info"]) >> np.uint64(62) & np.uint64(1) == (change == "tsx")


def test_a_retirement_out_of_range_changes_nothing():
    cpu = armed()
    before = cpu.state()
    for wrong in ({"instructions": -1}, {"instructions": 1 << 32},
                  {"instructions": 1, "cycles": -1}, {"instructions": 1, "cpl": 4}):
        with pytest.raises(OverflowError):
            cpu.retire(**wrong)
    assert cpu.state() == before


def test_the_handler_may_stop_the_batch():
    cpu = armed(minus=100, listener=Listener(lambda cpu: True))
    branches = some_branches(150, classes=(0,))
    assert cpu.record(branches) == 100
    assert cpu.record(branches[100:]) == 50
    assert cpu.records()["from"][0] == branches["from"][-1]


@pytest.mark.parametrize("pebs", [False, True])
def test_what_a_listener_raises_ends_the_batch_at_that_branch(pebs):
    class Broken(Listener):
        def pmi(self, cpu):
            raise RuntimeError("disk full")

        def pebs(self, cpu, counter, record):
            raise RuntimeError("disk full")

    branches = some_branches(150, classes=(0,))
    cpu = armed(minus=100, listener=Broken())
    cpu.wrmsr(IA32_PEBS_ENABLE, int(pebs))
    with pytest.raises(RuntimeError, match="disk full") as error:
        cpu.record(branches)
    assert error.value.__notes__ == [
        "raised by a listener after branch 99; branches[100:] are not taken"]
    assert cpu.records()["from"][0] == branches["from"][99] and cpu.rdmsr(A_PMC0) == 0
    cpu.wrmsr(A_PMC0, 0)
    assert cpu.record(branches[100:]) == 50


def test_in_use_follows_the_control_registers():
    cpu = Processor("sapphire-rapids")
    assert cpu.rdmsr(INUSE) == 0
    cpu.wrmsr(EVTSEL0 + 2, BRANCH_INSTRUCTIONS | USR)
    cpu.wrmsr(FIXED_CTRL, 0x30)
    assert cpu.rdmsr(INUSE) == 1 << 2 | 1 << 33
    cpu.wrmsr(EVTSEL0 + 2, BRANCH_INSTRUCTIONS | USR | INT)
    assert cpu.rdmsr(INUSE) == 1 << 2 | 1 << 33 | 1 << 63


# Event logging

def test_logged_events_are_those_of_the_counters():
    cpu = Processor("sierra-forest")
    cpu.wrmsr(CTL, ALL)
    cpu.wrmsr(EVTSEL0, MISPREDICTS | USR | EN | 1 << 35)
    cpu.wrmsr(EVTSEL0 + 1, 0x00C0 | USR | EN | 1 << 35)
    cpu.wrmsr(EVTSEL0 + 3, 0x1234 | USR | EN | 1 << 35)
    for flags in (4, 4, 0):
        cpu.branch(BranchClass.NOT_TAKEN, 1, 2, flags=flags)
    cpu.branch(0, 1, 2, flags=4, events=(0, 0, 3, 2))
    info = cpu.rdmsr(IA32_LBR_0_INFO)
    assert info >> 32 & 0xFF == 0b10_00_11_11, "3 mispredicts, 3 instructions, none, 2 as given"
    batch = Processor("sierra-forest")
    batch.wrmsr(CTL, ALL)
    for n, value in enumerate((MISPREDICTS, 0x00C0)):
        batch.wrmsr(EVTSEL0 + n, value | USR | EN | 1 << 35)
    branches = some_branches(200)
    batch.record(branches)
    single = Processor("sierra-forest")
    single.wrmsr(CTL, ALL)
    for n, value in enumerate((MISPREDICTS, 0x00C0)):
        single.wrmsr(EVTSEL0 + n, value | USR | EN | 1 << 35)
    for b in branches:
        single.branch(int(b["class"]), int(b["from"]), int(b["to"]), flags=int(b["flags"]),
                      cycles=int(b["cycles"]), instructions=int(b["instructions"]))
    assert single.state() == batch.state()


def test_nothing_is_logged_unless_asked():
    cpu = Processor("sierra-forest")
    for kind in ("cold", "warm"):
        cpu.wrmsr(CTL, ALL)
        cpu.branch(0, 1, 2, events=(3, 3, 3, 3))
        assert cpu.rdmsr(IA32_LBR_0_INFO) >> 32 & 0xFF == 0
        cpu.wrmsr(EVTSEL0, MISPREDICTS | USR | EN | 1 << 35)
        cpu.branch(0, 1, 2, flags=4)
        assert cpu.rdmsr(IA32_LBR_0_INFO) >> 32 & 0xFF == 1
        cpu.reset(kind)


def test_what_is_logged_follows_the_handler_within_a_batch():
    def handler(cpu):
        cpu.wrmsr(EVTSEL0 + 1, 0x00C4 | USR | EN | 1 << 35)

    cpu = Processor("sierra-forest", Listener(handler))
    cpu.wrmsr(CTL, ALL)
    cpu.wrmsr(EVTSEL0, BRANCH_INSTRUCTIONS | USR | INT | EN)
    cpu.wrmsr(A_PMC0, (1 << 48) - 60)
    cpu.record(some_branches(70, classes=(0,)))
    logged = (cpu.records()["info"] >> np.uint64(34) & np.uint64(3)).tolist()
    assert logged == [1] * 10 + [0] * 22


def test_frozen_counters_log_nothing():
    cpu = Processor("sierra-forest")
    cpu.wrmsr(CTL, ALL)
    cpu.wrmsr(EVTSEL0, BRANCH_INSTRUCTIONS | USR | EN | 1 << 35)
    cpu.wrmsr(STATUS_SET, CTR_FRZ)
    cpu.branch(0, 1, 2, events=(3, 3, 3, 3))
    assert cpu.rdmsr(IA32_LBR_0_INFO) >> 32 & 0xFF == 0
    cpu.wrmsr(STATUS_RESET, CTR_FRZ)
    cpu.branch(0, 1, 2)
    assert cpu.rdmsr(IA32_LBR_0_INFO) >> 32 & 0xFF == 1


def test_only_counters_that_cpuid_names_may_log():
    cpu = Processor(architectural(event_logging=2))
    from pylbr.errors import GeneralProtection

    cpu.wrmsr(EVTSEL0 + 1, 1 << 35)
    with pytest.raises(GeneralProtection, match="1CH"):
        cpu.wrmsr(EVTSEL0, 1 << 35)


# Addresses

def test_effective_addresses_and_modes():
    for lip, base in ((False, 0x10000), (True, 0)):
        cpu = Processor(architectural(lip=lip))
        cpu.wrmsr(CTL, ALL)
        cpu.mode.cs_base, cpu.mode.long_mode = 0x10000, False
        cpu.branch(0, 0x12345, 0x1_0001_2355)
        one = cpu.records()[0]
        assert (one["from"], one["to"]) == (0x12345 - base, 0x12355 - base)
        branches = some_branches(64)
        cpu.record(branches)
        assert cpu.records()["from"][0] == taken(branches)["from"][-1] - base


# PEBS

def test_lbr_group_of_an_adaptive_record():
    listener = Listener(reload=(1 << 48) - 50)
    cpu = armed(minus=50, listener=listener, flags=USR | 1 << 34)
    cpu.wrmsr(IA32_PEBS_ENABLE, 1)
    cpu.wrmsr(MSR_PEBS_DATA_CFG, 1 << 3 | 7 << 24)
    branches = some_branches(120, classes=(0, 5))
    cpu.record(branches)
    assert [counter for counter, _ in listener.records] == [0, 0]
    assert not listener.pmis and cpu.rdmsr(STATUS) == 0
    for n, (_, record) in enumerate(listener.records, 1):
        header, ip, counters, _ = struct.unpack_from("<4Q", record)
        assert header == 8 | len(record) << 48 and len(record) == 32 + 8 * 24
        assert ip == branches["to"][50 * n - 1] and counters == 1
        froms = struct.unpack_from("<24Q", record, 32)[0::3]
        assert list(froms) == branches["from"][50 * n - 8:50 * n][::-1].tolist()


def test_a_record_without_the_adaptive_bit_has_no_lbrs():
    listener = Listener()
    cpu = armed(minus=50, listener=listener, flags=USR)
    cpu.wrmsr(IA32_PEBS_ENABLE, 1)
    cpu.wrmsr(MSR_PEBS_DATA_CFG, 1 << 3 | 7 << 24)
    cpu.record(some_branches(60))
    assert len(listener.records[0][1]) == 32


def test_the_threshold_of_the_pebs_buffer_freezes_as_a_pmi_does():
    listener = Listener()
    cpu = armed(listener=listener)
    cpu.wrmsr(DEBUGCTL, DEBUGCTL_FREEZE_LBRS_ON_PMI)
    cpu.pebs_threshold()
    assert cpu.rdmsr(STATUS) == STATUS_OVFBUF | LBR_FRZ and len(listener.pmis) == 1


@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_a_batch(name):
    cpu = Processor(name)
    branches = some_branches(100)
    assert cpu.record(branches) == 100
    assert not cpu.records()["from"].any(), "recording is off after RESET"
