"""Real guest code while a host claims the LBRs, too."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pylbr.arbitration import make_policy
from pylbr.arch import model as named
from pylbr.cli import main
from pylbr.cpu import NO_EVENTS, Processor
from pylbr.embed.contended_cpu import ContendedCpu
from pylbr.embed.contention import Contention, read_script
from pylbr.embed.host_side import HOST_FROM
from pylbr.embed.image import load
from pylbr.embed.machine import MIB, Machine, executable_model
from pylbr.embed.report import report
from pylbr.embed.savefile import restore, save
from pylbr.embed.vcpu import VirtualProcessor, guest_model
from pylbr.errors import ConfigurationError, GeneralProtection, StateError
from pylbr.selftest.guest_cases import BUSY, CHOSEN, LEGACY_HOST
from tests.embed.guests import build
from tests.manual import (
    DEBUGCTL_FREEZE_LBRS_ON_PMI,
    IA32_DEBUGCTL,
    IA32_LBR_0_FROM_IP,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_LER_FROM_IP,
    IA32_LER_INFO,
    IA32_LER_TO_IP,
    IA32_PERF_GLOBAL_STATUS,
    IA32_PERF_GLOBAL_STATUS_RESET,
    IA32_XSS,
    RECORD_ALL,
    STATUS_LBR_FRZ,
)

SELFTESTS = ("lbr_basic", "lbr_callstack", "lbr_pmi", "lbr_rings", "lbr_xsave")


@pytest.fixture(scope="session")
def guests(tmp_path_factory):
    return tmp_path_factory.mktemp("contended")


def run(tmp_path, guest, policy, script, model="sapphire-rapids"):
    """Ending, output, the host's side."""
    path = tmp_path / "script.txt"
    path.write_text(f"policy {policy}\n{script}")
    host, printed = Contention(read_script(path)), bytearray()
    machine = Machine(model, console=printed.extend, contention=host)
    machine.load(load(guest))
    ending = machine.run(20_000_000)
    return ending, printed.decode(), host, machine


@pytest.mark.parametrize("policy", ["lease", "mediated"])
@pytest.mark.parametrize("name", SELFTESTS)
def test_a_guest_that_loses_nothing_notices_nothing(guests, tmp_path, name, policy):
    ending, printed, host, machine = run(tmp_path, build(guests, name), policy, BUSY)
    assert re.fullmatch(r"[1-9]\d* passed, 0 failed\n", printed), printed
    assert (ending.kind, ending.code) == ("exit", 0)
    contended = machine.processor.contended
    assert contended.leaked == contended.failures == host.breaches == 0
    assert host.samples > 10
    assert (host.own > 100) == (policy == "lease")


@pytest.mark.parametrize(("policy", "mode"), [
    ("mediated", 0), ("lease", 1), ("request", 2), ("arch-lbr-v2-fixed", 3)])
def test_records_are_the_guests_own_or_break_off(guests, tmp_path, policy, mode):
    guest = build(guests, "lbr_contention", f"-DMODE={mode}")
    ending, printed, host, machine = run(tmp_path, guest, policy, CHOSEN)
    assert re.fullmatch(r"[1-9]\d* passed, 0 failed\n", printed), printed
    assert machine.processor.contended.leaked == machine.processor.contended.failures == 0
    assert host.samples == 6


def test_a_policy_that_loses_records_is_noticed(guests, tmp_path):
    """The guest can fail: `request` does lose records, and without a word."""
    for mode in (0, 1):
        guest = build(guests, "lbr_contention", f"-DMODE={mode}")
        ending, printed, _, _ = run(tmp_path, guest, "request", CHOSEN)
        assert ending.code == 1
        assert "FAIL" in printed


def test_the_series_of_2022_leaks(guests, tmp_path):
    guest = build(guests, "lbr_contention", "-DMODE=3")
    ending, printed, host, machine = run(tmp_path, guest, "arch-lbr-v2", CHOSEN)
    assert ending.code == 1
    assert "leaks == 0" in printed
    assert machine.processor.contended.leaked > 0
    assert "host records read by the guest" in host.summary()


@pytest.mark.parametrize("model", ["nehalem", "haswell", "skylake"])
def test_legacy_alone(guests, model):
    printed = bytearray()
    machine = Machine(model, console=printed.extend)
    machine.load(load(build(guests, "lbr_legacy", "-DMODE=0")))
    assert machine.run(1_000_000).code == 0
    assert printed.endswith(b" passed, 0 failed\n")


@pytest.mark.parametrize(("policy", "mode"), [
    ("kvm-legacy", 0), ("kvm-legacy-2024", 0), ("kvm-legacy-designed", 1)])
@pytest.mark.parametrize("model", ["haswell", "skylake"])
def test_legacy(guests, tmp_path, policy, mode, model):
    guest = build(guests, "lbr_legacy", f"-DMODE={mode}")
    ending, printed, _, machine = run(tmp_path, guest, policy, LEGACY_HOST, model)
    assert (ending.code, machine.processor.contended.leaked) == (0, 0), printed


@pytest.mark.parametrize("model", ["haswell", "skylake"])
def test_merged_code_leaks_at_the_first_access(guests, tmp_path, model):
    """A guest that touches an LBR MSR while a CPU-bound event is active reads the host's."""
    guest = build(guests, "lbr_legacy", "-DMODE=2")
    ending, printed, _, machine = run(tmp_path, guest, "kvm-legacy", LEGACY_HOST, model)
    assert ending.code == 1
    assert machine.processor.contended.leaked > 0
    assert run(tmp_path, guest, "kvm-legacy-designed", LEGACY_HOST, model)[0].code == 0


def test_the_command(guests, tmp_path, capfd):
    script = tmp_path / "script.txt"
    script.write_text("policy lease\n" + CHOSEN)
    guest = str(build(guests, "lbr_contention", "-DMODE=1"))
    assert main(["run", "--contention", str(script), guest]) == 0
    out = capfd.readouterr()
    assert out.out.endswith(" passed, 0 failed\n")
    assert re.search(r"contention under lease: \d+ VM exits.* 0 host records read", out.err)
    middle = str(tmp_path / "middle.vm")
    assert main(["run", "--contention", str(script), "--pause", "9000", "--save", middle,
                 guest]) == 0
    assert main(["run", "--contention", str(script), middle]) == 0
    assert capfd.readouterr().out.endswith(" passed, 0 failed\n")
    assert main(["run", "--contention", str(tmp_path / "none"), guest]) == 2
    assert main(["run", "--contention", str(script), "--model", "skylake", guest]) == 2
    assert "needs a processor with architectural LBRs" in capfd.readouterr().err


@pytest.mark.parametrize(("text", "said"), [
    ("", "no line 'policy NAME'"), ("at 5 exit", "no line 'policy NAME'"),
    ("policy best", "line 1: there is no policy 'best'"),
    ("policy lease\nat x exit", "line 2: 'x': must be a number"),
    ("policy lease\nevery 0 exit", "line 2: '0'"), ("policy lease\nport 256 exit", "0 to 255"),
    ("policy lease\nat 5 sleep", "no act 'sleep'"), ("policy lease\nat 5", "line 2: must be"),
    ("policy lease\nat 5 open wide", "no act 'open wide'"),
    ("policy lease\nat 5 branches", "no act 'branches'"), ("policy lease\nfoo\n", "line 2"),
    ("policy lease\nat \u0665 exit", "must be a number"),
])
def test_bad_scripts_are_one_line(tmp_path, text, said):
    path = tmp_path / "script.txt"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said) as raised:
        read_script(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_script_or_an_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(b"policy lease\n" + data)
    try:
        read_script(path)
    except ConfigurationError as error:
        assert "\n" not in str(error)


def test_a_report_shows_what_the_guest_would_see(guests, tmp_path):
    ending, _, _, machine = run(
        tmp_path, build(guests, "bad", "-DCASE=2", "-DMSRS=1"), "lease",
        "at 1 open pinned exclude-guest\nevery 5 exit\n")
    assert ending.kind == "shutdown"
    assert "-> 0x8000000000  NEAR_IND_JMP" in report(machine, ending)


@pytest.mark.parametrize(("policy", "model"), [
    ("lease", "sapphire-rapids"), ("arch-lbr-v2", "alder-lake-p"), ("kvm-legacy", "skylake")])
def test_every_msr_with_every_pattern(guests, tmp_path, policy, model):
    guest = build(guests, "bad", "-DCASE=10", "-DMSRS=8")
    ending, _, _, machine = run(tmp_path, guest, policy, BUSY, model)
    assert (ending.kind, ending.code) == ("exit", 0), report(machine, ending)


@pytest.mark.parametrize(("guest", "flags", "policy", "script", "model"), [
    ("lbr_contention", "-DMODE=1", "lease", CHOSEN, "sapphire-rapids"),
    ("lbr_contention", "-DMODE=2", "request", CHOSEN, "sapphire-rapids"),
    ("lbr_contention", "-DMODE=0", "mediated", CHOSEN, "sapphire-rapids"),
    ("lbr_xsave", "", "lease", BUSY, "sapphire-rapids"),
    ("lbr_pmi", "", "lease", BUSY, "alder-lake-p"),
    ("lbr_legacy", "-DMODE=0", "kvm-legacy", LEGACY_HOST, "skylake"),
], ids=["lease", "request", "mediated", "lease-xsave", "lease-pmi", "kvm-legacy"])
def test_a_vcpu_goes_on_under_another_host(
        guests, tmp_path, guest, flags, policy, script, model):
    """Saved in the middle, at several points; the other host has no event open."""
    path = build(guests, guest, *flags.split())
    script_path = tmp_path / "script.txt"
    script_path.write_text(f"policy {policy}\n{script}")
    script = read_script(script_path)
    printed = bytearray()
    whole = Machine(model, memory=4 * MIB, console=printed.extend, contention=Contention(script))
    whole.load(load(path))
    assert whole.run(20_000_000).code == 0
    for at in np.linspace(1, 0.97 * whole.link.recorder.instructions, 7).astype(int).tolist():
        after = bytearray()
        machine = Machine(model, memory=4 * MIB, console=after.extend,
                          contention=Contention(script))
        machine.load(load(path))
        machine.pause_at = at
        assert machine.run(20_000_000).kind == "pause"
        save(machine, tmp_path / "middle.vm")
        other = restore(tmp_path / "middle.vm", console=after.extend,
                        contention=Contention(script))
        np.testing.assert_array_equal(
            other.processor.records()["from"], machine.processor.records()["from"])
        assert (other.run(20_000_000).code, after) == (0, printed), (at, after)
        assert other.processor.contended.leaked == other.processor.contended.failures == 0


def test_who_goes_on_how(guests, tmp_path):
    """A vCPU may go on alone; a processor of one's own does not become one."""
    script = tmp_path / "script.txt"
    script.write_text("policy lease\nat 1 open pinned exclude-guest\n")
    for contention in (Contention(read_script(script)), None):
        machine = Machine(memory=4 * MIB, contention=contention)
        machine.load(load(build(guests, "lbr_callstack")))
        machine.pause_at = 5000
        assert machine.run(20_000).kind == "pause"
        save(machine, tmp_path / "middle.vm")
        assert restore(tmp_path / "middle.vm").run(1_000_000).code == 0
    with pytest.raises(StateError, match="saved without a host"):
        restore(tmp_path / "middle.vm", contention=Contention(read_script(script)))


# The vCPU against a processor of its own

CTL, DEPTH_MSR, FROM, LER = IA32_LBR_CTL, IA32_LBR_DEPTH, IA32_LBR_0_FROM_IP, IA32_LER_FROM_IP
accesses = st.lists(st.one_of(
    st.tuples(st.just("write"), st.sampled_from(
        [FROM, FROM + 1, FROM + 31, 0x1600, 0x121F, LER, IA32_LER_TO_IP, IA32_LER_INFO]),
        st.integers(0, 2**64 - 1)),
    st.tuples(st.just("write"), st.just(CTL), st.sampled_from(
        [0, 1, RECORD_ALL, 0x7F0005, 0x7F0006, 0x30000F, 0x380008, 1 << 40])),
    st.tuples(st.just("write"), st.just(DEPTH_MSR), st.sampled_from([32, 8, 0])),
    st.tuples(st.just("branch"), st.sampled_from([0, 4, 5, 9, 13]), st.integers(1, 2**40)),
    st.tuples(st.just("debug")), st.tuples(st.just("save")), st.tuples(st.just("restore")),
    st.tuples(st.just("pmi")), st.tuples(st.just("acknowledge")),
    st.tuples(st.just("open"), st.sampled_from([2, 3, 18, 66])), st.tuples(st.just("close")),
    st.tuples(st.just("switch")), st.tuples(st.just("migrate")), st.tuples(st.just("sample")),
    st.tuples(st.just("look")),
), max_size=30)


class Both:
    """A vCPU under a policy that loses nothing, and a processor that it never has to share."""

    def __init__(self, policy):
        model = executable_model("sapphire-rapids")
        self.virtual = VirtualProcessor(model, NO_EVENTS, make_policy(policy))
        self.alone = Processor(guest_model(model))
        self.both = (self.virtual, self.alone)
        for cpu in self.both:
            cpu.wrmsr(IA32_XSS, 1 << 15)
            cpu.wrmsr(IA32_DEBUGCTL, DEBUGCTL_FREEZE_LBRS_ON_PMI)
        self.areas = [bytearray(1408), bytearray(1408)]
        self.saved = False

    def each(self, act):
        outcomes = []
        for cpu in self.both:
            try:
                outcomes.append(act(cpu))
            except GeneralProtection as refused:
                outcomes.append(str(refused))
        assert outcomes[0] == outcomes[1]

    def host(self, act):
        self.virtual.contended.leave()
        act(self.virtual.contended)
        self.virtual.contended.enter()

    def step(self, name, *arguments):
        if name == "write":
            self.each(lambda cpu: cpu.wrmsr(*arguments))
        elif name == "branch":
            cls, at = arguments
            self.each(lambda cpu: cpu.branch(cls, at, at + 64, cpl_from=0, cpl_to=0))
        elif name == "debug":
            self.each(lambda cpu: cpu.debug_exception())
        elif name == "save":
            for cpu, area in zip(self.both, self.areas, strict=True):
                area[:] = bytes(1408)
                cpu.xsaves(area)
            if self.areas[1][512:520] != bytes(8):  # either may write the initial state or not
                assert self.areas[0] == self.areas[1]
            self.saved = True
        elif name == "restore" and self.saved:
            self.areas[0][:] = self.areas[1]
            for cpu, area in zip(self.both, self.areas, strict=True):
                cpu.xrstors(area)
        elif name == "pmi":
            self.each(lambda cpu: cpu.raise_pmi())
        elif name == "acknowledge":
            self.each(lambda cpu: cpu.wrmsr(IA32_PERF_GLOBAL_STATUS_RESET, STATUS_LBR_FRZ))
        elif name == "open":
            self.host(lambda shared: shared.open(arguments[0]))
        elif name == "switch":
            self.host(lambda shared: shared.switch(5))
        elif name == "look":  # a look is an access, too: what is not looked at may stay unused
            self.same()
        elif name in ("close", "migrate", "sample"):
            self.host(lambda shared: getattr(shared, name)())

    def same(self):
        for cpu in self.both:
            mine, alone = (one.rdmsr(IA32_PERF_GLOBAL_STATUS) for one in (cpu, self.alone))
            assert (mine ^ alone) & STATUS_LBR_FRZ == 0
        shown, own = self.virtual.records(), self.alone.records()
        for name in ("from", "to"):
            np.testing.assert_array_equal(shown[name], own[name])
        for index in (CTL, DEPTH_MSR, FROM, FROM + 31, 0x1600 + 5, LER, IA32_LER_TO_IP):
            assert self.virtual.rdmsr(index) == self.alone.rdmsr(index), hex(index)


@pytest.mark.parametrize("policy", ["lease", "mediated"])
def test_a_vcpu_agrees_with_a_processor_of_its_own(policy):
    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(accesses)
    def check(steps):
        both = Both(policy)
        for step in steps:
            both.step(*step)
        both.same()
        assert both.virtual.contended.leaked == both.virtual.contended.failures == 0

    check()


def test_the_hosts_branches_are_known_by_their_addresses():
    shared = ContendedCpu(
        make_policy("lease"), Processor(guest_model(named("sapphire-rapids"))).lbr)
    registers = shared.registers
    shared.leave()
    assert shared.open(3)
    shared.branches(50)
    assert shared.sample() == (True, False, 32, 0)
    shared.enter()
    assert (registers.records()["from"] >> 32 == HOST_FROM >> 32).all()  # perf still has them
    assert not shared.guest_owns
    assert shared.exited == 1


def test_a_policy_of_the_other_flavour():
    for policy, model in (("lease", "haswell"), ("kvm-legacy", "sapphire-rapids")):
        with pytest.raises(ConfigurationError, match="needs a processor with"):
            VirtualProcessor(executable_model(model), NO_EVENTS, make_policy(policy))
