"""The processor of the search against `pylbr.cpu.Processor`."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pylbr.arch import ExitReason, model
from pylbr.cpu import Processor, Vmcs
from pylbr.cpu.facility import facility
from pylbr.cpu.hardware import HardwareState
from tests.manual import (
    IA32_DEBUGCTL,
    IA32_LBR_0_FROM_IP,
    IA32_LBR_0_INFO,
    IA32_LBR_0_TO_IP,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_PERF_GLOBAL_STATUS_RESET,
    IA32_XSS,
    MSR_LBR_SELECT,
    RECORD_ALL,
)

CTL, DEBUGCTL, DEPTH, SELECT = IA32_LBR_CTL, IA32_DEBUGCTL, IA32_LBR_DEPTH, MSR_LBR_SELECT
STATUS_RESET, XSS = IA32_PERF_GLOBAL_STATUS_RESET, IA32_XSS
AREA, OFFSET = 1408, 576

ctls = st.sampled_from([0, 1, RECORD_ALL, 0x7F0005, 0x7F0003, 0x010007, 0x180006])
operations = st.lists(st.one_of(
    st.tuples(st.just("branch"), st.sampled_from([0, 1, 2, 3, 4, 5, 9, 12, 13]),
              st.integers(1, 2**40), st.integers(1, 2**40), st.sampled_from([0, 3]),
              st.sampled_from([0, 3])),
    st.tuples(st.just("ctl"), ctls),
    st.tuples(st.just("debugctl"), st.sampled_from([0, 0x800])),
    st.tuples(st.just("depth"), st.sampled_from([8, 16, 32])),
    st.tuples(st.just("entry"), st.integers(0, 7), st.integers(0, 2**40), st.integers(0, 2**40)),
    st.tuples(st.just("initialise")),
    st.tuples(st.just("save")),
    st.tuples(st.just("restore")),
    st.tuples(st.just("entry and exit"), ctls, st.booleans(), st.booleans(),
              st.integers(0, 3)),
    st.tuples(st.just("pmi")),
    st.tuples(st.just("acknowledge")),
), max_size=40)


def controls(load, clear):
    return [name for name, on in (("load IA32_LBR_CTL", load), ("clear IA32_LBR_CTL", clear))
            if on]


class Pair:
    """Both processors, one operation at a time."""

    def __init__(self, name):
        self.model = model(name)
        self.cpu = Processor(self.model)
        self.arch = self.model.arch is not None
        self.fast = HardwareState(facility(self.model).config)
        self.area, self.image = bytearray(AREA), None
        if self.arch:
            self.cpu.wrmsr(XSS, 1 << 15)

    def branch(self, cls, from_, to, cpl_from, cpl_to):
        self.cpu.branch(cls, from_, to, cpl_from=cpl_from, cpl_to=cpl_to)
        self.fast.branch(cls, from_, to, cpl_from, cpl_to)

    def ctl(self, value):
        if not self.arch:
            value &= 0x1FF
        self.cpu.wrmsr(CTL if self.arch else SELECT, value)
        self.fast.set_ctl(value)

    def debugctl(self, value):
        if not self.arch:
            value |= 1
        self.cpu.wrmsr(DEBUGCTL, value)
        self.fast.set_debugctl(value)

    def depth(self, value):
        if self.arch:
            self.cpu.wrmsr(DEPTH, value)
            self.fast.write_depth(value)

    def entry(self, i, from_, to):
        if self.arch:
            self.cpu.wrmsr(IA32_LBR_0_FROM_IP + i, from_)
            self.cpu.wrmsr(IA32_LBR_0_TO_IP + i, to)
            self.cpu.wrmsr(IA32_LBR_0_INFO + i, 0)
            self.fast.write_entry(i, from_, to, 0)

    def initialise(self):
        if self.arch:
            empty = bytearray(AREA)
            empty[520:528] = (1 << 63 | 1 << 15).to_bytes(8, "little")
            self.cpu.xrstors(empty)
            self.fast.initialise()

    def save(self):
        if self.arch:
            self.area = bytearray(AREA)
            self.cpu.xsaves(self.area)
            self.image = self.fast.save()
            if self.area[512:520] != bytes(8):  # else the initial state, which is not written
                assert self.area[OFFSET:OFFSET + 808] == self.image

    def restore(self):
        if self.image is not None:
            self.cpu.xrstors(self.area)
            self.fast.restore(self.image)

    def pmi(self):
        self.cpu.raise_pmi()
        self.fast.freeze()

    def acknowledge(self):
        if self.model.pmu.version >= 4:
            self.cpu.wrmsr(STATUS_RESET, 1 << 58)
            self.fast.acknowledge()

    def world(self, ctl, load, clear, branches):
        if not self.arch:
            return
        vmcs = Vmcs.for_model(self.model, "use MSR bitmaps", "load debug controls",
                              "save debug controls", *controls(load, clear))
        vmcs.guest_lbr_ctl = ctl
        self.cpu.vm_entry(vmcs)
        self.fast.vm_entry(0, ctl, load, clear)
        for n in range(branches):
            self.branch(0, n + 1, n + 2, 3, 3)
        self.same()
        self.cpu.vm_exit(ExitReason.VMCALL)
        assert self.fast.vm_exit() == (vmcs.guest_debugctl, vmcs.guest_lbr_ctl)

    def same(self):
        ctl, debugctl, depth, ler, entries = self.fast.registers()
        assert ctl == self.cpu.lbr.ctl and debugctl == self.cpu.debugctl
        assert depth == self.cpu.lbr.depth and ler == tuple(self.cpu.lbr.ler)
        assert entries == [tuple(map(int, row)) for row in self.cpu.lbr.records()]


@pytest.mark.parametrize("name", ["sapphire-rapids", "haswell"])
def test_agrees_with_the_processor(name):
    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(operations)
    def check(steps):
        pair = Pair(name)
        for operation, *arguments in steps:
            {"entry and exit": pair.world}.get(operation, getattr(pair, operation, None))(
                *arguments)
            pair.same()

    check()
