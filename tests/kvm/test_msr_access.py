"""MSRs can and cannot be accessed as the guest's CPUID says, on a processor: KVM's
vmx_pmu_caps_test, and every combination of CPUID.1CH."""

from itertools import product

import pytest

from lbrcore import LbrConfig
from pylbr.arch import MODELS
from pylbr.errors import ConfigurationError, GeneralProtection
from pylbr.kvm.guest_cpuid import GuestCpuid, Host, offer
from tests.kvm.vm import (
    ALL,
    CTL,
    DEBUGCTL,
    DEPTH,
    FROM,
    INFO,
    LER,
    TO,
    TOS,
    Vm,
    lbr_msrs,
)
from tests.manual import IA32_PERF_CAPABILITIES

SPR, SKYLAKE = MODELS["sapphire-rapids"], MODELS["skylake"]
ARCH_HOST = Host(LbrConfig(depth_bitmap=0x0B), model=SPR.number, lbr_format=0x3F)
LEGACY_HOST = Host(LbrConfig.legacy(32), model=SKYLAKE.number, lbr_format=5)
#: IA32_LBR_CTL bits of CPUID.1CH:EBX bits 0 to 2.
FILTERS = ({1, 2}, set(range(16, 23)), {3})


class Guest(Vm):
    """A vCPU whose CPUID user space has set; the hypervisor judges by it."""

    def __init__(self, model, host, cpuid):
        self.offer = offer(host, cpuid, any_depth=True)
        super().__init__(model, intercept=True)

    def emulate(self, exit_, *arguments):
        if exit_.index in lbr_msrs(self.model):
            if self.model.arch:
                self.offer.check(exit_.index, exit_.value, self.cpu.rdmsr(DEPTH))
            elif not self.offer.legacy:
                raise GeneralProtection("LBR MSR", exit_.index, exit_.value)
        return super().emulate(exit_, *arguments)


def arch_guest(filters=7, bitmap=0x0A, arch_lbr=True):
    return Guest(SPR, ARCH_HOST, GuestCpuid(SPR.number, arch_lbr, bitmap if arch_lbr else 0,
                                            filters if arch_lbr else 0, True, 0x3F, 4))


@pytest.mark.parametrize("filters", range(8))
def test_every_bit_of_ctl(filters):
    guest = arch_guest(filters)
    offered = {0}.union(*(FILTERS[n] for n in range(3) if filters >> n & 1))
    for bit in range(64):
        before = guest.execute("rdmsr", CTL)
        answer = guest.execute("wrmsr", CTL, 1 << bit)
        assert answer == (None if bit in offered else "#GP")
        assert guest.execute("rdmsr", CTL) == (1 << bit if bit in offered else before)


@pytest.mark.parametrize("bitmap", range(1, 0x10))
def test_every_depth_and_every_record(bitmap):
    """The host does not take 24: a CPUID that offers it is refused."""
    if bitmap & 4:
        with pytest.raises(ConfigurationError, match="1CH:EAX"):
            arch_guest(bitmap=bitmap)
        return
    guest = arch_guest(bitmap=bitmap)
    depths = {8 * (n + 1) for n in range(8) if bitmap >> n & 1}
    for depth in range(70):
        before = guest.execute("rdmsr", DEPTH)
        answer = guest.execute("wrmsr", DEPTH, depth)
        assert answer == (None if depth in depths else "#GP")
        assert guest.execute("rdmsr", DEPTH) == (depth if depth in depths else before)
    for depth in depths:
        guest.execute("wrmsr", DEPTH, depth)
        for base, i in product((FROM, TO, INFO), range(32)):
            reaches = i < depth
            assert guest.execute("wrmsr", base + i, 0x100 + i) == (None if reaches else "#GP")
            assert guest.execute("rdmsr", base + i) == (0x100 + i if reaches else "#GP")


def test_a_guest_without_the_bit_reaches_no_msr_and_disturbs_nothing():
    guest = arch_guest(arch_lbr=False)
    before = guest.cpu.state().msrs.lbr
    for index, value in product(lbr_msrs(SPR), (0, 1, ALL)):
        assert guest.execute("rdmsr", index) == "#GP"
        assert guest.execute("wrmsr", index, value) == "#GP"
    assert guest.cpu.state().msrs.lbr == before


@pytest.mark.parametrize("cpuid", [
    {"depth_bitmap": 0}, {"depth_bitmap": 0x18}, {"depth_bitmap": 0x80}, {"lbr_format": 5},
    {"pmu_version": 0}, {"model": 0x5E},
])
def test_a_cpuid_that_contradicts_is_refused_before_the_guest_runs(cpuid):
    right = {"model": SPR.number, "arch_lbr": True, "depth_bitmap": 8, "filters": 7,
             "pdcm": True, "lbr_format": 0x3F, "pmu_version": 4}
    Guest(SPR, ARCH_HOST, GuestCpuid(**right))
    with pytest.raises(ConfigurationError):
        Guest(SPR, ARCH_HOST, GuestCpuid(**{**right, **cpuid}))


# Legacy, as vmx_pmu_caps_test has it

def legacy_guest(lbr_format=5, pmu_version=4, pdcm=True, model=SKYLAKE.number):
    return Guest(SKYLAKE, LEGACY_HOST,
                 GuestCpuid(model, lbr_format=lbr_format, pmu_version=pmu_version, pdcm=pdcm))


def test_every_lbr_format():
    """0 and the host's are taken, every other of 64 refused."""
    taken = []
    for lbr_format in range(64):
        try:
            guest = legacy_guest(lbr_format)
        except ConfigurationError:
            continue
        taken.append((lbr_format, guest.execute("wrmsr", TOS, 7), guest.execute("rdmsr", TOS)))
    assert taken == [(0, "#GP", "#GP"), (5, None, 7)]


def test_the_guest_may_not_write_perf_capabilities():
    guest = legacy_guest()
    own = guest.execute("rdmsr", IA32_PERF_CAPABILITIES)
    for bit in range(64):
        assert guest.execute("wrmsr", IA32_PERF_CAPABILITIES, own ^ 1 << bit) == "#GP"
    assert guest.execute("rdmsr", IA32_PERF_CAPABILITIES) == own and own & 0x3F == 5


@pytest.mark.parametrize("cpuid", [{"pmu_version": 0}, {"model": 0x4E}])
def test_lbrs_need_a_pmu_and_the_hosts_model(cpuid):
    with pytest.raises(ConfigurationError):
        legacy_guest(**cpuid)
    guest = legacy_guest(lbr_format=0, **cpuid)
    assert guest.execute("wrmsr", TOS, 7) == "#GP"


@pytest.mark.parametrize("lbr_format", [0, 5, 9])
def test_without_pdcm_there_is_no_format(lbr_format):
    assert legacy_guest(lbr_format, pdcm=False).execute("rdmsr", TOS) == "#GP"


def test_every_legacy_msr_once_offered():
    guest = legacy_guest()
    for index in lbr_msrs(SKYLAKE):
        read_only = index in LER
        assert guest.execute("wrmsr", index, 1) == ("#GP" if read_only else None)
        assert guest.execute("rdmsr", index) == (0 if read_only else 1)
    assert guest.execute("wrmsr", DEBUGCTL, 1) is None
    guest.execute("branches", 5, 1)
    assert guest.execute("rdmsr", 0x680 + guest.execute("rdmsr", TOS)) > 1
