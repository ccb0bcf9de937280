"""Nested: L1 runs L2, and either is saved and restored, or loses the LBRs to L0, at every point."""

import pytest

from pylbr.arch import ExitReason
from pylbr.cpu import Vmcs, VmExit, nested
from tests.kvm.vm import (
    ALL,
    CALL_STACK,
    CTL,
    DEBUGCTL,
    DEPTH,
    FROM,
    STATUS,
    STATUS_RESET,
    XSS,
    Vm,
    by_msrs,
    by_state,
    by_xsaves,
    overflow,
    reclaimed,
)
from tests.manual import STATUS_LBR_FRZ

LOAD, CLEAR = "load IA32_LBR_CTL", "clear IA32_LBR_CTL"
DEBUG = ("load debug controls", "save debug controls")
XSAVES = ("activate secondary controls", "enable XSAVES/XRSTORS")
#: Controls that L1 may set for L2.
SETS = {"none": XSAVES, "toggles LBR_CTL": (LOAD, CLEAR, *XSAVES),
        "loads, keeps": (LOAD, *XSAVES), "debug too": (LOAD, CLEAR, *DEBUG, *XSAVES)}


class Nest(Vm):
    """L1 in a VM of L0; `vmcs` is the one that L0 runs, of L1 or of L2.

    Parameters
    ----------
    controls : sequence of str
        Of L1's VMCS for L2, beside the MSR bitmap.
    watched : sequence of int
        MSRs of L2 that L1 intercepts.
    """

    def __init__(self, model, intercept=False, controls=SETS["toggles LBR_CTL"], watched=()):
        super().__init__(model, intercept)
        self.v01 = self.vmcs
        self.v12 = Vmcs.for_model(self.model, "use MSR bitmaps", *controls)
        self.v12.guest_lbr_ctl = CALL_STACK
        for index in watched:
            self.v12.intercept(index)

    @property
    def level(self):
        return 1 if self.vmcs is self.v01 else 2

    def _launch(self):
        """L1's VMLAUNCH exits to L0, which runs L2."""
        self.exit()
        self.vmcs = nested.entry(self.cpu, self.v01, self.v12)
        self.enter()
        return self.level

    def _leave(self, reason=ExitReason.VMCALL):
        self.exit(reason)
        return self._hand_on(reason)

    def _hand_on(self, reason):
        nested.leave(self.cpu, self.v01, self.v12, self.vmcs, reason)
        self.vmcs = self.v01
        self.enter()
        return self.level, self.v12.exit_reason, self.v12.guest_lbr_ctl

    def _emulate(self, exit_, *arguments):
        if self.level == 2 and nested.wants_exit(self.v12, exit_.reason, exit_.index):
            return self._leave(exit_.reason)
        return super()._emulate(exit_, *arguments)

    def renew(self, saved, cpu):
        """The VMCSs go along; L2's is not created again, since it holds what L2 was exited with."""
        self.cpu, self.memory, self.transcript = cpu, saved.memory, saved.transcript
        self.vmcs, self.v01, self.v12 = saved.vmcs, self.v01.copy(), self.v12.copy()
        if not self.in_l2:
            self.vmcs = self.v01

    def destroy(self, data):
        self.in_l2 = self.level == 2
        return super().destroy(data)


PROGRAMS = {
    "L1 records around L2": [
        ("wrmsr", CTL, ALL), ("branches", 20, 1), ("launch",), ("dump",), ("branches", 5, 2),
        ("leave",), ("dump",), ("branches", 3, 3), ("dump",),
    ],
    "L2 records": [
        ("wrmsr", CTL, ALL), ("branches", 9, 1), ("wrmsr", CTL, 0), ("launch",),
        ("wrmsr", CTL, ALL), ("branches", 40, 2), ("dump",), ("wrmsr", DEPTH, 16), ("dump",),
        ("branches", 7, 3), ("leave",), ("dump",), ("launch",), ("dump",), ("branches", 4, 4),
        ("leave",), ("dump",),
    ],
    "call stack in L2": [
        ("launch",), ("wrmsr", CTL, CALL_STACK), *[("call", n) for n in range(5)], ("dump",),
        ("leave",), ("call", 9), ("launch",), ("ret", 4), ("dump",), ("leave",), ("dump",),
    ],
    "frozen in L2": [
        ("wrmsr", CTL, ALL), ("launch",), *overflow(6), ("wrmsr", CTL, ALL),
        ("branches", 9, 1, 3, (0, 1)), ("rdmsr", STATUS), ("dump",), ("branches", 3, 2),
        ("leave",), ("dump",), ("wrmsr", STATUS_RESET, STATUS_LBR_FRZ | 1), ("branches", 3, 3),
        ("dump",),
    ],
    "XSAVES in L2": [
        ("xsetbv", 7), ("wrmsr", XSS, 1 << 15), ("launch",), ("wrmsr", CTL, ALL),
        ("branches", 40, 1), ("xsaves",), ("branches", 5, 2), ("leave",), ("xsaves",),
        ("launch",), ("xrstors",), ("dump",), ("leave",), ("dump",),
    ],
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("controls", SETS)
@pytest.mark.parametrize("intercept", [False, True])
def test_at_every_point(name, controls, intercept):
    def run(hook=None):
        return Nest("sapphire-rapids", intercept, SETS[controls]).run(PROGRAMS[name], hook)
    whole = run()
    assert (2 in whole) and any(isinstance(seen, tuple) and seen[0] == 1 for seen in whole)
    for hook in (by_state, by_msrs, by_xsaves, reclaimed(), reclaimed(by_state),
                 reclaimed(by_msrs)):
        assert run(hook) == whole


@pytest.mark.parametrize("name", PROGRAMS)
def test_at_each_point_alone(name):
    program = PROGRAMS[name]
    whole = Nest("sapphire-rapids").run(program)
    for place in range(len(program) + 1):
        for hook in (by_state, reclaimed(by_xsaves)):
            def once(vm, now, hook=hook, place=place):
                return hook(vm) if now == place else None
            assert Nest("sapphire-rapids").run(program, once) == whole, place


@pytest.mark.parametrize("intercept", [False, True])
def test_what_l1_intercepts_of_l2_reaches_l1_and_the_rest_does_not(intercept):
    vm = Nest("sapphire-rapids", intercept, watched=(DEPTH,))
    seen = vm.run([("launch",), ("wrmsr", CTL, ALL), ("rdmsr", CTL), ("wrmsr", DEPTH, 8),
                   ("rdmsr", DEPTH), ("rdmsr", CTL)], by_state)
    assert seen == [2, None, ALL, (1, int(ExitReason.WRMSR), ALL), 32, 0]


def test_l0_takes_the_lbrs_in_l2_and_l1_does_not_learn_of_it():
    """While the host has them, L2 gets nothing of the host's in any way."""
    vm = Nest("sapphire-rapids", intercept=True)
    vm.run([("wrmsr", CTL, ALL), ("launch",), ("wrmsr", XSS, 1 << 15), ("xsetbv", 7)])
    for access in (lambda: vm.cpu.rdmsr(FROM), lambda: vm.cpu.xsaves(bytearray(2048)),
                   lambda: vm.cpu.rdmsr(DEBUGCTL)):
        with pytest.raises(VmExit):
            access()
    assert vm.level == 2 and not nested.wants_exit(vm.v12, ExitReason.RDMSR, FROM)


def test_the_comparison_is_not_blind():
    """An L0 that forgets L2's part of the VMCS is noticed."""
    def forget(vm, place):
        by_state(vm)
        vm.vmcs.guest_lbr_ctl = vm.v01.guest_lbr_ctl
    program = PROGRAMS["call stack in L2"]
    assert Nest("sapphire-rapids").run(program, forget) != Nest("sapphire-rapids").run(program)
