"""The processor of liblbrcore answers as `pylbr.cpu.Processor`: every MSR number of every model,
CPUID, branches, counters, events, saved state."""

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lbrcore import BRANCH_DTYPE
from pylbr.arch.models import MODELS
from pylbr.arch.registers import registers
from pylbr.cpu import Processor
from pylbr.cpu.compiled.generate import tables
from pylbr.cpu.saved import codec
from pylbr.cpu.saved.codec import decode, encode
from pylbr.errors import GeneralProtection, StateError, UnsupportedFeature
from tests import manual
from tests.core.library import ROOT, library
from tests.cpu.library import CODES, Cpu, Failed, Refused

ALL = (1 << 64) - 1
#: Every number that some model has, its neighbours, and some that none has.
NUMBERS = sorted(
    {n + d for model in MODELS.values() for n in registers(model) for d in (-1, 0, 1)}
    | {0, 0x10, 0x1B, 0x174, 0x2FF, 0x6FF, 0x7FFFFFFF, 0x80000000, 0xC0000080, 0xFFFFFFFF})
#: Values of each class: reserved bits alone and together, addresses canonical and not, depths.
VALUES = [0, 1, 2, 3, 8, 16, 24, 32, 33, ALL, 1 << 63, 0x7F000F, 0x1FF, 0x200, 0x3FF, 0x3F, 0x53000,
          0x4300C4, 0x8004300C4, 0x2_0000_0000, 0x7FFF_FFFF_FFFF, 0x8000_0000_0000,
          0xFFFF_8000_0000_0000, 0xFFFF_8000_1234_5678, 0x9FFF_8000_1234_5678,
          0x3FFF_8000_1234_5678, 0xFF00_0000_0000_0000, 0x00FF_FFFF_FFFF_FFFF, 0x1234_5678_9ABC,
          0xFFFF_FFFF, 0x1_0000_0000, 0xE000_0000_0000_1234, *(1 << bit for bit in range(4, 64, 5))]


def outcome(call, *arguments, **other):
    """What an access gives: a value, or the refusal."""
    try:
        return call(*arguments, **other)
    except Refused as refused:
        return "#GP", refused.rule, refused.bits
    except GeneralProtection as refused:
        return "#GP", refused.rule, refused.bits


def same(ours, theirs):
    """Equal; the library's rule may leave the number at the end out."""
    if isinstance(ours, tuple) and isinstance(theirs, tuple) and ours[0] == "#GP":
        return theirs[0] == "#GP" and theirs[1].startswith(ours[1]) and ours[2] == theirs[2]
    return ours == theirs


def test_the_tables_are_fresh():
    made = (ROOT / "lbrcore/library/models.c").read_text()
    assert made == tables(), "run: python -m pylbr.cpu.compiled.generate"


def test_models_are_found_by_name():
    find, at = library().lbr_model_find, library().lbr_model_at
    find.restype = at.restype = ctypes.c_void_p
    assert [at(ctypes.c_size_t(i)) for i in range(len(MODELS))] == [
        find(name.encode()) for name in MODELS]
    assert find(b"sapphire-rapids") and not find(b"sapphire") and not find(b"")
    assert not at(ctypes.c_size_t(len(MODELS))) and not at(ctypes.c_size_t(2**64 - 1))
    made = ctypes.c_void_p(1)
    for name, size, abi, code in ((b"pentium", Cpu("zen4").size, 1, "LBR_EMODEL"),
                                  (b"zen4", 8, 1, "LBR_ESIZE"), (b"zen4", 8, 2, "LBR_EABI")):
        assert library().lbr_cpu_open(ctypes.byref(made), name, ctypes.c_size_t(size), abi) == (
            CODES[code]) and not made.value


@pytest.mark.parametrize("name", MODELS)
def test_every_msr_number_reads_and_writes_alike(name):
    """From reset, and with the PMU, records and LER filled; as guest and as host."""
    ours, theirs = Cpu(name), Processor(name)
    for filled in (False, True):
        if filled:
            fill(ours, theirs)
        for index in NUMBERS:
            for host in (False, True):
                assert same(outcome(ours.rdmsr, index, host=host),
                            outcome(theirs.rdmsr, index, host=host)), (hex(index), host)
    start = encode(theirs.state())
    for index in NUMBERS:
        for host in (False, True):
            for value in VALUES if index in registers(MODELS[name]) else (0, 1, ALL):
                here = (hex(index), hex(value), host)
                before = ours.image()
                refused = outcome(ours.wrmsr, index, value, host=host)
                assert same(refused, outcome(theirs.wrmsr, index, value, host=host)), here
                assert not refused or ours.image() == before, here
            assert ours.save() == encode(theirs.state()), hex(index)
    ours.load(start)
    assert ours.save() == start


def fill(ours, theirs):
    """Different records, all filled; a full PMU."""
    model = theirs.model
    on = {"IA32_DEBUGCTL": 1, "MSR_DEBUGCTLA": 1, "IA32_LBR_CTL": manual.RECORD_ALL,
          "DBG_EXTN_CFG": manual.DBG_EXTN_CFG_LBRV2EN}
    for register in registers(model).values():
        value = on.get(register.name)
        if register.row.accessor in ("pmc.full", "fixed", "evtsel"):
            value = 0x4300C4 if register.row.accessor == "evtsel" else 0x1234 + register.n
        if value is not None:
            for cpu in (ours, theirs):
                cpu.wrmsr(register.index, value)
    branches = np.zeros(40, BRANCH_DTYPE)
    branches["from"] = np.arange(40, dtype=np.uint64) * 0x1000 + np.uint64(0xFFFF_8000_0000_0000)
    branches["to"] = np.arange(40) * 0x1000 + 0x1234
    branches["cycles"], branches["flags"] = np.arange(40) * 99, np.arange(40) % 8
    branches["class"] = np.arange(40) % 16
    assert ours.record(branches) == theirs.record(branches) == 40


@pytest.mark.parametrize("name", MODELS)
def test_every_leaf_of_cpuid_is_alike(name):
    ours, theirs = Cpu(name), Processor(name)
    leaves = [*range(0x30), 0x7FFFFFFF, *range(0x80000000, 0x80000030), 0xFFFFFFFF]
    xss = MODELS[name].xss
    states = [(1, 0), *([(MODELS[name].xcr0 & 7 or 1, 0), (MODELS[name].xcr0, xss)]
                        if MODELS[name].xcr0 else [])]
    for xcr0, supervisor in states:
        assert same(outcome(ours.xsetbv, xcr0), outcome(theirs.xsetbv, xcr0))
        for cpu in (ours, theirs) if xss else ():
            cpu.wrmsr(manual.IA32_XSS, supervisor)
        for leaf in leaves:
            for subleaf in (*range(20), 0xFFFFFFFF):
                assert ours.cpuid(leaf, subleaf) == theirs.cpuid(leaf, subleaf), (leaf, subleaf)


def test_registers_have_the_names_of_the_manual():
    name, named = ctypes.create_string_buffer(32), library().lbr_msr_name
    for model in MODELS.values():
        at = ctypes.c_void_p(library().lbr_model_find(model.name.encode()))
        for index, register in registers(model).items():
            assert named(at, ctypes.c_uint32(index), name, ctypes.c_size_t(32)) == 0
            assert name.value.decode() == register.name
        assert library().lbr_msr_name(at, 0x9999, name, ctypes.c_size_t(32)) == CODES["LBR_GP"]
    assert named(at, ctypes.c_uint32(manual.SAMP_BR_FROM_0), name, ctypes.c_size_t(5)) == 0
    assert len(name.value) < 5


# ---------------------------------------------------------------- random lives

class Stops:
    """PMIs end the batch, as the library's do."""

    def __init__(self):
        self.pmis = 0

    def pmi(self, cpu):
        self.pmis += 1
        return True

    def pebs(self, cpu, counter, record):
        return None


def branch_arrays(most=24):
    row = st.tuples(st.integers(0, ALL), st.integers(0, ALL), st.integers(0, 70000),
                    st.integers(0, 300), st.integers(0, 15), st.integers(0, 7),
                    st.integers(0, 3), st.integers(0, 3),
                    st.tuples(*[st.integers(0, 3)] * 4))
    return st.lists(row, min_size=1, max_size=most).map(lambda rows: np.array(rows, BRANCH_DTYPE))


class Lives(RuleBasedStateMachine):
    """A processor of each kind, and what a guest, a host and the world do to it."""

    @initialize(name=st.sampled_from(list(MODELS)))
    def begin(self, name):
        self.events = Stops()
        self.name, self.ours = name, Cpu(name)
        self.theirs = Processor(name, self.events)
        self.numbers = list(registers(MODELS[name]))

    @rule(data=st.data(), host=st.booleans())
    def access(self, data, host):
        index = data.draw(st.sampled_from(self.numbers) | st.sampled_from(NUMBERS))
        register = registers(MODELS[self.name]).get(index)
        value = data.draw(
            st.sampled_from(VALUES) | st.integers(0, ALL).map(
                lambda n: n & ~register.reserved_bits if register else n))
        assert same(outcome(self.ours.wrmsr, index, value, host=host),
                    outcome(self.theirs.wrmsr, index, value, host=host))
        assert same(outcome(self.ours.rdmsr, index, host=host),
                    outcome(self.theirs.rdmsr, index, host=host))

    @rule()
    def switch_on(self):
        fill(self.ours, self.theirs)

    @rule(n=st.integers(0, 3), left=st.integers(1, 20),
          event=st.sampled_from([0xC4, 0xC5, 0xC0, 0x3C, 0x20C4, 0x11C5, 0xC2, 0x76]),
          freeze=st.sampled_from([0, 0x800, 0x1000, 0x1800]), tsx=st.sampled_from([0, 1 << 32]))
    def arm(self, n, left, event, freeze, tsx):
        """A counter that overflows soon, with an interrupt."""
        names = {r.name: r.index for r in registers(MODELS[self.name]).values()}
        pairs = [(f"IA32_PERFEVTSEL{n}", 0x530000 | event | tsx),
                 (f"PERF_CTL{n}", 0x530000 | event),
                 (f"IA32_A_PMC{n}", (1 << 48) - left), (f"PERF_CTR{n}", (1 << 48) - left),
                 (f"IA32_PMC{n}", (1 << 32) - left), ("IA32_FIXED_CTR_CTRL", 0xBB),
                 ("IA32_PERF_GLOBAL_CTRL", 0x70000000F), ("PERF_CNTR_GLOBAL_CTL", 0x3F),
                 ("IA32_DEBUGCTL", freeze | 1)]
        for name, value in pairs:
            if name in names:
                assert same(outcome(self.ours.wrmsr, names[name], value),
                            outcome(self.theirs.wrmsr, names[name], value))

    @rule(branches=branch_arrays())
    def record(self, branches):
        at = 0
        while at < len(branches):
            taken = self.ours.record(branches[at:])
            assert self.theirs.record(branches, at) == at + taken
            at += taken

    @rule(branches=branch_arrays(3))
    def branch(self, branches):
        self.ours.branch(branches)
        for i in range(len(branches)):
            self.theirs.record(branches, i, i + 1)

    @rule(instructions=st.integers(0, 2**32 - 1), cycles=st.integers(0, 99), cpl=st.integers(0, 3))
    def retire(self, instructions, cycles, cpl):
        self.ours.retire(instructions, cycles, cpl)
        self.theirs.retire(instructions, cycles=cycles, cpl=cpl)

    @rule(event=st.sampled_from(["debug_exception", "smi", "rsm", "init", "raise_pmi"]))
    def event(self, event):
        self.either(lambda: self.ours.event(event), getattr(self.theirs, event))
        self.ours.pmis += event == "raise_pmi"

    def either(self, ours, theirs):
        """Both do it, or both say that it cannot be."""
        try:
            theirs()
        except UnsupportedFeature:
            with pytest.raises(Failed, match="LBR_ENOTSUP"):
                ours()
        else:
            ours()

    @rule(kind=st.sampled_from(["cold", "warm"]), in_c6=st.booleans())
    def reset(self, kind, in_c6):
        self.theirs.reset(kind, in_c6=in_c6)
        self.ours.event("reset", int(kind == "warm"), int(in_c6))

    @rule(deep=st.booleans(), lose=st.booleans())
    def mwait(self, deep, lose):
        self.theirs.mwait(deep, lose=lose)
        self.ours.event("mwait", int(deep), int(lose))

    @rule(long_mode=st.booleans(), base=st.sampled_from([0, 0x1000, ALL]))
    def mode(self, long_mode, base):
        self.theirs.mode.long_mode, self.theirs.mode.cs_base = long_mode, base
        self.ours.event("set_mode", int(long_mode), ctypes.c_uint64(base))

    @rule(opened=st.booleans())
    def transaction(self, opened):
        self.either(lambda: self.ours.event("set_tsx", int(opened)),
                    self.theirs.tsx_begin if opened else self.theirs.tsx_commit)

    @rule(opt_in=st.booleans(), address=st.integers(0, ALL))
    def enclave(self, opt_in, address):
        self.either(
            lambda: self.ours.event("enclave_enter", ctypes.c_uint64(address), int(opt_in)),
            lambda: self.theirs.enclave.enter(address, opt_in))

    @rule(address=st.integers(0, ALL))
    def out(self, address):
        shown, found = ctypes.c_uint64(address), []
        self.either(lambda: self.ours.event("enclave_leave", ctypes.byref(shown)),
                    lambda: found.append(self.theirs.enclave.leave(address)))
        assert [shown.value] == (found or [address])

    @precondition(lambda self: MODELS[self.name].xss >> 15 & 1)
    @rule(rfbm=st.sampled_from([1 << 15, ALL, 3]), components=st.sampled_from([0, 1 << 15]))
    def xsaves(self, rfbm, components):
        """Through an area and back."""
        for cpu in (self.ours, self.theirs):
            cpu.wrmsr(manual.IA32_XSS, components)
        room, area = ctypes.create_string_buffer(16384), bytearray(16384)
        self.ours.event("xsaves", room, ctypes.c_size_t(16384), ctypes.c_uint64(0x1000),
                        ctypes.c_uint64(rfbm), ctypes.c_uint64(0))
        self.theirs.xsaves(area, rfbm=rfbm, address=0x1000)
        assert room.raw == bytes(area)
        with pytest.raises(Failed, match="LBR_GP"):
            self.ours.event("xsaves", room, ctypes.c_size_t(16384), ctypes.c_uint64(0x1008),
                            ctypes.c_uint64(rfbm), ctypes.c_uint64(0))
        self.theirs.xrstors(area, rfbm=rfbm, address=0x1000)
        self.ours.event("xrstors", room, ctypes.c_size_t(16384), ctypes.c_uint64(0x1000),
                        ctypes.c_uint64(rfbm))

    @rule()
    def move(self):
        """The library reads what Python wrote, and the other way round."""
        data = self.ours.save()
        self.ours = Cpu(self.name)
        self.ours.load(encode(decode(data)))
        self.ours.pmis = self.events.pmis

    @invariant()
    def equal(self):
        if hasattr(self, "theirs"):
            assert self.ours.save() == encode(self.theirs.state())
            assert (self.ours.records() == self.theirs.records()).all()
            assert self.ours.pmis == self.events.pmis


Lives.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestLives = Lives.TestCase


# ---------------------------------------------------------------- untrusted saved state

@settings(max_examples=200)
@given(st.sampled_from(list(MODELS)), st.data())
def test_damaged_state_is_refused_alike_and_changes_nothing(name, data):
    """Any words of the payload changed, the checksum right again."""
    ours, theirs = Cpu(name), Processor(name)
    fill(ours, theirs)
    good = encode(theirs.state())
    payload = bytearray(good[24:])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload) - 1))
        width = data.draw(st.sampled_from([1, 4, 8]))
        payload[at:at + width] = data.draw(
            st.sampled_from([0, 1, 255, 0x7F, 1 << 31, ALL, 1 << 63])
            | st.integers(0, ALL)).to_bytes(8, "little")[:width]
    if data.draw(st.booleans()):
        payload = payload[:data.draw(st.integers(0, len(payload)))]
    image = headed(bytes(payload))
    before = ours.image()
    try:
        wanted = encode(Processor.from_state(decode(image, MODELS[name])).state())
    except StateError:
        with pytest.raises(Failed, match="LBR_ESTATE"):
            ours.load(image)
        assert ours.image() == before
    else:
        ours.load(image)
        assert ours.save() == wanted


def headed(payload):
    """The payload with its header and checksum."""
    return codec.headed(codec.MAGIC, codec.VERSION, payload)


@pytest.mark.parametrize("cut", [0, 7, 8, 23, 24, 100, -1])
def test_truncated_and_foreign_state_is_refused(cut):
    ours = Cpu("skylake")
    before, data = ours.image(), ours.save()
    for bad in (data[:cut], b"X" + data[1:], data + b"\0", Cpu("haswell").save()):
        with pytest.raises(Failed, match="LBR_ESTATE"):
            ours.load(bad)
        assert ours.image() == before
    room, used = ctypes.create_string_buffer(4096), ctypes.c_size_t(7)
    assert library().lbr_cpu_save(ours.at, room, ctypes.c_size_t(len(data) - 1),
                                  ctypes.byref(used)) == CODES["LBR_ESHORT"]
    assert used.value == 0 and not any(room.raw)


def test_the_callback_is_called_at_each_pmi():
    ours, calls = Cpu("sapphire-rapids"), []
    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(
        lambda cpu, context: calls.append((cpu, context)))
    ours.event("on_pmi", callback, ctypes.c_void_p(42))
    for index, value in (
            (manual.IA32_DEBUGCTL, manual.DEBUGCTL_FREEZE_LBRS_ON_PMI),
            (manual.IA32_LBR_CTL, manual.RECORD_ALL), (manual.IA32_PERF_GLOBAL_CTRL, 1),
            (manual.IA32_PERFEVTSEL0, 0x5300C4), (manual.IA32_A_PMC0, (1 << 48) - 5)):
        ours.wrmsr(index, value)
    branches = np.zeros(9, BRANCH_DTYPE)
    branches["from"] = range(1, 10)
    assert ours.record(branches) == 5 and calls == [(ours.at.value, 42)]
    assert ours.rdmsr(manual.IA32_PERF_GLOBAL_STATUS) == 1 << 58 | 1
    assert ours.record(branches[5:]) == 4 and ours.records()["from"][0] == 5
