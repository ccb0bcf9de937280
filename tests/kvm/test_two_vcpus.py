"""Two vCPUs take turns on one processor, in the manner of the kernel's msrs_test: each sees its
own values, and runs as if it were alone."""

import pytest

from pylbr.arch import MODELS
from pylbr.cpu import Processor
from tests.kvm.vm import (
    ALL,
    ARCH,
    CTL,
    DEBUGCTL,
    DEPTH,
    FROM,
    IN_VMCS,
    LEGACY,
    LER,
    SELECT,
    TOS,
    Vm,
    lbr_msrs,
    load_facility,
    save_facility,
    wipe,
)
from tests.manual import IA32_PERF_GLOBAL_CTRL

MODELS_ = ("sapphire-rapids", "sierra-forest", "skylake", "haswell")


class Turns:
    """vCPUs on one processor; `guard` is what is done when one leaves."""

    def __init__(self, model, programs, intercept=(False, False), guards=("save", "wipe", "load")):
        self.cpu, self.guards = Processor(model), guards
        self.vms = [Vm(model, i) for i in intercept]
        self.programs = [iter(program) for program in programs]
        self.images = []
        for vm in self.vms:
            vm.exit()
            self.images.append(save_facility(vm.cpu))
            vm.cpu = self.cpu

    def turn(self, who):
        """One instruction of a vCPU, between load and put."""
        vm, instruction = self.vms[who], next(self.programs[who], None)
        if instruction is None:
            return False
        if "load" in self.guards:
            load_facility(self.cpu, self.images[who])
        vm.enter()
        vm.transcript.append(vm.execute(*instruction))
        vm.exit()
        if "save" in self.guards:
            self.images[who] = save_facility(self.cpu)
        if "wipe" in self.guards:
            wipe(self.cpu)
        return True

    def run(self, order=(0, 1)):
        while sum(self.turn(who) for who in order):
            pass
        return [vm.transcript for vm in self.vms]


def values_of(index, who):
    """A value that this register of this vCPU may have, unlike the other vCPU's."""
    if index == CTL:
        return (0x7F0006, 0x010004)[who]
    if index == DEPTH:
        return (8, 16)[who]
    if index == DEBUGCTL:
        return (0x800, 0x1000)[who]
    if index == SELECT:
        return (1, 0x1FC)[who]
    if index == TOS:
        return (3, 5)[who]
    return 0x1000 * (who + 1) + (index & 0xFFF)


def msrs(model, who):
    """Write every MSR of the facility, then read it again."""
    model = MODELS[model]
    indices = [index for index in [*lbr_msrs(model), DEBUGCTL]
               if model.arch or index not in LER]     # the legacy ones are read-only
    if model.arch:
        indices = [i for i in indices if (i & 0xFF) < 8 or i in (CTL, DEPTH, *LER, DEBUGCTL)]
    for index in indices:
        yield "wrmsr", index, values_of(index, who)
        yield "rdmsr", index
    for index in indices:
        yield "rdmsr", index
        yield "wrmsr", index, 1 << 63 | 1 << 62 | 1 << 45   # refused, or kept as it is allowed
        yield "rdmsr", index


@pytest.mark.parametrize("model", MODELS_)
@pytest.mark.parametrize("intercept", [(False, False), (False, True), (True, True)])
def test_every_msr_of_each(model, intercept):
    programs = [list(msrs(model, who)) for who in (0, 1)]
    alone = [Vm(model).run(program) for program in programs]
    assert Turns(model, programs, intercept).run() == alone
    assert alone[0] != alone[1] and "#GP" in alone[0]
    for who in (0, 1):
        assert alone[who][1] == values_of(programs[who][0][1], who), "what it wrote first"


@pytest.mark.parametrize("model", MODELS_)
@pytest.mark.parametrize("order", [(0, 1), (0, 0, 1), (1, 0, 1, 1, 1, 0)])
def test_programs_side_by_side(model, order):
    programs = ARCH if MODELS[model].arch else LEGACY
    names = [name for name in programs if name != "frozen"]     # its counter is not switched here
    for one, two in zip(names, names[1:] + names[:1], strict=True):
        pair = [programs[one], programs[two]]
        alone = [Vm(model).run(program) for program in pair]
        assert Turns(model, pair, (False, True)).run(order) == alone


@pytest.mark.parametrize("model", ["sapphire-rapids", "skylake"])
@pytest.mark.parametrize("guards", [("wipe",), ("save", "load"), (), ("save", "wipe")])
def test_a_hand_over_without_a_guard_shows(model, guards):
    """«save, load» alone is enough for records that all are loaded, and only for them."""
    programs = ARCH if MODELS[model].arch else LEGACY
    pair = [programs["basic"], programs["filters"]]
    alone = [Vm(model).run(program) for program in pair]
    got = Turns(model, pair, guards=guards).run()
    assert (got == alone) == ("load" in guards)


def test_without_a_wipe_a_guest_reads_the_other_ones_records():
    """A guest that never recorded, on registers that were not emptied."""
    pair = [[("wrmsr", CTL, ALL), ("branches", 40, 7)], [("rdmsr", CTL), ("rdmsr", FROM)]]
    leaked = Turns("sapphire-rapids", pair, guards=()).run()[1]
    assert leaked[0] == 0 and leaked[1] != 0
    assert Turns("sapphire-rapids", pair).run()[1] == [0, 0]
    assert set(IN_VMCS) == {CTL, DEBUGCTL, IA32_PERF_GLOBAL_CTRL}, "these the VMCS keeps apart"
