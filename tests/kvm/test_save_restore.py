"""In the manner of KVM's state_test: save, destroy and restore a vCPU at every point.

The uninterrupted run exits at the same points and continues.
"""

import pytest

from pylbr.arch import MODELS, architectural
from pylbr.errors import StateError
from tests.kvm import vm as vms
from tests.kvm.vm import ARCH, CTL, DEPTH, LEGACY, Vm, by_msrs, by_state, by_xsaves
from tests.manual import STATUS_LBR_FRZ

ARCH_MODELS = ("sapphire-rapids", "alder-lake-p", "sierra-forest")
LEGACY_MODELS = ("skylake", "haswell", "goldmont", "nehalem")
PROGRAMS = [(model, name) for model in ARCH_MODELS for name in ARCH] + [
    (model, name) for model in LEGACY_MODELS for name in LEGACY]


def program_of(model, name):
    return (ARCH if MODELS[model].arch else LEGACY)[name]


def ways(model):
    return (by_state, by_msrs, by_xsaves) if MODELS[model].arch else (by_state, by_msrs)


def at(place, what):
    return lambda vm, now: what(vm) if now == place else None


@pytest.mark.parametrize(("model", "name"), PROGRAMS)
@pytest.mark.parametrize("intercept", [False, True])
def test_at_every_point(model, name, intercept):
    program = program_of(model, name)
    whole = Vm(model, intercept).run(program)
    for way in ways(model):
        assert Vm(model, intercept).run(program, way) == whole, way.__name__


@pytest.mark.parametrize(("model", "name"), PROGRAMS)
def test_at_each_point_alone(model, name):
    program = program_of(model, name)
    whole = Vm(model).run(program)
    for place in range(len(program) + 1):
        for way in ways(model):
            assert Vm(model).run(program, at(place, way)) == whole, (place, way.__name__)


@pytest.mark.parametrize(("model", "name"), PROGRAMS)
def test_interception_does_not_show(model, name):
    program = program_of(model, name)
    assert Vm(model, intercept=True).run(program) == Vm(model).run(program)


@pytest.mark.parametrize(("model", "name"), PROGRAMS)
@pytest.mark.parametrize("intercept", [False, True])
def test_reclaimed_by_the_host(model, name, intercept):
    """The host records between any two instructions, and the vCPU may be moved meanwhile."""
    program = program_of(model, name)
    whole = Vm(model, intercept).run(program)
    assert Vm(model, intercept).run(program, vms.reclaimed()) == whole
    for way in ways(model):
        assert Vm(model, intercept).run(program, vms.reclaimed(way)) == whole, way.__name__


def test_in_guest_mode():
    """Nothing exits; the state has the VMCS in it."""
    def run(saving):
        guest, seen = Vm("sapphire-rapids"), []
        for instruction in ARCH["xsaves"] + ARCH["basic"]:
            if saving:
                state = vms.encode(guest.cpu.state())
                guest.cpu = vms.Processor.from_state(vms.decode(state))
                guest.vmcs = guest.cpu.vmx.vmcs
            seen.append(guest.execute(*instruction))
        return seen
    assert run(True) == run(False)


def test_what_a_guest_can_tell():
    """XINUSE[15] of registers that are all 0: XSAVES may write XSTATE_BV[15] either way (SDM
    vol. 1, 13.11), and does so differently once a hypervisor has loaded them by XRSTORS."""
    program = [("xsetbv", 7), ("wrmsr", vms.XSS, 1 << 15), ("wrmsr", CTL, vms.ALL),
               ("branches", 3, 1), ("wrmsr", CTL, 0), ("wrmsr", DEPTH, 32), ("xsaves",)]
    alone, moved = (Vm("sapphire-rapids").run(program, way)[-1] for way in (None, by_xsaves))
    assert alone[512:520] == bytes(8) and moved[512:520] == (1 << 15).to_bytes(8, "little")
    assert moved[576:584] + moved[592:] == bytes(2048 - 584) and moved[584] == 32
    assert Vm("sapphire-rapids").run(program, by_state)[-1] == alone


# Unlike hosts

@pytest.mark.parametrize(("models", "name"), [
    (models, name)
    for models in (("sapphire-rapids", "sierra-forest"),
                   ("alder-lake-p", "alder-lake-e", "sapphire-rapids"))
    for name in ARCH
] + [(("skylake", "ice-lake", "tiger-lake"), name) for name in LEGACY if name != "frozen"]
  + [(("haswell", "broadwell"), name) for name in LEGACY])
def test_across_unlike_hosts(models, name):
    """At every point to the next host."""
    program = program_of(models[0], name)
    assert Vm(models[0]).run(program, vms.elsewhere(*models)) == Vm(models[0]).run(program)


def test_across_hosts_of_unlike_depths():
    """A guest that keeps to 8 or 16 entries may go; one with 32 may not, and stays."""
    shallow = architectural("shallow", depths=(8, 16))
    looks = [("rdmsr", base + i) for i in (0, 7) for base in (vms.FROM, vms.TO, vms.INFO)]
    program = [("wrmsr", DEPTH, 8), ("wrmsr", CTL, vms.ALL), ("branches", 5, 1), *looks,
               ("branches", 30, 2), *looks, ("wrmsr", CTL, 0), ("rdmsr", DEPTH), *looks]
    move, refused = vms.elsewhere("sapphire-rapids", shallow), []

    def try_to(vm, place):
        before = vm.cpu.state()
        try:
            move(vm)
        except StateError as error:
            refused.append(str(error))
            assert vm.cpu.state() == before
    whole = Vm("sapphire-rapids").run(program)
    assert Vm("sapphire-rapids").run(program, try_to) == whole
    assert len(refused) == 1 and "depth 32 is none of 8, 16" in refused[0], "before it chose 8"
    deep = [("wrmsr", DEPTH, 32), *program[1:]]
    refused.clear()
    assert Vm("sapphire-rapids").run(deep, try_to) == Vm("sapphire-rapids").run(deep)
    assert len(refused) == len(deep) + 1


# The programs do what they are there for, and the comparison is not blind

def test_programs_reach_what_they_are_named_for():
    def run(name, model="sapphire-rapids", programs=ARCH):
        return list(zip(programs[name], Vm(model).run(programs[name]), strict=True))
    status = [seen for what, seen in run("frozen") if what == ("rdmsr", vms.STATUS)]
    assert status == [0, STATUS_LBR_FRZ | 1, 0]
    dumps = [seen for what, seen in run("frozen") if what == ("dump",)]
    assert dumps[0] == dumps[1] != dumps[2], "frozen, then not"
    newest = [seen[5] for what, seen in run("call stack") if what == ("dump",)]
    assert newest == [0x1009, 0x1007, 0x1014, 0]
    ctl = [seen[0] for what, seen in run("events") if what == ("dump",)]
    assert ctl == [vms.ALL, vms.ALL & ~1, vms.ALL & ~1]
    areas = [seen for what, seen in run("xsaves") if what == ("xsaves",)]
    assert not any(areas[0][576:]) and areas[0] != areas[1]
    assert areas[1][576:] == areas[2][576:] and areas[1][512:520] != areas[2][512:520]
    depths = [seen for what, seen in run("depth") if what[0] == "wrmsr" and what[1] == DEPTH]
    assert depths == [None, None, None, "#GP", "#GP", "#GP"]
    stopped = [seen[-1] for what, seen in run("frozen", "haswell", LEGACY) if what == ("dump",)]
    assert stopped == [0x801, 0x800, 0x800, 0x801]


@pytest.mark.parametrize(("name", "lost"), [
    ("basic", vms.FROM), ("basic", CTL), ("depth", DEPTH), ("events", vms.LER[0]),
    ("frozen", vms.STATUS), ("xsaves", vms.XSS), ("call stack", vms.TO + 3),
])
def test_a_register_that_is_not_saved_is_missed(name, lost):
    def forget(vm, place):
        by_state(vm)
        if lost == CTL:
            vm.vmcs.guest_lbr_ctl = 0
        elif lost == vms.STATUS:
            vm.cpu.msrs.set_status(0)
        elif lost == DEPTH:
            vm.cpu.wrmsr(DEPTH, 32)
        else:
            vm.cpu.wrmsr(lost, 0)
    program = ARCH[name]
    assert Vm("sapphire-rapids").run(program, forget) != Vm("sapphire-rapids").run(program)
