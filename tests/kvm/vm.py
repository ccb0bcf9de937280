"""A VM with one vCPU on `Processor`: a hypervisor that owns the VMCS, and guest programs.

A program is a list of instructions, tuples of a name and its arguments; what the guest learns
from them is its transcript.  Faults are part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lbrcore import BranchClass
from pylbr.arch import MODELS, ExitReason
from pylbr.arch.register import Access
from pylbr.arch.registers import registers
from pylbr.cpu import InvalidOpcode, Processor, Vmcs, VmExit, decode, encode, migrate
from pylbr.errors import GeneralProtection
from tests.cpu.helpers import some_branches
from tests.manual import (
    IA32_DEBUGCTL,
    IA32_LBR_0_FROM_IP,
    IA32_LBR_0_INFO,
    IA32_LBR_0_TO_IP,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_LER_FROM_IP,
    IA32_LER_INFO,
    IA32_LER_TO_IP,
    IA32_PERF_GLOBAL_CTRL,
    IA32_PERF_GLOBAL_STATUS,
    IA32_PERF_GLOBAL_STATUS_RESET,
    IA32_PERF_GLOBAL_STATUS_SET,
    IA32_PERFEVTSEL0,
    IA32_PMC0,
    IA32_XSS,
    MSR_LASTBRANCH_TOS,
    MSR_LBR_SELECT,
    RECORD_ALL,
    STATUS_LBR_FRZ,
)

CTL, DEPTH, DEBUGCTL = IA32_LBR_CTL, IA32_LBR_DEPTH, IA32_DEBUGCTL
GLOBAL_CTRL, XSS = IA32_PERF_GLOBAL_CTRL, IA32_XSS
STATUS, STATUS_RESET = IA32_PERF_GLOBAL_STATUS, IA32_PERF_GLOBAL_STATUS_RESET
STATUS_SET = IA32_PERF_GLOBAL_STATUS_SET
SELECT, TOS = MSR_LBR_SELECT, MSR_LASTBRANCH_TOS
LER = (IA32_LER_FROM_IP, IA32_LER_TO_IP, IA32_LER_INFO)
FROM, TO, INFO = IA32_LBR_0_FROM_IP, IA32_LBR_0_TO_IP, IA32_LBR_0_INFO
ALL = RECORD_ALL
CALL_STACK = 0x38000D       # LBREn, USR, CALL_STACK, near calls and RET
AREA = 2048

#: Guest registers that VM entries and exits carry in the VMCS.
IN_VMCS = {CTL: "guest_lbr_ctl", DEBUGCTL: "guest_debugctl",
           GLOBAL_CTRL: "guest_perf_global_ctrl"}


def records_of(model):
    """MSR numbers of the records, all of the largest depth; newest first if architectural."""
    if model.arch:
        return [base + i for i in range(max(model.arch.depths)) for base in (FROM, TO, INFO)]
    lbr = model.legacy
    bases = [base for base in (lbr.from_base, lbr.to_base, lbr.info_base) if base is not None]
    return [base + i for i in range(lbr.depth) for base in bases]


def lbr_msrs(model):
    """Everything of the facility that has an MSR number."""
    if model.arch:
        return [CTL, DEPTH, *LER, *records_of(model)]
    return [*([SELECT] if model.legacy.select else []), TOS, *LER[:2], *records_of(model)]


@dataclass
class Saved:
    """What user space keeps of a vCPU that it destroys."""

    model: object
    vmcs: Vmcs
    memory: bytearray
    transcript: list
    data: object


class Vm:
    """One vCPU.

    Parameters
    ----------
    model : CpuModel or str
    intercept : bool
        Every LBR MSR and XSAVES of component 15 exit, and the hypervisor emulates them;
        False: the guest has them to itself.
    """

    def __init__(self, model, intercept=False):
        self.model = MODELS[model] if isinstance(model, str) else model
        self.cpu = Processor(self.model)
        self.memory = bytearray(AREA)
        self.transcript = []
        self.intercept = intercept
        self.vmcs = self._vmcs()
        self.enter()

    def _vmcs(self):
        names = ["use MSR bitmaps", "load debug controls", "save debug controls"]
        if self.model.arch:
            names += ["load IA32_LBR_CTL", "clear IA32_LBR_CTL", "save IA32_PERF_GLOBAL_CTRL",
                      "load guest IA32_PERF_GLOBAL_CTRL", "load host IA32_PERF_GLOBAL_CTRL"]
        if self.model.xss:
            names += ["activate secondary controls", "enable XSAVES/XRSTORS"]
        vmcs = Vmcs.for_model(self.model, *names)
        if self.intercept:
            for index in [*lbr_msrs(self.model), DEBUGCTL]:
                vmcs.intercept(index)
            vmcs.xss_exiting_bitmap = 1 << 15
        return vmcs

    def enter(self):
        self.cpu.vm_entry(self.vmcs)

    def exit(self, reason=ExitReason.VMCALL):
        self.cpu.vm_exit(reason)

    # The guest

    def run(self, program, sync=None):
        """Execute; `sync(vm, place)` is called outside the guest before each instruction and
        after the last."""
        for place, instruction in enumerate(program):
            self.sync(sync, place)
            self.transcript.append(self.execute(*instruction))
        self.sync(sync, len(program))
        return self.transcript

    def sync(self, hook, place):
        self.exit()
        if hook is not None:
            hook(self, place)
        self.enter()

    def execute(self, name, *arguments):
        """One instruction; what it shows."""
        try:
            return getattr(self, f"_{name}")(*arguments)
        except GeneralProtection:
            return "#GP"
        except InvalidOpcode:
            return "#UD"
        except VmExit as exit_:
            return self._emulate(exit_, *arguments)

    def _rdmsr(self, index):
        return self.cpu.rdmsr(index)

    def _wrmsr(self, index, value):
        return self.cpu.wrmsr(index, value)

    def _dump(self):
        """Read every LBR MSR; beyond the depth, that is #GP."""
        return [self.execute("rdmsr", index) for index in [*lbr_msrs(self.model), DEBUGCTL]]

    def _branches(self, n, seed, cpl=3, classes=(0, 1, 2, 3, 4, 5)):
        self.cpu.record(some_branches(n, seed, cpl, classes))

    def _call(self, n):
        self.cpu.branch(BranchClass.NEAR_REL_CALL, 0x1000 + n, 0x8000 + 16 * n, cycles=3)

    def _ret(self, n):
        self.cpu.branch(BranchClass.NEAR_RET, 0x8008 + 16 * n, 0x1005 + n, cycles=2)

    def _event(self, cls, from_, to):
        self.cpu.branch(cls, from_, to, cpl_from=3, cpl_to=0)

    def _db(self):
        self.cpu.debug_exception()

    def _xsetbv(self, value):
        self.cpu.xsetbv(value)

    def _xsaves(self):
        self.cpu.xsaves(self.memory, 0, 1 << 15)
        return bytes(self.memory)

    def _xrstors(self):
        self.cpu.xrstors(self.memory, 0, 1 << 15)

    # The hypervisor

    def _emulate(self, exit_, *arguments):
        self.exit(exit_.reason)
        try:
            return self.emulate(exit_, *arguments)
        except GeneralProtection:
            return "#GP"
        finally:
            self.enter()

    def emulate(self, exit_, *arguments):
        """What the guest tried to do, on the registers, which are its own."""
        name = IN_VMCS.get(exit_.index)
        if exit_.reason in (ExitReason.XSAVES, ExitReason.XRSTORS):
            self.cpu.wrmsr(CTL, self.vmcs.guest_lbr_ctl)
            try:
                return self._xsaves() if exit_.reason == ExitReason.XSAVES else self._xrstors()
            finally:
                self.vmcs.guest_lbr_ctl = self.cpu.rdmsr(CTL)
                self.cpu.wrmsr(CTL, 0)
        if exit_.reason == ExitReason.RDMSR:
            return self.cpu.rdmsr(exit_.index) if name is None else getattr(self.vmcs, name)
        if name is None:
            return self.cpu.wrmsr(exit_.index, exit_.value)
        judge = Processor(self.model)
        judge.wrmsr(exit_.index, exit_.value)
        return setattr(self.vmcs, name, judge.rdmsr(exit_.index))

    # User space

    def destroy(self, data):
        """End the vCPU, the processor's content with it; `data` is what was saved of it."""
        saved = Saved(self.model, self.vmcs.copy(), bytearray(self.memory),
                      list(self.transcript), data)
        self.cpu.lbr.clear()
        self.cpu = self.vmcs = self.memory = None
        return saved

    def renew(self, saved, cpu):
        """Go on as `saved` on another processor, with a VMCS made there."""
        self.model, self.cpu = cpu.model, cpu
        self.vmcs = self._vmcs()
        for name in IN_VMCS.values():
            setattr(self.vmcs, name, getattr(saved.vmcs, name))
        self.memory, self.transcript = saved.memory, saved.transcript


# ---------------------------------------------------------------- ways to save and restore

def by_state(vm, place=None):
    """The whole processor, as bytes."""
    saved = vm.destroy(encode(vm.cpu.state()))
    vm.renew(saved, Processor.from_state(decode(saved.data, saved.model)))


#: Kept apart from the list of MSRs: in the VMCS, or set through another register.
_APART = {*IN_VMCS, STATUS, STATUS_RESET, STATUS_SET}


def _get_msrs(cpu, without=()):
    """KVM_GET_MSRS of everything that can be set again, DEPTH first."""
    known = [index for index, register in registers(cpu.model).items()
             if register.row.access is not Access.ACTION and index not in _APART
             and index not in without]
    return [(index, cpu.rdmsr(index, host=True)) for index in sorted(known, key=DEPTH.__ne__)]


def _set_msrs(cpu, values):
    table = registers(cpu.model)
    fresh = Processor(cpu.model)
    for index, value in values:
        if index == DEPTH or value != fresh.rdmsr(index, host=True):
            assert index in table
            cpu.wrmsr(index, value, host=True)


def _get_rest(cpu):
    return cpu.xcr0, cpu.pmu.status


def _set_rest(cpu, rest):
    xcr0, status = rest
    if xcr0 != 1:
        cpu.xsetbv(xcr0)
    cpu.msrs.set_status(status)


def by_msrs(vm, place=None):
    """One MSR at a time; XCR0 and the PMU's status have calls of their own."""
    cpu = vm.cpu
    saved = vm.destroy((_get_msrs(cpu), _get_rest(cpu)))
    new = Processor(saved.model)
    _set_msrs(new, saved.data[0])
    _set_rest(new, saved.data[1])
    vm.renew(saved, new)


def by_xsaves(vm, place=None):
    """The facility as component 15, all else by MSRs."""
    cpu, area = vm.cpu, bytearray(AREA)
    facility = [index for index in lbr_msrs(vm.model) if index != DEPTH]
    msrs, rest = _get_msrs(cpu, facility), _get_rest(cpu)
    _manage_lbrs(cpu, lambda: cpu.xsaves(area, 0, 1 << 15))
    saved = vm.destroy((msrs, rest, area))
    new = Processor(saved.model)
    _set_msrs(new, saved.data[0])
    _set_rest(new, saved.data[1])
    _manage_lbrs(new, lambda: new.xrstors(area, 0, 1 << 15))
    vm.renew(saved, new)


def _manage_lbrs(cpu, what):
    """Do it with the host's own IA32_XSS, in which component 15 is set."""
    xss = cpu.rdmsr(XSS)
    cpu.wrmsr(XSS, xss | 1 << 15)
    what()
    cpu.wrmsr(XSS, xss)


def elsewhere(*models):
    """To each of `models` in turn."""
    models = [MODELS[name] if isinstance(name, str) else name for name in models]

    def move(vm, place=None):
        target = models[(models.index(vm.model) + 1) % len(models)]
        saved = vm.destroy(migrate(vm.cpu.state(), target))
        vm.renew(saved, Processor.from_state(saved.data))
    return move


# ---------------------------------------------------------------- the host on the same processor

def save_facility(cpu):
    """All of the LBRs but the controls that the VMCS carries: what a hypervisor puts aside."""
    if not cpu.model.arch:
        return [(index, cpu.rdmsr(index)) for index in lbr_msrs(cpu.model)]
    area = bytearray(AREA)
    _manage_lbrs(cpu, lambda: cpu.xsaves(area, 0, 1 << 15))
    return cpu.rdmsr(DEPTH), area


def load_facility(cpu, image):
    """Back into the registers."""
    if not cpu.model.arch:
        for index, value in image:
            cpu.wrmsr(index, value, host=True)
        return
    cpu.wrmsr(DEPTH, image[0])
    _manage_lbrs(cpu, lambda: cpu.xrstors(image[1], 0, 1 << 15))


def wipe(cpu):
    """As after reset, by XRSTORS of the initial state."""
    if not cpu.model.arch:
        for index in lbr_msrs(cpu.model):
            cpu.wrmsr(index, 0, host=True)
        return
    area = bytearray(AREA)
    area[520:528] = (1 << 63).to_bytes(8, "little")
    cpu.wrmsr(DEPTH, max(cpu.model.arch.depths))
    _manage_lbrs(cpu, lambda: cpu.xrstors(area, 0, 1 << 15))


def host_records(cpu):
    """perf samples the host: 40 kernel branches, thawed if the guest had frozen them."""
    status = cpu.pmu.status
    cpu.msrs.set_status(0)
    control, on = (CTL, ALL) if cpu.model.arch else (DEBUGCTL, 1)
    cpu.wrmsr(control, on)
    cpu.lbr.record(some_branches(40, seed=999, cpl=0, classes=(0,)))
    cpu.wrmsr(control, 0)
    cpu.msrs.set_status(status)
    assert cpu.records()["from"].all()


def reclaimed(way=None):
    """Between two instructions of the guest the host takes the LBRs, records, and gives back.

    Parameters
    ----------
    way : callable, optional
        One of the ways to save and restore, taken while the guest's records are the
        hypervisor's data.
    """
    def hook(vm, place=None):
        image = save_facility(vm.cpu)
        wipe(vm.cpu)
        host_records(vm.cpu)
        if way is not None:
            way(vm)
        wipe(vm.cpu)
        load_facility(vm.cpu, image)
    return hook


# ---------------------------------------------------------------- programs

def overflow(after):
    """Program counter 0 so that it overflows `after` taken branches on, with a PMI."""
    return [("wrmsr", IA32_PERFEVTSEL0, 0x5300C4), ("wrmsr", IA32_PMC0, (1 << 32) - after),
            ("wrmsr", GLOBAL_CTRL, 1), ("wrmsr", DEBUGCTL, 0x800)]


ARCH = {
    "basic": [
        ("dump",), ("wrmsr", CTL, ALL), ("branches", 50, 1), ("dump",), ("branches", 3, 2),
        ("wrmsr", CTL, 0), ("branches", 9, 3), ("dump",), ("wrmsr", FROM, 0x1234), ("dump",),
    ],
    "depth": [
        instruction
        for depth in (8, 16, 32, 24, 0, 40)
        for instruction in (
            ("wrmsr", DEPTH, depth), ("rdmsr", DEPTH), ("wrmsr", CTL, ALL), ("dump",),
            ("branches", 20, depth), ("dump",), ("wrmsr", FROM + 8, 5), ("rdmsr", FROM + 16))
    ],
    "filters": [
        instruction
        for ctl in (0x7F0001, 0x7F0003, 0x7F0005, 0x010007, 0x200007, 0x400007, 0x7F0006, 1 << 4)
        for instruction in (
            ("wrmsr", CTL, ctl), ("rdmsr", CTL), ("branches", 12, ctl, 3),
            ("branches", 12, ctl + 1, 0), ("event", BranchClass.SYSCALL, 0x10, 0x20), ("dump",))
    ],
    "frozen": [
        *overflow(30), ("wrmsr", CTL, ALL), ("branches", 29, 1, 3, (0, 1)), ("rdmsr", STATUS),
        ("branches", 20, 2, 3, (0, 1)), ("rdmsr", STATUS), ("dump",), ("branches", 5, 3),
        ("dump",), ("wrmsr", STATUS_RESET, STATUS_LBR_FRZ | 1), ("rdmsr", STATUS),
        ("branches", 5, 4),
        ("dump",),
    ],
    "call stack": [
        ("wrmsr", CTL, CALL_STACK), *[("call", n) for n in range(10)], ("dump",), ("ret", 9),
        ("ret", 8), ("dump",), ("call", 20), ("branches", 9, 1, 3, (0, 1, 2)), ("dump",),
        *[("ret", n) for n in range(12)], ("dump",),
    ],
    "xsaves": [
        ("xsaves",), ("xsetbv", 7), ("wrmsr", XSS, 1 << 15), ("wrmsr", CTL, ALL),
        ("branches", 40, 1), ("xsaves",), ("branches", 5, 2), ("dump",), ("xrstors",), ("dump",),
        ("wrmsr", DEPTH, 16), ("dump",), ("xrstors",), ("dump",), ("wrmsr", XSS, 0), ("xsaves",),
    ],
    "events": [
        ("wrmsr", CTL, ALL), ("branches", 5, 1), ("event", BranchClass.INTERRUPT, 0x10, 0x20),
        ("dump",), ("event", BranchClass.EXCEPTION, 0x30, 0x40), ("db",), ("dump",),
        ("branches", 5, 2), ("wrmsr", LER[0], 7), ("dump",),
    ],
}

LEGACY = {
    "basic": [
        ("dump",), ("wrmsr", DEBUGCTL, 1), ("branches", 45, 1), ("dump",),
        ("wrmsr", DEBUGCTL, 0), ("branches", 9, 3), ("dump",), ("wrmsr", TOS, 3), ("dump",),
    ],
    "filters": [
        instruction
        for select in (1, 2, 4, 0x1FC, 0x1C4, 1 << 30)
        for instruction in (
            ("wrmsr", SELECT, select), ("wrmsr", DEBUGCTL, 1), ("branches", 12, select, 3),
            ("branches", 12, select + 1, 0), ("dump",))
    ],
    "frozen": [
        *overflow(30), ("wrmsr", DEBUGCTL, 0x801), ("branches", 29, 1, 3, (0, 1)), ("dump",),
        ("branches", 20, 2, 3, (0, 1)), ("rdmsr", STATUS), ("dump",), ("branches", 5, 3),
        ("dump",), ("wrmsr", STATUS_RESET, 1), ("wrmsr", DEBUGCTL, 0x801), ("branches", 5, 4),
        ("dump",),
    ],
    "call stack": [
        ("wrmsr", SELECT, 0x3C5), ("wrmsr", DEBUGCTL, 1), *[("call", n) for n in range(10)],
        ("dump",), ("ret", 9), ("ret", 8), ("dump",), ("call", 20), ("dump",),
        *[("ret", n) for n in range(12)], ("dump",),
    ],
}
