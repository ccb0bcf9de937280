"""#DB, SMM, resets, C-states, transactions, enclaves, Intel PT (spec 1.4, 1.7, 1.8)."""

import numpy as np
import pytest

from lbrcore import BranchClass
from pylbr.arch import MODELS, architectural
from pylbr.cpu import Processor
from pylbr.errors import GeneralProtection, UnsupportedFeature
from tests.cpu.helpers import some_branches, taken
from tests.manual import (
    DEBUGCTL_FREEZE_LBRS_ON_PMI,
    IA32_DEBUGCTL,
    IA32_LBR_0_FROM_IP,
    IA32_LBR_0_INFO,
    IA32_LBR_0_TO_IP,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_LER_FROM_IP,
    IA32_LER_INFO,
    IA32_LER_TO_IP,
    IA32_PERF_GLOBAL_STATUS,
    IA32_PERF_GLOBAL_STATUS_SET,
    IA32_PERFEVTSEL0,
    IA32_PMC0,
    IA32_RTIT_CTL,
    IA32_XSS,
    MSR_LASTBRANCH_TOS,
    MSR_LBR_SELECT,
    RECORD_ALL,
    RTIT_CTL_TRACEEN,
    STATUS_ASCI,
    STATUS_LBR_FRZ,
)

CTL, DEPTH, DEBUGCTL, TOS = IA32_LBR_CTL, IA32_LBR_DEPTH, IA32_DEBUGCTL, MSR_LASTBRANCH_TOS
SELECT = MSR_LBR_SELECT
STATUS, STATUS_SET = IA32_PERF_GLOBAL_STATUS, IA32_PERF_GLOBAL_STATUS_SET
EVTSEL0, PMC0 = IA32_PERFEVTSEL0, IA32_PMC0
LER_FROM, LER_TO, LER_INFO = IA32_LER_FROM_IP, IA32_LER_TO_IP, IA32_LER_INFO
ONES = (1 << 64) - 1


def running(name="sapphire-rapids", n=40, ctl=RECORD_ALL):
    cpu = Processor(name)
    if cpu.model.arch:
        cpu.wrmsr(CTL, ctl)
    else:
        cpu.wrmsr(DEBUGCTL, 1)
    cpu.record(some_branches(n, classes=(0,)))
    return cpu


def froms(cpu):
    return cpu.records()["from"].tolist()


# Debug exceptions

def test_db_clears_lbren_alone_and_makes_no_record():
    cpu = running()
    before = froms(cpu)
    cpu.debug_exception()
    assert cpu.rdmsr(CTL) == 0x7F0006
    assert froms(cpu) == before
    cpu.branch(0, 1, 2)
    assert froms(cpu) == before


def test_db_clears_debugctl_of_the_legacy_flavour():
    cpu = running("skylake")
    cpu.wrmsr(DEBUGCTL, 1 | 2 | 1 << 6 | DEBUGCTL_FREEZE_LBRS_ON_PMI)
    before = froms(cpu)
    cpu.debug_exception()
    assert cpu.rdmsr(DEBUGCTL) == DEBUGCTL_FREEZE_LBRS_ON_PMI
    cpu.branch(0, 1, 2)
    assert froms(cpu) == before
    p4 = Processor("prescott")
    p4.wrmsr(DEBUGCTL, 0x7F)
    p4.debug_exception()
    assert p4.rdmsr(DEBUGCTL) == 0x78


def test_an_indirect_exit_needs_a_guest():
    with pytest.raises(UnsupportedFeature):
        running().debug_exception(indirect_exit=True)


# Exceptions and interrupts

@pytest.mark.parametrize("cls", [BranchClass.INTERRUPT, BranchClass.EXCEPTION,
                                 BranchClass.SOFT_INT])
def test_events_load_ler_and_are_recorded(cls):
    cpu = running()
    last = taken(some_branches(40, classes=(0,)))[-1]
    cpu.branch(cls, 0x1000, 0xFFFFFFFF81000000, cpl_from=3, cpl_to=0)
    assert cpu.rdmsr(LER_FROM) == last["from"] and cpu.rdmsr(LER_TO) == last["to"]
    assert cpu.rdmsr(IA32_LBR_0_FROM_IP) == 0x1000
    assert cpu.rdmsr(IA32_LBR_0_INFO) >> 56 & 8, "OTHER_BRANCH"


def test_cpl_filter_hides_where_a_transition_comes_from():
    cpu = Processor("sapphire-rapids")
    cpu.wrmsr(CTL, 0x7F0005)  # USR
    cpu.branch(BranchClass.SYSCALL, 0x1000, 0xFFFFFFFF81000000, cpl_from=3, cpl_to=0)
    assert not froms(cpu)[0]
    cpu.branch(BranchClass.SYSRET, 0xFFFFFFFF81000010, 0x1002, cpl_from=0, cpl_to=3)
    assert cpu.rdmsr(IA32_LBR_0_FROM_IP) == ONES and cpu.rdmsr(IA32_LBR_0_TO_IP) == 0x1002
    legacy = Processor("skylake")
    legacy.wrmsr(SELECT, 1)  # suppress CPL 0
    legacy.wrmsr(DEBUGCTL, 1)
    legacy.branch(BranchClass.SYSRET, 0xFFFFFFFF81000010, 0x1002, cpl_from=0, cpl_to=3)
    assert legacy.records()["from"][0] == 0xFFFFFFFF81000010, "legacy parts leak it"


# System management

def test_smi_saves_and_clears_lbren_and_rsm_sets_it_again():
    cpu = running()
    before = froms(cpu)
    cpu.smi()
    assert cpu.rdmsr(CTL) == 0x7F0006
    cpu.branch(0, 1, 2)
    assert froms(cpu) == before
    cpu.wrmsr(CTL, 0x3F0006)
    cpu.rsm(0x8000, 0x1234, cpl_to=3)
    assert cpu.rdmsr(CTL) == 0x3F0007, "RSM sets LBREn alone"
    assert froms(cpu) == before, "OTHER_BRANCH is filtered out now"
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.smi()
    cpu.rsm(0x8000, 0x1234, cpl_to=3)
    assert cpu.rdmsr(IA32_LBR_0_FROM_IP) == 0x8000, "RSM is a far branch"


def test_rsm_does_not_set_an_enable_that_was_clear():
    cpu = running(ctl=0x7F0006)
    cpu.smi()
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.rsm()
    assert cpu.rdmsr(CTL) == 0x7F0006
    with pytest.raises(UnsupportedFeature):
        cpu.rsm()
    cpu.smi()
    with pytest.raises(UnsupportedFeature):
        cpu.smi()


@pytest.mark.parametrize("freeze", [True, False])
def test_freeze_while_smm(freeze):
    cpu = running("skylake")
    value = 1 | 2 | 1 << 6 | 1 << 7 | 1 << 11 | (1 << 14 if freeze else 0)
    cpu.wrmsr(DEBUGCTL, value)
    cpu.wrmsr(EVTSEL0, 0x4300C4)
    cpu.smi()
    assert cpu.rdmsr(DEBUGCTL) == (1 << 11 | 1 << 14 if freeze else value)
    cpu.branch(0, 1, 2, cpl_from=0, cpl_to=0)
    assert cpu.rdmsr(PMC0) == (0 if freeze else 1)
    cpu.rsm()
    assert cpu.rdmsr(DEBUGCTL) == value
    cpu.branch(0, 1, 2)
    assert cpu.rdmsr(PMC0) == (1 if freeze else 2)


# Resets

def test_cold_reset():
    cpu = running()
    cpu.wrmsr(DEPTH, 8)
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.wrmsr(IA32_XSS, 1 << 15)
    cpu.reset("cold")
    assert cpu.state() == Processor("sapphire-rapids").state()


def test_warm_reset_keeps_the_lbr_msrs_but_lbren():
    cpu = running()
    cpu.wrmsr(DEPTH, 16)
    cpu.record(some_branches(20, classes=(0,)))
    cpu.branch(BranchClass.INTERRUPT, 1, 2)
    cpu.wrmsr(STATUS_SET, 1 << 58)
    kept = {i: cpu.rdmsr(i) for i in (IA32_LBR_0_FROM_IP, 0x160F, IA32_LBR_0_INFO, LER_FROM,
                                      LER_TO, DEPTH)}
    cpu.reset("warm")
    assert cpu.rdmsr(CTL) == 0x7F0006 and cpu.rdmsr(DEPTH) == 16
    assert {i: cpu.rdmsr(i) for i in kept} == kept
    assert cpu.rdmsr(STATUS) == 0 and not cpu.lbr.frozen


def test_warm_reset_in_c6_is_a_cold_one_for_the_lbrs():
    cpu = running()
    cpu.wrmsr(DEPTH, 16)
    cpu.reset("warm", in_c6=True)
    assert cpu.state() == Processor("sapphire-rapids").state()
    with pytest.raises(ValueError):
        cpu.reset("hot")


def test_warm_reset_of_the_legacy_flavour():
    cpu = running("skylake")
    cpu.wrmsr(SELECT, 4)
    before, tos = froms(cpu), cpu.rdmsr(TOS)
    cpu.reset("warm")
    assert froms(cpu) == before and cpu.rdmsr(TOS) == tos
    assert cpu.rdmsr(DEBUGCTL) == 0 and cpu.rdmsr(SELECT) == 0
    cpu.branch(0, 1, 2)
    assert froms(cpu) == before


def test_init_and_sipi_change_nothing_but_are_recorded():
    for event in ("init", "sipi"):
        cpu = running()
        quiet = cpu.copy()
        getattr(quiet, event)()
        assert quiet.state() == cpu.state()
        getattr(cpu, event)(0x1000, 0xFFFFFFF0)
        assert cpu.rdmsr(CTL) == RECORD_ALL and cpu.rdmsr(IA32_LBR_0_FROM_IP) == 0x1000


# C-states

@pytest.mark.parametrize("deep, lose, offered, gone", [
    (True, True, True, True), (False, True, True, False), (True, False, True, False),
    (True, True, False, False)])
def test_mwait(deep, lose, offered, gone):
    cpu = Processor(architectural(deep_cstate_reset=offered))
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.record(some_branches(40, classes=(0,)))
    cpu.branch(BranchClass.INTERRUPT, 1, 2)
    cpu.wrmsr(STATUS_SET, 1 << 58)
    cpu.mwait(deep, lose=lose)
    assert (not any(froms(cpu))) is gone
    assert (cpu.rdmsr(LER_FROM) == 0) is gone
    assert cpu.rdmsr(CTL) == RECORD_ALL and cpu.rdmsr(STATUS) == STATUS_LBR_FRZ
    assert cpu.rdmsr(DEPTH) == 32


def test_first_record_after_a_deep_c_state_has_no_cycles():
    cpu = running()
    cpu.mwait()
    cpu.branch(0, 1, 2, cycles=77)
    assert cpu.rdmsr(IA32_LBR_0_INFO) & 0xFFFF == 0


def test_legacy_mwait_zeroes_tos_too():
    cpu = running("skylake")
    cpu.mwait()
    assert cpu.rdmsr(TOS) == 0 and not any(froms(cpu)) and cpu.rdmsr(DEBUGCTL) == 1


# Transactions

def test_transactions():
    cpu = Processor("sapphire-rapids")
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.branch(0, 1, 2)
    cpu.tsx_begin()
    cpu.branch(0, 3, 4)
    cpu.record(some_branches(40, classes=(0,))[:1])
    cpu.tsx_abort(5, 6)
    cpu.branch(0, 7, 8)
    flags = (cpu.records()["info"][:5] >> np.uint64(61)).tolist()
    assert [f & 3 for f in flags] == [0, 1, 2, 2, 0]
    for wrong in (lambda: cpu.tsx_abort(1, 2), Processor("ice-lake").tsx_begin):
        with pytest.raises(UnsupportedFeature):
            wrong()


# Enclaves

def test_opt_in_enclave_is_recorded_throughout():
    cpu = Processor("sapphire-rapids")
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.enclave_enter(0x10, 0x100, opt_in=True)
    cpu.branch(0, 0x110, 0x120)
    cpu.enclave_exit(0x130, 0x20)
    assert froms(cpu)[:4] == [0x130, 0x110, 0x10, 0]
    cpu.enclave_enter(0x10, 0x100, opt_in=True)
    cpu.aex(0x140, 0x30)
    assert froms(cpu)[:2] == [0x140, 0x10] and cpu.rdmsr(IA32_LBR_0_TO_IP) == 0x30


@pytest.mark.parametrize("leave", ["exit", "aex"])
def test_opt_out_enclave_makes_one_record(leave):
    cpu = Processor("sapphire-rapids")
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.wrmsr(EVTSEL0, 0x4300C4)
    cpu.enclave_enter(0x10, 0x100, opt_in=False)
    cpu.record(some_branches(10))
    if leave == "exit":
        cpu.enclave_exit(0x130, 0x20)
    else:
        cpu.aex(0x130, 0x20)
    assert froms(cpu)[:2] == [0x10, 0] and cpu.rdmsr(IA32_LBR_0_TO_IP) == 0x20
    assert cpu.rdmsr(PMC0) == 1, "nothing counts inside"
    assert cpu.rdmsr(STATUS) == STATUS_ASCI, "ASCI tells so"
    assert not cpu.rdmsr(IA32_LBR_0_INFO) >> 63, "marked predicted"


def test_enclaves_that_cannot_be():
    with pytest.raises(UnsupportedFeature):
        Processor("alder-lake-p").enclave_enter(1, 2, opt_in=True)
    cpu = Processor("skylake")
    with pytest.raises(UnsupportedFeature):
        cpu.enclave_exit(1, 2)
    cpu.enclave_enter(1, 2, opt_in=True)
    with pytest.raises(UnsupportedFeature):
        cpu.enclave_enter(1, 2, opt_in=True)


# Intel PT

@pytest.mark.parametrize("name", [n for n, m in MODELS.items() if m.pt])
def test_intel_pt_excludes_lbrs_where_it_does(name):
    cpu = running(name)
    before = froms(cpu)
    from_0 = IA32_LBR_0_FROM_IP if cpu.model.arch else cpu.model.legacy.from_base
    shown = cpu.rdmsr(from_0)
    assert shown
    cpu.wrmsr(IA32_RTIT_CTL, RTIT_CTL_TRACEEN)
    excluded = cpu.model.pt_excludes_lbr
    assert cpu.rdmsr(from_0) == (0 if excluded else shown)
    cpu.wrmsr(from_0, 0x1000)
    cpu.branch(0, 1, 2)
    cpu.wrmsr(IA32_RTIT_CTL, 0)
    assert (froms(cpu) == before) is excluded
    assert excluded == (name in ("broadwell", "skylake"))


# DEPTH

def test_any_write_of_depth_zeroes_all_records():
    for depth in (8, 16, 32):
        cpu = running()
        cpu.branch(BranchClass.INTERRUPT, 1, 2)
        ler = cpu.rdmsr(LER_FROM)
        cpu.wrmsr(DEPTH, depth)
        assert not any(froms(cpu)) and cpu.rdmsr(DEPTH) == depth == len(cpu.records())
        assert cpu.rdmsr(CTL) == RECORD_ALL and cpu.rdmsr(LER_FROM) == ler
        rule = "depth" if depth < 32 else "no such register"
        with pytest.raises(GeneralProtection, match=rule):
            cpu.rdmsr(IA32_LBR_0_FROM_IP + depth)
        with pytest.raises(GeneralProtection, match=rule):
            cpu.wrmsr(IA32_LBR_0_INFO + depth, 0)
        if depth < 32:
            assert cpu.rdmsr(IA32_LBR_0_FROM_IP + depth, host=True) == 0
            cpu.wrmsr(IA32_LBR_0_FROM_IP + depth, 0, host=True)
            with pytest.raises(GeneralProtection):
                cpu.wrmsr(IA32_LBR_0_FROM_IP + depth, 1, host=True)


@pytest.mark.parametrize("value", [0, 1, 7, 9, 24, 33, 40, 48, 64, 1 << 32, 1 << 63, ONES])
def test_depths_that_are_not_offered_fault(value):
    cpu = running()
    before = cpu.state()
    with pytest.raises(GeneralProtection) as error:
        cpu.wrmsr(DEPTH, value)
    assert error.value.value == value and "8, 16, 32" in error.value.rule
    assert cpu.state() == before


def test_init_without_a_guest_exits_nowhere():
    cpu = running()
    control, newest = cpu.rdmsr(IA32_LBR_CTL), cpu.rdmsr(IA32_LBR_0_FROM_IP)
    cpu.init()
    assert (cpu.rdmsr(IA32_LBR_CTL), cpu.rdmsr(IA32_LBR_0_FROM_IP)) == (control, newest)
    assert newest
