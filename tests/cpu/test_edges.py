"""Corners that the walks and the tables leave out."""

import pickle
import struct

import pytest

from pylbr.arch import ExitReason, br_type_name
from pylbr.cpu import InvalidOpcode, Processor, Vmcs, VmEntryFailure, nested
from pylbr.errors import GeneralProtection, UnsupportedFeature
from tests.cpu.helpers import Listener, some_branches
from tests.manual import (
    IA32_DEBUGCTL,
    IA32_FIXED_CTR0,
    IA32_FIXED_CTR_CTRL,
    IA32_LBR_0_FROM_IP,
    IA32_LBR_0_INFO,
    IA32_LBR_0_TO_IP,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_PEBS_ENABLE,
    IA32_PERF_GLOBAL_CTRL,
    IA32_PERF_GLOBAL_STATUS,
    IA32_XSS,
    MSR_PEBS_DATA_CFG,
    RECORD_ALL,
)

CTL, DEPTH, XSS, DEBUGCTL = IA32_LBR_CTL, IA32_LBR_DEPTH, IA32_XSS, IA32_DEBUGCTL


def xsave_ready():
    cpu = Processor("sapphire-rapids")
    cpu.wrmsr(XSS, 1 << 15)
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.record(some_branches(40))
    return cpu


def test_xsaves_faults():
    cpu, area = xsave_ready(), bytearray(2048)
    for wrong in (cpu.xsaves, cpu.xrstors):
        with pytest.raises(GeneralProtection, match="#GP: XR?S[AT].*64-byte") as fault:
            wrong(area, address=8)
        assert str(pickle.loads(pickle.dumps(fault.value))) == str(fault.value)
    cpu.xsaves(area)
    before = cpu.state()
    for offset, value in ((520, 1 << 15), (512, 3 << 15), (528, 1), (576, 1 << 5), (584, 1 << 20)):
        damaged = bytearray(area)
        struct.pack_into("<Q", damaged, offset, value)
        with pytest.raises(GeneralProtection):
            cpu.xrstors(damaged)
        assert cpu.state() == before
    with pytest.raises(ValueError):
        cpu.xsaves(bytearray(600))


def test_every_two_bits_of_the_header():
    """The header that XRSTORS takes, by the four rules; a refusal changes nothing."""
    cpu, area = xsave_ready(), bytearray(2048)
    cpu.wrmsr(XSS, 1 << 15 | 1 << 11)
    cpu.xsetbv(7)
    cpu.xsaves(area)
    before = cpu.state()
    can = 7 | 1 << 15 | 1 << 11
    for one in range(512):
        for two in (*range(one, 128), 128, 511):
            damaged = bytearray(area)
            for bit in {one, two}:
                damaged[512 + bit // 8] ^= 1 << bit % 8
            xstate, xcomp, *rest = struct.unpack_from("<8Q", damaged, 512)
            has = xcomp & (1 << 63) - 1
            if not xcomp >> 63 or has & ~can or xstate & ~has or any(rest):
                with pytest.raises(GeneralProtection):
                    cpu.xrstors(damaged)
                assert cpu.state() == before
                continue
            if has & ~0x8003 and xstate >> 15 & 1:
                continue  # the component would lie elsewhere
            cpu.xrstors(damaged)
            assert cpu.rdmsr(CTL) == (RECORD_ALL if xstate >> 15 & 1 else 0)
            cpu = Processor.from_state(before)


def test_xrstors_at_another_depth_loads_control_and_zeroes_records():
    cpu, area = xsave_ready(), bytearray(2048)
    cpu.xsaves(area)
    cpu.wrmsr(DEPTH, 16)
    cpu.wrmsr(CTL, 0)
    cpu.record(some_branches(40))
    cpu.xrstors(area)
    assert cpu.rdmsr(CTL) == RECORD_ALL and cpu.rdmsr(DEPTH) == 16
    assert not cpu.records()["from"].any()


def test_rfbm_without_xss_does_nothing():
    cpu, area = xsave_ready(), bytearray(2048)
    cpu.wrmsr(XSS, 0)
    cpu.xsaves(area)
    assert int.from_bytes(area[512:520], "little") == 0
    assert area[520:528] == (1 << 63).to_bytes(8, "little")


def test_processors_without_xsaves_of_lbrs():
    for name, error in (("haswell", InvalidOpcode), ("skylake", UnsupportedFeature)):
        with pytest.raises(error):
            Processor(name).xsaves(bytearray(2048))


@pytest.mark.parametrize("base", [IA32_LBR_0_FROM_IP, IA32_LBR_0_TO_IP, IA32_LBR_0_INFO])
def test_records_beyond_the_depth(base):
    cpu = Processor("sapphire-rapids")
    cpu.wrmsr(DEPTH, 8)
    for access in (lambda: cpu.rdmsr(base + 8), lambda: cpu.wrmsr(base + 8, 0)):
        with pytest.raises(GeneralProtection, match="below the depth, 8"):
            access()
    assert cpu.rdmsr(base + 7) == 0


def test_retiring_without_a_branch():
    listener = Listener()
    cpu = Processor("sapphire-rapids", listener)
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.wrmsr(IA32_FIXED_CTR_CTRL, 0xBB)
    cpu.wrmsr(IA32_PERF_GLOBAL_CTRL, 3 << 32)
    cpu.wrmsr(IA32_FIXED_CTR0, (1 << 48) - 10)
    cpu.branch(0, 1, 2)
    cpu.retire(8, cycles=20)
    cpu.branch(0, 3, 4, instructions=0, cycles=5)
    assert cpu.rdmsr(IA32_LBR_0_INFO) & 0xFFFF == 25 and not listener.pmis
    cpu.retire(1, ip=0x99)
    assert listener.pmis == [1 << 32] and cpu.rdmsr(IA32_FIXED_CTR0) == 0 and cpu.rdmsr(0x30A) == 25


def test_fixed_counters_of_adaptive_pebs():
    listener = Listener(reload=(1 << 48) - 100)
    cpu = Processor("sapphire-rapids", listener)
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.wrmsr(IA32_FIXED_CTR_CTRL, 3 | 1 << 32)
    cpu.wrmsr(IA32_PERF_GLOBAL_CTRL, 1 << 32)
    cpu.wrmsr(IA32_PEBS_ENABLE, 1 << 32)
    cpu.wrmsr(MSR_PEBS_DATA_CFG, 1 << 3 | 31 << 24)
    cpu.wrmsr(IA32_FIXED_CTR0, (1 << 48) - 100)
    cpu.retire(100, ip=0x77)
    (counter, record), = listener.records
    assert counter == 32 and len(record) == 32 + 32 * 24
    assert struct.unpack_from("<4Q", record)[1:3] == (0x77, 1 << 32)
    assert cpu.rdmsr(IA32_FIXED_CTR0) == (1 << 48) - 100


def test_lists_of_l1_reach_l1():
    cpu = Processor("sapphire-rapids")
    names = ("use MSR bitmaps", "load IA32_LBR_CTL", "clear IA32_LBR_CTL", "load debug controls",
             "save debug controls")
    v01, v12 = (Vmcs.for_model(cpu.model, *names) for _ in range(2))
    v12.entry_msr_load = [(DEPTH, 8)]
    v12.exit_msr_load = [(CTL, 0x10001), (DEBUGCTL, 0x800), (DEPTH, 16)]
    cpu.vm_entry(v01)
    cpu.vm_exit(ExitReason.VMCALL)
    v02 = nested.entry(cpu, v01, v12)
    cpu.vm_entry(v02)
    assert cpu.rdmsr(DEPTH) == 8
    cpu.vm_exit(ExitReason.CPUID)
    nested.leave(cpu, v01, v12, v02, ExitReason.CPUID)
    cpu.vm_entry(v01)
    assert (cpu.rdmsr(CTL), cpu.rdmsr(DEBUGCTL), cpu.rdmsr(DEPTH)) == (0x10001, 0x800, 16)


def test_without_bitmaps_the_merged_one_catches_all():
    cpu = Processor("sapphire-rapids")
    v02 = nested.entry(cpu, Vmcs.for_model(cpu.model, "use MSR bitmaps"), Vmcs.for_model(cpu.model))
    assert set(v02.msr_bitmap) == {0xFF}


def test_host_state_is_checked_and_loaded():
    cpu = Processor("sapphire-rapids")
    v = Vmcs.for_model(cpu.model, "load host IA32_PERF_GLOBAL_CTRL")
    v.host_perf_global_ctrl = 1 << 20
    with pytest.raises(VmEntryFailure) as failure:
        cpu.vm_entry(v)
    assert failure.value.error == 8
    v.host_perf_global_ctrl = 3
    cpu.vm_entry(v)
    cpu.vm_exit(ExitReason.VMCALL)
    assert cpu.rdmsr(IA32_PERF_GLOBAL_CTRL) == 3


@pytest.mark.parametrize("entry", [(IA32_PERF_GLOBAL_STATUS, 0), (CTL, 1 << 5)])
def test_lists_obey_the_rules_of_wrmsr(entry):
    cpu = Processor("sapphire-rapids")
    v = Vmcs.for_model(cpu.model)
    v.entry_msr_load = [entry]
    with pytest.raises(VmEntryFailure) as failure:
        cpu.vm_entry(v)
    assert failure.value.reason == 34
    v.entry_msr_load, v.exit_msr_load = [], [entry]
    cpu.vm_entry(v)
    with pytest.raises(UnsupportedFeature, match="VMX abort"):
        cpu.vm_exit(ExitReason.VMCALL)
    v.entry_msr_load = [entry]
    with pytest.raises(UnsupportedFeature, match="VMX abort"):
        cpu.vm_entry(v)


def test_names_of_branch_types():
    assert [br_type_name(n) for n in (0, 5, 6, 8, 15)] == [
        "COND", "NEAR_RET", "reserved", "OTHER_BRANCH", "OTHER_BRANCH"]
