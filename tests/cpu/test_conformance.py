"""What kvm-unit-tests and the kernel's selftests check, written from the facts (spec 8)."""

import numpy as np
import pytest

from lbrcore import BranchClass
from pylbr.arch import FORMATS, MODELS, architectural
from pylbr.cpu import Processor
from pylbr.errors import GeneralProtection
from tests.cpu.helpers import some_branches
from tests.manual import (
    DBG_EXTN_CFG,
    DBG_EXTN_CFG_LBRV2EN,
    DEBUGCTL_FREEZE_LBRS_ON_PMI,
    IA32_DEBUGCTL,
    IA32_DS_AREA,
    IA32_LBR_0_FROM_IP,
    IA32_LBR_0_INFO,
    IA32_LBR_0_TO_IP,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_LER_FROM_IP,
    IA32_LER_TO_IP,
    IA32_PERF_CAPABILITIES,
    IA32_XSS,
    LBR_SELECT,
    MSR_LASTBRANCH_TOS,
    MSR_LBR_SELECT,
    PERF_CNTR_GLOBAL_STATUS,
    PERF_CNTR_GLOBAL_STATUS_CLR,
    PERF_CTL0,
    PERF_CTR0,
    RECORD_ALL,
    SAMP_BR_FROM_0,
    SAMP_BR_TO_0,
    STATUS_LBR_FRZ,
)

ARCH = ["sapphire-rapids", "alder-lake-p", "alder-lake-e", "sierra-forest"]
LEGACY = [name for name, m in MODELS.items() if m.legacy]
CTL, DEPTH, XSS = IA32_LBR_CTL, IA32_LBR_DEPTH, IA32_XSS
ALL_BUT_OTHER = 0x3F0003


@pytest.fixture(params=[*ARCH, architectural("d8", depths=(8,)),
                        architectural("d16", depths=(8, 16))], ids=str)
def cpu(request):
    return Processor(request.param)


# The six checks of the architectural test

def test_depth_is_the_highest_bit_of_the_bitmap(cpu):
    bitmap = cpu.cpuid(0x1C)[0] & 0xFF
    assert cpu.rdmsr(DEPTH) == 8 * bitmap.bit_length()


def test_from_and_to_are_writable_below_the_depth(cpu):
    depth = cpu.rdmsr(DEPTH)
    for i in range(depth):
        cpu.wrmsr(IA32_LBR_0_FROM_IP + i, 0x1000 + i)
        cpu.wrmsr(IA32_LBR_0_TO_IP + i, 0x2000 + i)
    for i in range(depth):
        assert cpu.rdmsr(IA32_LBR_0_FROM_IP + i) == 0x1000 + i
        assert cpu.rdmsr(IA32_LBR_0_TO_IP + i) == 0x2000 + i


def test_reserved_bits_of_ctl_fault(cpu):
    with pytest.raises(GeneralProtection) as error:
        cpu.wrmsr(CTL, ALL_BUT_OTHER | 0xFFF0)
    assert error.value.bits == 0xFFF0


def test_a_deeper_depth_faults(cpu):
    with pytest.raises(GeneralProtection):
        cpu.wrmsr(DEPTH, cpu.rdmsr(DEPTH) + 0x10)


def _records(cpu):
    cpu.wrmsr(CTL, ALL_BUT_OTHER)
    cpu.record(some_branches(200, cpl=0, classes=(0, 2, 4, 5)))
    cpu.wrmsr(CTL, 0)
    depth = cpu.rdmsr(DEPTH)
    return [[cpu.rdmsr(base + i) for i in range(depth)]
            for base in (IA32_LBR_0_FROM_IP, IA32_LBR_0_TO_IP, IA32_LBR_0_INFO)]


def test_a_write_of_depth_zeroes_the_records(cpu):
    assert all(all(bank) for bank in _records(cpu)), "every FROM, TO and INFO is not 0"
    cpu.wrmsr(DEPTH, cpu.rdmsr(DEPTH))
    for base in (IA32_LBR_0_FROM_IP, IA32_LBR_0_TO_IP, IA32_LBR_0_INFO):
        assert not any(cpu.rdmsr(base + i) for i in range(cpu.rdmsr(DEPTH)))


def test_xsaves_and_xrstors_round_trip(cpu):
    banks = _records(cpu)
    depth = cpu.rdmsr(DEPTH)
    cpu.wrmsr(XSS, 1 << 15)
    cpu.xsetbv(3)
    area = bytearray(1384)
    cpu.xsaves(area, 0, 0x8003)
    triples = np.frombuffer(area, "<u8", 3 * depth, 576 + 40).reshape(depth, 3)
    assert triples.T.tolist() == banks
    cpu.wrmsr(DEPTH, depth)
    assert not cpu.records()["from"].any()
    cpu.xrstors(area, 0, 0x8003)
    assert [[cpu.rdmsr(base + i) for i in range(depth)]
            for base in (IA32_LBR_0_FROM_IP, IA32_LBR_0_TO_IP, IA32_LBR_0_INFO)] == banks


@pytest.mark.parametrize("features", [
    {"cpl_filter": c, "branch_filter": b, "call_stack": s}
    for c in (0, 1) for b in (0, 1) for s in (0, 1) if b or not s
], ids=str)
def test_ctl_bits_that_leaf_1c_does_not_offer_fault(features):
    """And a filter that is not offered lets everything pass."""
    cpu = Processor(architectural(**{name: bool(on) for name, on in features.items()}))
    offered = 1 | 6 * features["cpl_filter"] | 0x7F0000 * features["branch_filter"] | (
        8 * features["call_stack"])
    assert cpu.cpuid(0x1C)[1] == (features["cpl_filter"] | features["branch_filter"] << 1
                                  | features["call_stack"] << 2)
    for bit in range(64):
        if offered >> bit & 1:
            cpu.wrmsr(CTL, 1 << bit)
            assert cpu.rdmsr(CTL) == 1 << bit
        else:
            with pytest.raises(GeneralProtection) as error:
                cpu.wrmsr(CTL, 1 << bit)
            assert error.value.bits == 1 << bit
    cpu.wrmsr(CTL, offered & ~8)
    cpu.branch(BranchClass.SYSCALL, 0x10, 0x20, cpl_from=3, cpl_to=0)
    assert cpu.rdmsr(IA32_LBR_0_FROM_IP) == 0x10


@pytest.mark.parametrize("mispredict", [True, False])
@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("branch_type", [True, False])
@pytest.mark.parametrize("tsx", [True, False])
def test_records_have_what_leaf_1c_offers(mispredict, timed, branch_type, tsx):
    cpu = Processor(architectural(mispredict=mispredict, timed=timed, branch_type=branch_type,
                                  rtm=tsx, hle=tsx))
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.branch(0, 1, 2)
    cpu.branch(BranchClass.NEAR_RET, 1, 2, flags=7, cycles=9)
    assert cpu.rdmsr(IA32_LBR_0_INFO) == (mispredict << 63 | (3 << 61) * tsx | (1 << 60 | 9) * timed
                                 | (5 << 56) * branch_type)


# The legacy test

@pytest.mark.parametrize("name", LEGACY)
def test_legacy_lbrs(name):
    cpu = Processor(name)
    lbr = cpu.model.legacy
    if lbr.to_base is not None:
        for base in (0x40, 0x680):  # the test probes both places
            if base != lbr.from_base:
                with pytest.raises(GeneralProtection):
                    cpu.wrmsr(base, 0)
    if lbr.select:
        cpu.wrmsr(MSR_LBR_SELECT, 0)
    cpu.wrmsr(lbr.tos, 0)
    writable = 0
    while True:
        try:
            cpu.wrmsr(lbr.from_base + writable, 0)
        except GeneralProtection:
            break
        writable += 1
        if writable > 32:
            break
    # On Willamette the next number is a register of its own only after a gap.
    assert writable >= lbr.depth
    cpu.wrmsr(IA32_DEBUGCTL, 1)
    cpu.record(some_branches(200, classes=(0, 4, 5)))
    cpu.wrmsr(IA32_DEBUGCTL, 0)
    for i in range(lbr.depth):
        assert cpu.rdmsr(lbr.from_base + i)
        if lbr.to_base is not None:
            assert cpu.rdmsr(lbr.to_base + i)


@pytest.mark.parametrize("name", LEGACY)
def test_the_stack_runs_through_its_registers_in_order(name):
    cpu = Processor(name)
    lbr = cpu.model.legacy
    cpu.wrmsr(IA32_DEBUGCTL, 1)
    for n in range(1, 3 * lbr.depth):
        cpu.branch(0, 0x1000 * n, 0x1000 * n + 4)
        assert cpu.rdmsr(lbr.tos) == n % lbr.depth
        value = cpu.rdmsr(lbr.from_base + n % lbr.depth)
        assert value & 0xFFFFFFFF == 0x1000 * n


KERNEL = 0xFFFFFFFF81000010


@pytest.mark.parametrize("name, from_, to, info", [
    # A mispredicted user branch with 9 cycles, in each register layout (spec 3.4).
    ("pentium-m", 0x00402000_00401000, None, None),
    ("prescott", 0x401000, 0x402000, None),
    ("core2", 0x401000, 0x402000, None),
    ("nehalem", 1 << 63 | 0x401000, 0x402000, None),
    ("haswell", 1 << 63 | 0x401000, 0x402000, None),
    ("skylake", 0x401000, 0x402000, 1 << 63 | 9),
    ("goldmont", 1 << 63 | 0x401000, 9 << 48 | 0x402000, None),
    ("goldmont-plus", 0x401000, 0x402000, 1 << 63 | 9),
    ("knights-landing", 1 << 63 | 0x401000, 0x402000, None),
])
def test_decode_of_all_formats(name, from_, to, info):
    cpu = Processor(name)
    lbr = cpu.model.legacy
    cpu.wrmsr(IA32_DEBUGCTL, 1)
    cpu.branch(0, 1, 2)
    cpu.branch(0, 0x401000, 0x402000, flags=4, cycles=9)
    tos = cpu.rdmsr(lbr.tos)
    assert cpu.rdmsr(lbr.from_base + tos) == from_
    if to is not None:
        assert cpu.rdmsr(lbr.to_base + tos) == to
    if info is not None:
        assert cpu.rdmsr(lbr.info_base + tos) == info


def test_all_formats_are_covered():
    assert {MODELS[name].legacy.format for name in LEGACY} == set(FORMATS)


def test_haswell_transactions_in_from():
    cpu = Processor("haswell")
    cpu.wrmsr(IA32_DEBUGCTL, 1)
    cpu.tsx_begin()
    cpu.branch(0, KERNEL, KERNEL + 8, cpl_from=0, cpl_to=0)
    assert cpu.rdmsr(0x680 + cpu.rdmsr(MSR_LASTBRANCH_TOS)) == 1 << 62 | KERNEL & ((1 << 61) - 1)
    cpu.tsx_abort(KERNEL, KERNEL + 16, cpl=0)
    assert cpu.rdmsr(0x680 + cpu.rdmsr(MSR_LASTBRANCH_TOS)) == 1 << 61 | KERNEL & ((1 << 61) - 1)


def test_haswell_sign_extension_quirk():
    """A kernel address just read back is refused; Linux copies bits 60:59 into 62:61."""
    quirky = Processor("haswell-notsx")
    quirky.wrmsr(IA32_DEBUGCTL, 1)
    quirky.branch(0, KERNEL, KERNEL + 8, cpl_from=0, cpl_to=0)
    number = 0x680 + quirky.rdmsr(MSR_LASTBRANCH_TOS)
    value = quirky.rdmsr(number)
    assert value >> 61 & 3 == 0
    with pytest.raises(GeneralProtection) as error:
        quirky.wrmsr(number, value)
    assert error.value.bits == 3 << 61
    quirky.wrmsr(number, value | 3 << 61)
    assert quirky.rdmsr(number) == value | 3 << 61
    plain = Processor("haswell")
    plain.wrmsr(number, value)
    assert plain.rdmsr(number) == value


# LBR_FMT of IA32_PERF_CAPABILITIES, as vmx_pmu_caps_test has it

CAPABLE = [name for name, m in MODELS.items() if m.pdcm]


@pytest.mark.parametrize("name", CAPABLE)
def test_perf_capabilities(name):
    cpu = Processor(name)
    own = cpu.rdmsr(IA32_PERF_CAPABILITIES)
    lbr_format = own & 0x3F
    assert lbr_format == cpu.model.lbr_format
    for value in (own, own ^ 1 << 13, 0):
        with pytest.raises(GeneralProtection, match="read-only"):
            cpu.wrmsr(IA32_PERF_CAPABILITIES, value)
    assert cpu.rdmsr(IA32_PERF_CAPABILITIES) == own
    for value in range(64):
        if value in (0, lbr_format):
            cpu.wrmsr(IA32_PERF_CAPABILITIES, own & ~0x3F | value, host=True)
            assert cpu.rdmsr(IA32_PERF_CAPABILITIES) == own & ~0x3F | value
        else:
            with pytest.raises(GeneralProtection, match="LBR_FMT|reserved"):
                cpu.wrmsr(IA32_PERF_CAPABILITIES, own & ~0x3F | value, host=True)
    pebs = (6, 7, 8, 9, 10, 11, 14) if own & 0xF00 else ()
    for bit in range(6, 64):
        if bit in pebs and (own ^ 1 << bit) & 0xF00:
            with pytest.raises(GeneralProtection, match="PEBS|lacks|reserved"):
                cpu.wrmsr(IA32_PERF_CAPABILITIES, own ^ 1 << bit, host=True)
        elif own >> bit & 1:
            cpu.wrmsr(IA32_PERF_CAPABILITIES, own ^ 1 << bit, host=True)
            assert cpu.rdmsr(IA32_PERF_CAPABILITIES) == own ^ 1 << bit
        else:
            with pytest.raises(GeneralProtection):
                cpu.wrmsr(IA32_PERF_CAPABILITIES, own | 1 << bit, host=True)


def test_without_pdcm_the_register_reads_0_for_the_host_and_faults_for_the_guest():
    cpu = Processor("pentium-m")
    assert cpu.rdmsr(IA32_PERF_CAPABILITIES, host=True) == 0
    with pytest.raises(GeneralProtection):
        cpu.rdmsr(IA32_PERF_CAPABILITIES)


def test_debugctl_bit_0_has_no_meaning_with_architectural_lbrs(cpu):
    cpu.wrmsr(IA32_DEBUGCTL, 1)
    assert cpu.rdmsr(IA32_DEBUGCTL) == 0
    cpu.wrmsr(IA32_DEBUGCTL, 0x801)
    assert cpu.rdmsr(IA32_DEBUGCTL) == 0x800
    cpu.branch(0, 1, 2)
    assert not cpu.records()["from"].any()


def test_non_canonical_writes_are_ignored_not_faulted():
    for name, width in (("sapphire-rapids", 57), ("alder-lake-p", 48)):
        cpu = Processor(name)
        for msr in (IA32_LBR_0_FROM_IP, IA32_LBR_0_TO_IP, IA32_LER_FROM_IP, IA32_LER_TO_IP):
            cpu.wrmsr(msr, 1 << (width - 1))
            assert cpu.rdmsr(msr) == (1 << 64) - (1 << (width - 1))
            cpu.wrmsr(msr, 0x3F << 58 | 5)
            assert cpu.rdmsr(msr) == 5
    legacy = Processor("skylake")
    for msr in (0x680, 0x6C0, IA32_DS_AREA):
        with pytest.raises(GeneralProtection, match="canonical"):
            legacy.wrmsr(msr, 1 << 47)


def test_zen4_records_filters_and_freezes():
    cpu = Processor("zen4")
    cpu.wrmsr(DBG_EXTN_CFG, DBG_EXTN_CFG_LBRV2EN)
    cpu.wrmsr(LBR_SELECT, 1 << 2)  # suppress JCC
    cpu.branch(BranchClass.COND, 0x10, 0x20)
    cpu.branch(BranchClass.NEAR_RET, 0xFFFFFFFF81000010, 0x40, flags=4, cpl_from=0, cpl_to=0)
    assert cpu.rdmsr(SAMP_BR_FROM_0) == 1 << 63 | 0x3FFFFFF81000010
    assert cpu.rdmsr(SAMP_BR_TO_0) == 1 << 63 | 0x40, "valid, not speculative"
    assert cpu.rdmsr(0xC0010303) == 0, "no record, not valid"
    cpu.wrmsr(SAMP_BR_TO_0, 3 << 61 | 0x44)
    assert cpu.rdmsr(SAMP_BR_TO_0) == 3 << 61 | 0x44
    assert cpu.rdmsr(SAMP_BR_FROM_0) == 1 << 63 | 0x3FFFFFF81000010
    cpu.wrmsr(SAMP_BR_FROM_0, 0x50)
    assert cpu.rdmsr(SAMP_BR_TO_0) == 3 << 61 | 0x44
    cpu.wrmsr(IA32_DEBUGCTL, DEBUGCTL_FREEZE_LBRS_ON_PMI)
    cpu.wrmsr(PERF_CTL0, 0x5300C2)
    cpu.wrmsr(PERF_CTR0, (1 << 48) - 2)
    for n in range(4):
        cpu.branch(BranchClass.NEAR_REL_CALL, 0x1000 + n, 0x2000)
    assert cpu.rdmsr(PERF_CNTR_GLOBAL_STATUS) == STATUS_LBR_FRZ | 1
    assert cpu.rdmsr(SAMP_BR_FROM_0) == 0x1001
    cpu.wrmsr(PERF_CNTR_GLOBAL_STATUS_CLR, 1 << 58)
    cpu.branch(BranchClass.NEAR_REL_CALL, 0x1004, 0x2000)
    assert cpu.rdmsr(SAMP_BR_FROM_0) == 0x1004 and cpu.rdmsr(0xC0010302) == 0x1001
    for n in range(40):
        cpu.branch(BranchClass.NEAR_REL_CALL, 0x100 + n, 0x2000)
    assert [cpu.rdmsr(SAMP_BR_FROM_0 + 2 * i) for i in range(16)] == [0x127 - i for i in range(16)]
