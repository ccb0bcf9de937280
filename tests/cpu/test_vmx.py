"""VM entry, VM exit, intercepts, lists, and nested guests (spec 1.8, 4)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BranchClass
from pylbr.arch import ExitReason, model
from pylbr.arch.vmx import CONTROLS, allowed
from pylbr.cpu import InvalidOpcode, Processor, Vmcs, VmEntryFailure, VmExit, nested
from pylbr.errors import ConfigurationError, GeneralProtection, UnsupportedFeature
from tests.cpu.helpers import some_branches
from tests.manual import (
    IA32_DEBUGCTL,
    IA32_LBR_0_FROM_IP,
    IA32_LBR_0_TO_IP,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_LER_FROM_IP,
    IA32_PERF_GLOBAL_CTRL,
    IA32_XSS,
    MSR_LASTBRANCH_TOS,
    RECORD_ALL,
)

SPR = model("sapphire-rapids")
CTL, DEBUGCTL, DEPTH, XSS = IA32_LBR_CTL, IA32_DEBUGCTL, IA32_LBR_DEPTH, IA32_XSS
ALL = RECORD_ALL
LOAD, CLEAR = "load IA32_LBR_CTL", "clear IA32_LBR_CTL"
DEBUG_IN, DEBUG_OUT = "load debug controls", "save debug controls"


def host(**values):
    cpu = Processor(SPR)
    cpu.wrmsr(CTL, ALL)
    cpu.record(some_branches(40))
    return cpu


def vmcs(*names, **fields):
    made = Vmcs.for_model(SPR, "use MSR bitmaps", *names)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_controls_are_where_the_architecture_has_them():
    assert CONTROLS[LOAD].mask == 0x00200000 and CONTROLS[CLEAR].mask == 0x04000000
    assert CONTROLS[DEBUG_IN].mask == CONTROLS[DEBUG_OUT].mask == 4
    v = vmcs()
    v.vmwrite(0x2816, 0x7F0006)
    assert v.guest_lbr_ctl == v.vmread(0x2816) == 0x7F0006
    v.vmwrite(0x2817, 5)
    assert v.guest_lbr_ctl == 5 << 32 | 0x7F0006 and v.vmread(0x2817) == 5
    v.vmwrite(0x2802, 0x801)
    assert v.guest_debugctl == 0x801
    for wrong in (0x9999, 0x2004):
        with pytest.raises(ConfigurationError):
            v.vmread(wrong)


def test_entry_loads_and_exit_saves_and_clears():
    cpu = host()
    before = cpu.records().tolist()
    v = vmcs(LOAD, CLEAR, DEBUG_IN, DEBUG_OUT, guest_lbr_ctl=0x3F0006, guest_debugctl=0x800)
    cpu.wrmsr(DEBUGCTL, 0x1000)
    cpu.vm_entry(v)
    assert (cpu.rdmsr(CTL), cpu.rdmsr(DEBUGCTL)) == (0x3F0006, 0x800)
    assert cpu.records().tolist() == before, "entry makes no record, records cross"
    cpu.wrmsr(CTL, 0x3F0007)
    cpu.branch(0, 1, 2)
    assert cpu.vm_exit(ExitReason.VMCALL, 7) is v
    assert (v.guest_lbr_ctl, v.guest_debugctl) == (0x3F0007, 0x800)
    assert (v.exit_reason, v.exit_qualification) == (18, 7)
    assert (cpu.rdmsr(CTL), cpu.rdmsr(DEBUGCTL)) == (0, 0)
    assert cpu.rdmsr(IA32_LBR_0_FROM_IP) == 1 and cpu.rdmsr(DEPTH) == 32


def test_without_the_controls_the_msr_crosses_both_ways():
    cpu = host()
    v = vmcs(guest_lbr_ctl=0x3F0006, guest_debugctl=0x801)
    cpu.wrmsr(DEBUGCTL, 0x1000)
    cpu.vm_entry(v)
    assert cpu.rdmsr(CTL) == ALL and cpu.rdmsr(DEBUGCTL) == 0x1000
    cpu.wrmsr(CTL, 0x10006)
    cpu.vm_exit(ExitReason.CPUID)
    assert cpu.rdmsr(CTL) == 0x10006, "nothing clears it"
    assert cpu.rdmsr(DEBUGCTL) == 0, "always 0 after an exit"
    assert v.guest_debugctl == 0x801, "not saved"


def test_two_guests_on_one_processor_do_not_mix():
    cpu = host()
    one, two = (vmcs(LOAD, CLEAR, DEBUG_IN, DEBUG_OUT) for _ in range(2))
    seen = {}
    for turn in range(6):
        for number, v in ((1, one), (2, two)):
            cpu.vm_entry(v)
            assert (cpu.rdmsr(CTL), cpu.rdmsr(DEBUGCTL)) == seen.get(number, (0, 0))
            cpu.wrmsr(CTL, number << 16 | turn & 7)
            cpu.wrmsr(DEBUGCTL, number << 11)
            seen[number] = (number << 16 | turn & 7, number << 11)
            cpu.vm_exit(ExitReason.PREEMPTION_TIMER)
            assert cpu.rdmsr(CTL) == 0


def test_legacy_exit_stops_the_guests_recording():
    skl = model("skylake")
    cpu = Processor(skl)
    v = Vmcs.for_model(skl, "use MSR bitmaps", DEBUG_IN, DEBUG_OUT)
    v.guest_debugctl = 1
    cpu.vm_entry(v)
    cpu.branch(0, 1, 2)
    cpu.vm_exit(ExitReason.CPUID)
    cpu.branch(0, 3, 4)
    assert cpu.records()["from"][0] == 1 and cpu.rdmsr(MSR_LASTBRANCH_TOS) == 1
    for name in (LOAD, CLEAR):
        with pytest.raises(ConfigurationError):
            Vmcs.for_model(skl, name)


@pytest.mark.parametrize("change, reason, error", [
    ({"guest_lbr_ctl": 1 << 4}, 33, None),
    ({"guest_lbr_ctl": 1 << 63}, 33, None),
    ({"guest_debugctl": 1 << 3}, 33, None),
    ({"guest_dr7": 1 << 32}, 33, None),
    ({"entry_controls": 0}, None, 7),
    ({"exit_controls": 1 << 31}, None, 7),
    ({"msr_bitmap": bytearray(10)}, None, 7),
    ({"entry_msr_load": [(IA32_LBR_0_FROM_IP, 0)] * 513}, None, 7),
    ({"entry_msr_load": [(IA32_LBR_0_FROM_IP, 0), (DEPTH, 9)]}, 34, None),
    ({"entry_msr_load": [(0xC0000100, 0)]}, 34, None),
    ({"entry_msr_load": [(0x9999, 0)]}, 34, None),
])
def test_entry_checks(change, reason, error):
    cpu = host()
    v = vmcs(LOAD, CLEAR, DEBUG_IN, DEBUG_OUT, **change)
    with pytest.raises(VmEntryFailure) as failure:
        cpu.vm_entry(v)
    assert failure.value.reason == reason and failure.value.error == error
    assert cpu.vmx.vmcs is None
    if reason:
        assert v.exit_reason == 1 << 31 | reason
        assert cpu.rdmsr(DEBUGCTL) == 0 and cpu.rdmsr(CTL) == 0, "the host's state is loaded"
        if reason == 34:
            assert v.exit_qualification == len(change["entry_msr_load"])
    else:
        assert v.exit_reason == 0 and cpu.rdmsr(CTL) == ALL


@pytest.mark.parametrize("control, field", [(LOAD, "guest_lbr_ctl"), (DEBUG_IN, "guest_debugctl")])
def test_fields_are_checked_only_if_they_are_loaded(control, field):
    other = {LOAD: DEBUG_IN, DEBUG_IN: LOAD}[control]
    host().vm_entry(vmcs(other, **{field: 1 << 63}))
    with pytest.raises(VmEntryFailure):
        host().vm_entry(vmcs(control, **{field: 1 << 63}))


def test_capability_msrs_say_what_entry_checks():
    cpu = Processor(SPR)
    for word, index in (("exit", 0x48F), ("entry", 0x490)):
        must, may = allowed(SPR, word, true=True)
        assert cpu.rdmsr(index) == may << 32 | must
    assert cpu.rdmsr(0x490) >> 32 & 0x200000 and cpu.rdmsr(0x48F) >> 32 & 0x4000000
    skl = Processor("skylake")
    assert not skl.rdmsr(0x490) >> 32 & 0x200000 and not skl.rdmsr(0x48F) >> 32 & 0x4000000


def test_msr_lists():
    cpu = host()
    v = vmcs(entry_msr_load=[(DEPTH, 16), (IA32_LBR_0_FROM_IP, 0x77)],
             exit_msr_store=[(IA32_LBR_0_FROM_IP, 0), (CTL, 0)],
             exit_msr_load=[(CTL, 0x10001), (DEBUGCTL, 0x800)])
    cpu.vm_entry(v)
    assert (cpu.rdmsr(DEPTH), cpu.rdmsr(IA32_LBR_0_FROM_IP)) == (16, 0x77)
    cpu.wrmsr(CTL, 0)
    cpu.vm_exit(ExitReason.VMCALL)
    assert v.exit_msr_store == [(IA32_LBR_0_FROM_IP, 0x77), (CTL, 0)]
    assert (cpu.rdmsr(CTL), cpu.rdmsr(DEBUGCTL)) == (0x10001, 0x800)


# What exits

def test_msr_bitmap():
    cpu = host()
    v = vmcs()
    v.intercept(CTL, write=False)
    v.intercept(DEPTH, read=False)
    cpu.vm_entry(v)
    with pytest.raises(VmExit) as exit_:
        cpu.rdmsr(CTL)
    assert exit_.value.reason == 31 and exit_.value.index == CTL
    cpu.wrmsr(CTL, ALL)
    assert cpu.rdmsr(DEPTH) == 32
    with pytest.raises(VmExit) as exit_:
        cpu.wrmsr(DEPTH, 8)
    assert (exit_.value.reason, exit_.value.value) == (32, 8)
    assert cpu.rdmsr(CTL, host=True) == ALL, "the hypervisor's own access does not exit"
    for outside in (0x2000, 0xC0002000, 0xFFFFFFFF):
        with pytest.raises(VmExit):
            cpu.rdmsr(outside)
    with pytest.raises(GeneralProtection):
        cpu.rdmsr(0x1FFF)
    v.intercept(CTL, on=False)
    assert cpu.rdmsr(CTL) == ALL


@given(st.sampled_from([0, IA32_DEBUGCTL, IA32_LBR_CTL, 0x1FFF, 0xC0000000, 0xC0000080,
                        0xC0001FFF]),
       st.booleans())
def test_each_msr_has_two_bits_of_the_bitmap(index, write):
    v = vmcs()
    v.intercept(index, read=not write, write=write)
    assert sum(bin(byte).count("1") for byte in v.msr_bitmap) == 1
    assert v.intercepts(index, write) and not v.intercepts(index, not write)
    offset = (2048 if write else 0) + (1024 if index >> 31 else 0) + (index & 0x1FFF) // 8
    assert v.msr_bitmap[offset] == 1 << (index & 7)


def test_without_bitmaps_every_access_exits():
    cpu = Processor(SPR)
    cpu.vm_entry(Vmcs.for_model(SPR))
    with pytest.raises(VmExit):
        cpu.rdmsr(CTL)
    with pytest.raises(VmExit):
        cpu.wrmsr(CTL, 0)


@pytest.mark.parametrize("enabled", [True, False])
def test_xsaves_in_a_guest(enabled):
    cpu = host()
    cpu.wrmsr(XSS, 1 << 15 | 1 << 11)
    cpu.xsetbv(3)
    names = ("activate secondary controls", "enable XSAVES/XRSTORS") if enabled else ()
    v = vmcs(*names, xss_exiting_bitmap=1 << 15)
    cpu.vm_entry(v)
    area = bytearray(2048)
    if not enabled:
        with pytest.raises(InvalidOpcode):
            cpu.xsaves(area)
        return
    for instruction, reason in ((cpu.xsaves, 63), (cpu.xrstors, 64)):
        with pytest.raises(VmExit) as exit_:
            instruction(area, 0, 1 << 15)
        assert exit_.value.reason == reason
    v.xss_exiting_bitmap = 1 << 11
    cpu.xsaves(area, 0, 1 << 15)
    cpu.xrstors(area, 0, 1 << 15)


# Debug exceptions and injection

def test_a_direct_db_exit_changes_nothing_and_an_indirect_one_does():
    cpu = host()
    v = vmcs(LOAD, CLEAR, DEBUG_IN, DEBUG_OUT, guest_lbr_ctl=ALL, exception_bitmap=2)
    cpu.vm_entry(v)
    with pytest.raises(VmExit) as exit_:
        cpu.debug_exception()
    assert exit_.value.reason == 0 and cpu.rdmsr(CTL) == ALL
    v.exception_bitmap = 0
    with pytest.raises(VmExit) as exit_:
        cpu.debug_exception(indirect_exit=True)
    cpu.vm_exit(exit_.value.reason)
    assert v.guest_lbr_ctl == ALL & ~1
    cpu.vm_entry(v)
    cpu.wrmsr(CTL, ALL)
    cpu.debug_exception()
    assert cpu.rdmsr(CTL) == ALL & ~1


def test_injection_changes_no_control():
    cpu = host()
    v = vmcs(LOAD, DEBUG_IN, guest_lbr_ctl=ALL, guest_debugctl=0x802,
             entry_interruption_info=1 << 31 | 3 << 8 | 1)
    before = cpu.records().tolist()
    cpu.vm_entry(v)
    assert cpu.rdmsr(CTL) == ALL and cpu.rdmsr(DEBUGCTL) == 0x802
    assert cpu.records().tolist() == before
    cpu.vm_exit(ExitReason.VMCALL)
    assert not v.entry_interruption_info >> 31, "valid bit is cleared at exit"


def test_init_exits_in_a_guest():
    cpu = host()
    cpu.vm_entry(vmcs())
    with pytest.raises(VmExit) as exit_:
        cpu.init(1, 2)
    assert exit_.value.reason == 3


def test_sipi_and_mwait_exit_in_a_guest():
    cpu = host()
    v = vmcs()
    cpu.vm_entry(v)
    before = cpu.state()
    with pytest.raises(VmExit) as exit_:
        cpu.sipi(1, 2)
    assert exit_.value.reason == 4 and cpu.state() == before
    v.set("MWAIT exiting")
    before = cpu.state()
    with pytest.raises(VmExit) as exit_:
        cpu.mwait()
    assert exit_.value.reason == 36 and cpu.state() == before
    v.set("MWAIT exiting", False)
    cpu.mwait()
    assert not cpu.records()["from"].any()


def test_smm_is_outside_of_the_guest():
    """The handler's accesses meet no bitmap, and nothing exits until RSM."""
    cpu = host()
    v = Vmcs.for_model(SPR, LOAD)
    v.guest_lbr_ctl, v.exception_bitmap = ALL, 2
    cpu.vm_entry(v)
    with pytest.raises(VmExit):
        cpu.rdmsr(CTL)
    cpu.smi()
    assert cpu.rdmsr(CTL) == ALL & ~1
    cpu.wrmsr(CTL, 0x10006)
    cpu.debug_exception()
    for outside in (lambda: cpu.vm_exit(ExitReason.CPUID), lambda: cpu.vm_entry(vmcs()),
                    lambda: cpu.debug_exception(indirect_exit=True), lambda: cpu.init()):
        with pytest.raises(UnsupportedFeature):
            outside()
    assert Processor.from_state(cpu.state()).state() == cpu.state()
    cpu.rsm()
    assert cpu.vmx.vmcs is v
    with pytest.raises(VmExit):
        cpu.rdmsr(CTL)
    cpu.vm_exit(ExitReason.CPUID)
    assert v.guest_lbr_ctl == 0x10007


def test_misuse():
    cpu = host()
    with pytest.raises(UnsupportedFeature):
        cpu.vm_exit(ExitReason.CPUID)
    cpu.vm_entry(vmcs())
    with pytest.raises(UnsupportedFeature):
        cpu.vm_entry(vmcs())
    with pytest.raises(UnsupportedFeature):
        Processor("zen4").vm_entry(Vmcs())


# Nested: L2 under L1 under L0 sees what L2 under L1 on the bare processor sees

L1_CONTROLS = (LOAD, CLEAR, DEBUG_IN, DEBUG_OUT, "load guest IA32_PERF_GLOBAL_CTRL",
               "load host IA32_PERF_GLOBAL_CTRL", "save IA32_PERF_GLOBAL_CTRL")
#: INFO is left out: whenever L0 runs, LBREn is clear, and CYC_CNT starts again after it.
VISIBLE = (CTL, DEBUGCTL, DEPTH, IA32_PERF_GLOBAL_CTRL, IA32_LBR_0_FROM_IP, IA32_LBR_0_TO_IP,
           0x1501, 0x151F)


class Nest:
    """L1 on a bare processor beside L1 in a guest of L0; both get every operation."""

    def __init__(self, names, fields):
        self.bare, self.deep = Processor(SPR), Processor(SPR)
        self.v12 = [vmcs(*names, **fields), vmcs(*names, **fields)]
        self.v01 = vmcs(*L1_CONTROLS, guest_perf_global_ctrl=0xFF)
        self.v02 = None
        self.deep.vm_entry(self.v01)
        self.in_l2 = False

    def both(self, what):
        results = []
        for cpu in (self.bare, self.deep):
            try:
                results.append(what(cpu))
            except GeneralProtection as fault:
                results.append(str(fault))
            except VmExit as exit_:
                results.append((exit_.reason, exit_.index))
        assert results[0] == results[1]
        return results[0]

    def enter(self):
        self.deep.vm_exit(ExitReason.VMCALL)  # L1's VMLAUNCH exits to L0
        failed = []
        try:
            self.bare.vm_entry(self.v12[0])
        except VmEntryFailure as failure:
            failed.append((failure.reason, failure.error, failure.qualification))
        try:
            self.v02 = nested.entry(self.deep, self.v01, self.v12[1])
        except VmEntryFailure as failure:
            assert failed == [(failure.reason, failure.error, failure.qualification)]
            self.deep.vm_entry(self.v01)
            self.compare()
            return False
        assert not failed
        self.deep.vm_entry(self.v02)
        self.in_l2 = True
        return True

    def leave(self, reason):
        self.bare.vm_exit(reason)
        self.deep.vm_exit(reason)
        nested.leave(self.deep, self.v01, self.v12[1], self.v02, reason)
        self.deep.vm_entry(self.v01)
        self.in_l2 = False

    def compare(self):
        for index in VISIBLE:
            self.both(lambda cpu, i=index: cpu.rdmsr(i))
        one, two = self.v12
        for name in ("guest_lbr_ctl", "guest_debugctl", "guest_perf_global_ctrl", "exit_reason",
                     "exit_qualification", "exit_msr_store"):
            assert getattr(one, name) == getattr(two, name), name


LISTED = [(DEPTH, 16), (CTL, 0x3F0007), (DEBUGCTL, 0x801), (IA32_PERF_GLOBAL_CTRL, 3),
          (IA32_LBR_0_FROM_IP, 0x77),
          (DEPTH, 32)]


@settings(max_examples=250, deadline=None)
@given(
    st.sets(st.sampled_from(L1_CONTROLS)),
    st.fixed_dictionaries({
        "guest_lbr_ctl": st.sampled_from([0, ALL, 0x3F0006, 1 << 5]),
        "guest_debugctl": st.sampled_from([0, 0x800, 0x1003, 8]),
        "guest_perf_global_ctrl": st.sampled_from([0, 1, 3 << 32, 1 << 20]),
        "host_perf_global_ctrl": st.sampled_from([0xFF, 2, 1 << 20]),
        # The last of them is refused; at a VM exit that would be a VMX abort.
        "entry_msr_load": st.lists(st.sampled_from([*LISTED, (DEPTH, 24)]), max_size=3),
        "exit_msr_load": st.lists(st.sampled_from(LISTED), max_size=3),
    }),
    st.sets(st.sampled_from([CTL, DEBUGCTL, DEPTH])),
    st.lists(st.tuples(st.sampled_from(["ctl", "debugctl", "depth", "branch", "turn", "db"]),
                       st.integers(0, 7)), max_size=25),
)
def test_nested_equals_bare(names, fields, watched, steps):
    nest = Nest(tuple(names), fields)
    for v in nest.v12:
        v.exit_msr_store = [(CTL, 0), (IA32_LBR_0_FROM_IP, 0)]
        for index in watched:
            v.intercept(index)
    for what, n in steps:
        if what == "turn":
            if nest.in_l2:
                nest.leave(ExitReason.VMCALL)
            else:
                nest.enter()
        elif what == "branch":
            nest.both(lambda cpu, n=n: cpu.branch(n % 6, 0x1000 + n, 0x2000 + n, cycles=n))
        elif what == "db":
            nest.both(lambda cpu: cpu.debug_exception())
        else:
            index, value = {"ctl": (CTL, (0, ALL, 0x10003, 1 << 5)[n % 4]),
                            "debugctl": (DEBUGCTL, (0, 0x800, 1, 8)[n % 4]),
                            "depth": (DEPTH, (8, 16, 32, 24)[n % 4])}[what]
            nest.both(lambda cpu, i=index, v=value: cpu.wrmsr(i, v))
        nest.compare()


def test_nested_entry_failures_are_those_of_the_bare_processor():
    for names, fields, reason in (
            ((LOAD,), {"guest_lbr_ctl": 1 << 5}, 33),
            ((), {"entry_msr_load": [(CTL, ALL), (IA32_LER_FROM_IP, 5), (DEPTH, 24)]}, 34),
            ((LOAD, CLEAR), {"guest_lbr_ctl": ALL, "entry_msr_load": [(0x9999, 0)],
                             "exit_msr_load": [(DEPTH, 8)]}, 34)):
        nest = Nest(names, fields)
        nest.both(lambda cpu: cpu.wrmsr(CTL, 0x10007))
        assert not nest.enter()
        assert nest.v12[1].exit_reason == 1 << 31 | reason
    nest = Nest(("load host IA32_PERF_GLOBAL_CTRL",), {"host_perf_global_ctrl": 1 << 20})
    assert not nest.enter() and nest.v12[1].exit_reason == 0
    with pytest.raises(UnsupportedFeature, match="VMX abort"):
        Nest((LOAD,), {"guest_lbr_ctl": 1 << 5, "exit_msr_load": [(DEPTH, 24)]}).enter()
    v01, v12 = vmcs(*L1_CONTROLS), vmcs(exit_msr_load=[(DEPTH, 24)])
    with pytest.raises(UnsupportedFeature, match="VMX abort"):
        nested.leave(Processor(SPR), v01, v12, v01.copy(), ExitReason.VMCALL)


def test_which_exits_l1_asked_for():
    v12 = vmcs(exception_bitmap=2)
    v12.intercept(CTL, write=False)
    assert nested.wants_exit(v12, ExitReason.RDMSR, CTL)
    assert not nested.wants_exit(v12, ExitReason.WRMSR, CTL)
    assert nested.wants_exit(v12, ExitReason.EXCEPTION_OR_NMI)
    assert not nested.wants_exit(v12, ExitReason.EPT_VIOLATION)
    assert nested.wants_exit(v12, ExitReason.VMCALL)


def test_exits_that_either_hypervisor_may_want():
    """MWAIT and XSAVES exit to the level that asked; L1 sees its own exits alone."""
    names = (*L1_CONTROLS, "activate secondary controls", "enable XSAVES/XRSTORS")
    for l0, l1 in ((False, True), (True, False), (True, True)):
        cpu = Processor(SPR)
        cpu.wrmsr(XSS, 1 << 15 | 1 << 11)
        cpu.xsetbv(3)
        v01, v12 = vmcs(*names), vmcs(*names)
        for v, asks in ((v01, l0), (v12, l1)):
            v.set("MWAIT exiting", asks)
            v.xss_exiting_bitmap = asks << 15
        v12.xss_exiting_bitmap |= 1 << 11
        cpu.vm_entry(v01)
        cpu.vm_exit(ExitReason.VMCALL)
        cpu.vm_entry(nested.entry(cpu, v01, v12))
        for step, args in ((cpu.mwait, ()), (cpu.xsaves, (bytearray(2048),)),
                           (cpu.xrstors, (bytearray(2048),))):
            with pytest.raises(VmExit) as exit_:
                step(*args)
            one = exit_.value
            assert nested.wants_exit(v12, one.reason, one.index, one.value) is l1


def test_l0_may_watch_what_l1_does_not():
    cpu = Processor(SPR)
    v01, v12 = vmcs(*L1_CONTROLS), vmcs(LOAD, guest_lbr_ctl=ALL)
    v01.intercept(DEPTH)
    cpu.vm_entry(v01)
    cpu.vm_exit(ExitReason.VMCALL)
    v02 = nested.entry(cpu, v01, v12)
    cpu.vm_entry(v02)
    assert cpu.rdmsr(CTL) == ALL
    with pytest.raises(VmExit) as exit_:
        cpu.wrmsr(DEPTH, 8)
    assert not nested.wants_exit(v12, exit_.value.reason, exit_.value.index)
    cpu.branch(BranchClass.COND, 1, 2)
    assert cpu.rdmsr(IA32_LBR_0_FROM_IP) == 1
