"""state(), from_state(), the codec under hostile input, and migration."""

import struct
import zlib
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbrcore import BranchClass
from pylbr.arch import MODELS, ExitReason, architectural, model, registers
from pylbr.cpu import Processor, Vmcs, decode, encode, migrate
from pylbr.cpu.saved.codec import HEADER, MAGIC
from pylbr.errors import LbrError, StateError, UnsupportedFeature
from tests.cpu.helpers import Listener, some_branches
from tests.manual import (
    DBG_EXTN_CFG,
    DBG_EXTN_CFG_LBRV2EN,
    IA32_DEBUGCTL,
    IA32_LBR_0_FROM_IP,
    IA32_LBR_CTL,
    IA32_LBR_DEPTH,
    IA32_PERF_GLOBAL_CTRL,
    IA32_PERFEVTSEL0,
    IA32_PMC0,
    IA32_XSS,
    MSR_LASTBRANCH_TOS,
    PERF_CNTR_GLOBAL_CTL,
    PERF_CTL0,
    PERF_CTR0,
    RECORD_ALL,
)

CTL, DEPTH, DEBUGCTL = IA32_LBR_CTL, IA32_LBR_DEPTH, IA32_DEBUGCTL


def busy(name):
    """A processor with something in every part that the model has."""
    cpu = Processor(name)
    m = cpu.model
    if m.arch:
        cpu.wrmsr(DEPTH, m.arch.depths[0])
        cpu.wrmsr(CTL, 0x10001 | (0x60006 if m.arch.cpl_filter else 0))
        cpu.wrmsr(DEBUGCTL, 0x800)
    elif m.legacy:
        cpu.wrmsr(DEBUGCTL, 1)
    else:
        cpu.wrmsr(DBG_EXTN_CFG, DBG_EXTN_CFG_LBRV2EN)
    if m.pmu.version:
        cpu.wrmsr(PERF_CTL0 if m.amd else IA32_PERFEVTSEL0, 0x5300C4)
        cpu.wrmsr(PERF_CTR0 if m.amd else IA32_PMC0, 12345)
    if m.pmu.version >= 2:
        cpu.wrmsr(PERF_CNTR_GLOBAL_CTL if m.amd else IA32_PERF_GLOBAL_CTRL, 1)
    if m.xss >> 15 & 1:
        cpu.wrmsr(IA32_XSS, 1 << 15)
        cpu.xsetbv(7)
    cpu.record(some_branches(100, classes=(0, 1, 2, 3, 4, 5)))
    cpu.branch(BranchClass.INTERRUPT, 0x1000, 0x2000, cycles=5)
    cpu.branch(BranchClass.NOT_TAKEN, 0x1000, 0x2000, cycles=9)
    if m.tsx:
        cpu.tsx_begin()
    cpu.smi()
    cpu.mode.cs_base, cpu.mode.long_mode = 0x5000, False
    return cpu


@pytest.mark.parametrize("name", MODELS)
def test_round_trips(name):
    cpu = busy(name)
    state = cpu.state()
    assert cpu.state() == state, "taking a state changes nothing"
    assert state != Processor(name).state()
    data = encode(state)
    for back in (Processor.from_state(state), Processor.from_state(decode(data)), cpu.copy()):
        assert back.state() == state
        for one in (cpu.copy(), back):
            one.rsm()
            one.record(some_branches(50, seed=3))
        again = cpu.copy()
        again.rsm()
        again.record(some_branches(50, seed=3))
        assert back.state() == again.state(), "it continues as the original does"


@pytest.mark.parametrize("name", MODELS)
def test_what_a_pmi_leaves_behind_loads(name):
    """Overflow, freeze of everything that can freeze, an enclave: status bits and stops."""
    cpu = Processor(name, Listener())
    m = cpu.model
    if m.pmu.version:
        cpu.wrmsr(PERF_CTL0 if m.amd else IA32_PERFEVTSEL0, 0x5300C2 if m.amd else 0x5300C4)
        cpu.wrmsr(PERF_CTR0 if m.amd else IA32_PMC0, (1 << 48) - 5 if m.amd else 0xFFFFFFFB)
    if not m.netburst:
        cpu.wrmsr(DEBUGCTL, 0x1801 if m.amd or (m.pdcm and m.pmu.version > 1) else 1)
    cpu.record(some_branches(100))
    assert len(cpu.events.pmis) == (m.pmu.version > 0)
    cpu.raise_pmi()
    if m.pmu.pebs_format:
        cpu.pebs_threshold()
    else:
        with pytest.raises(UnsupportedFeature):
            cpu.pebs_threshold()
    if m.sgx:
        cpu.enclave_enter(1, 2, opt_in=False)
    state = cpu.state()
    assert Processor.from_state(decode(encode(state))).state() == state


def test_a_copy_is_independent():
    cpu = busy("sapphire-rapids")
    state, other = cpu.state(), cpu.copy()
    other.reset()
    assert cpu.state() == state


def test_a_state_is_plain_and_frozen():
    state = busy("sapphire-rapids").state()
    assert hash(state) == hash(busy("sapphire-rapids").state())
    with pytest.raises(AttributeError):
        state.msrs.debugctl = 0


def test_a_guest_is_saved_with_its_vmcs():
    cpu = Processor("sapphire-rapids")
    v = Vmcs.for_model(cpu.model, "use MSR bitmaps", "load IA32_LBR_CTL", "clear IA32_LBR_CTL")
    v.guest_lbr_ctl, v.exit_msr_load = RECORD_ALL, [(IA32_LBR_0_FROM_IP, 5)]
    v.intercept(DEPTH)
    cpu.vm_entry(v)
    back = Processor.from_state(decode(encode(cpu.state())))
    assert back.state() == cpu.state() and back.vmx.vmcs == v and back.vmx.vmcs is not v
    back.vm_exit(ExitReason.VMCALL)
    assert back.rdmsr(CTL) == 0 and back.rdmsr(IA32_LBR_0_FROM_IP) == 5
    assert cpu.rdmsr(CTL) == RECORD_ALL


# Hostile input

DATA = encode(busy("sapphire-rapids").state())


def test_every_truncation_is_refused():
    for size in range(len(DATA)):
        with pytest.raises(StateError):
            decode(DATA[:size])
    with pytest.raises(StateError):
        decode(DATA + b"\0")


def test_every_byte_is_covered_by_the_checksum_or_the_header_checks():
    for at in range(len(DATA)):
        for change in (1, 0x80, 0xFF):
            damaged = bytearray(DATA)
            damaged[at] ^= change
            with pytest.raises(StateError):
                decode(damaged)


def _sealed(payload, version=1):
    return HEADER.pack(MAGIC, version, 0, len(payload), zlib.crc32(payload), 0) + payload


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(DATA) - HEADER.size - 1), st.integers(0, 255)),
                max_size=4), st.integers(0, 40))
def test_damage_under_a_good_checksum_is_refused_or_a_legal_state(changes, cut):
    payload = bytearray(DATA[HEADER.size:])
    for at, value in changes:
        payload[at] = value
    if cut < 8:
        del payload[-cut - 1:]
    try:
        state = decode(_sealed(bytes(payload)))
    except StateError:
        return
    assert decode(encode(state)) == state


def _guest():
    """A processor in a guest, with something in every field of the VMCS."""
    cpu = Processor("sapphire-rapids")
    v = Vmcs.for_model(
        cpu.model, "use MSR bitmaps", "load IA32_LBR_CTL", "clear IA32_LBR_CTL",
        "load debug controls", "save debug controls", "activate secondary controls",
        "enable XSAVES/XRSTORS", "load host IA32_PERF_GLOBAL_CTRL")
    v.guest_lbr_ctl, v.guest_debugctl, v.host_perf_global_ctrl = RECORD_ALL, 0x800, 3
    v.exception_bitmap, v.xss_exiting_bitmap, v.entry_interruption_info = 2, 1 << 11, 1 << 31
    v.entry_msr_load = v.exit_msr_load = [(IA32_LBR_0_FROM_IP, 5), (DEPTH, 16)]
    v.exit_msr_store = [(CTL, 0)]
    cpu.vm_entry(v)
    cpu.record(some_branches(40))
    return cpu


GUEST = encode(_guest().state())


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(
    st.integers(HEADER.size, len(GUEST) - 4300) | st.integers(len(GUEST) - 150, len(GUEST) - 1),
    st.sampled_from([0, 1, 2, 8, 0x40, 0x80, 0xFF])), min_size=1, max_size=4))
def test_what_loads_in_a_guest_runs_on_without_surprise(changes):
    """Whatever decodes can be used, ends in documented errors only, and saves again."""
    data = bytearray(GUEST)
    for at, value in changes:
        data[at] = value
    try:
        cpu = Processor.from_state(decode(_sealed(bytes(data[HEADER.size:]))))
    except StateError:
        return
    for step in (lambda: cpu.record(some_branches(200)), lambda: cpu.rdmsr(CTL),
                 lambda: cpu.xsaves(bytearray(2048)), cpu.debug_exception, cpu.smi, cpu.rsm,
                 cpu.mwait, cpu.raise_pmi, lambda: cpu.vm_exit(ExitReason.CPUID),
                 lambda: [cpu.rdmsr(index) for index in registers(cpu.model)],
                 lambda: cpu.record(some_branches(200))):
        with suppress(LbrError):
            step()
        assert decode(encode(cpu.state())) == cpu.state()


@pytest.mark.parametrize("change", [
    {"entry_controls": 0}, {"exit_controls": 1 << 31}, {"host_perf_global_ctrl": 1 << 40},
    {"guest_lbr_ctl": 1 << 5}, {"guest_debugctl": 1 << 3}, {"guest_dr7": 1 << 40},
    {"exit_reason": -1}, {"exit_reason": "none"}, {"msr_bitmap": 1 << 40}, {"msr_bitmap": b""},
    {"exit_msr_load": ((1, 2, 3),)}, {"exit_msr_load": ((1 << 40, 2),)}, {"exit_msr_load": 5},
    {"exit_msr_load": ((IA32_LBR_0_FROM_IP, 0),) * 513},
])
def test_vmcs_states_that_no_entry_would_have_let_pass(change):
    state = _guest().state()
    assert Processor.from_state(state).state() == state
    with pytest.raises(StateError, match="vmcs"):
        Processor.from_state(replace(state, vmcs=tuple(
            (name, change.get(name, value)) for name, value in state.vmcs)))
    with pytest.raises(StateError, match="missing or unknown"):
        Processor.from_state(replace(state, vmcs=state.vmcs[1:]))


@given(st.binary(max_size=300))
def test_rubbish_is_refused(data):
    for one in (data, _sealed(data), MAGIC + data):
        with pytest.raises(StateError):
            decode(one)


def test_refusals_say_what_is_wrong():
    def section(tag, body):
        return struct.pack("<HHI", tag, 0, len(body)) + body

    cases = (
        (_sealed(b"", version=2), "version 2"),
        (_sealed(b""), "missing"),
        (b"NOT A PY" + DATA[8:], "magic"),
        (_sealed(section(1, b"pentium-9")), "not known"),
        (_sealed(section(9, b"")), "unknown or out of order"),
        (_sealed(section(1, b"skylake") * 2), "out of order"),
        (_sealed(struct.pack("<HHI", 2, 0, 1 << 30)), "claims"),
        (_sealed(section(4, struct.pack("<I", 1 << 30))), "at most"),
        (b"\0" * (1 << 17), "no state has more"),
    )
    for data, text in cases:
        with pytest.raises(StateError, match=text):
            decode(data)


def test_a_model_of_ones_own_is_given_again():
    mine = architectural("mine", depths=(16,))
    data = encode(Processor(mine).state())
    with pytest.raises(StateError, match="not known"):
        decode(data)
    assert decode(data, mine) == Processor(mine).state()
    with pytest.raises(StateError, match="migrate"):
        decode(DATA, mine)


@pytest.mark.parametrize("part, change", [
    ("msrs", {"debugctl": 1}), ("msrs", {"debugctl": 1 << 20}), ("msrs", {"xcr0": 2}),
    ("msrs", {"xcr0": 1 << 5}), ("msrs", {"values": ((IA32_LBR_CTL, 1),)}),
    ("msrs", {"values": ((IA32_XSS, 1 << 40),)}), ("enclave", {"kind": "else"}),
    ("enclave", {"entry": 1 << 64}), ("smm", {"inside": False}),
    ("smm", {"debugctl": 1 << 20}), ("mode", {"cs_base": 1 << 64}),
])
def test_states_that_the_model_cannot_hold(part, change):
    state = busy("sapphire-rapids").state()
    with pytest.raises(StateError):
        Processor.from_state(replace(state, **{part: replace(getattr(state, part), **change)}))


@pytest.mark.parametrize("change", [
    {"ctl": 1 << 5}, {"depth": 24}, {"entries": ()}, {"tos": 1}, {"enable": True},
    {"cycles": 1 << 17}, {"events": (4, 0, 0, 0)}, {"events": ()}, {"ler": (0, 0)},
])
def test_lbr_states_that_the_model_cannot_hold(change):
    state = busy("sapphire-rapids").state()
    with pytest.raises(StateError):
        Processor.from_state(replace(
            state, msrs=replace(state.msrs, lbr=replace(state.msrs.lbr, **change))))


@pytest.mark.parametrize("change", [
    {"pmc": (0,)}, {"fixed": ()}, {"pmc": (1 << 48,) + (0,) * 7}, {"evtsel": (1 << 40,) * 8},
    {"evtsel": ()}, {"status": 1 << 40}, {"global_ctrl": 1 << 40}, {"fixed_ctrl": 4},
    {"pebs_enable": 1 << 60},
])
def test_pmu_states_that_the_model_cannot_hold(change):
    state = busy("sapphire-rapids").state()
    with pytest.raises(StateError):
        Processor.from_state(replace(state, pmu=replace(state.pmu, **change)))


#: Version 1, written by the first release; it must load for ever.
GOLDEN = bytes.fromhex(
    "50594c4252435055010000009702000091e373e10000000001000000070000006e6568616c656d02000000b801"
    "00000000000000000000100000000300000010000000ffffffff00000000000000000000000000000000000000"
    "000000000000000000000000000030000000000000103000000000000000000000000000000020000000000000"
    "102000000000000000000000000000800010000000000000101000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000300000080000000"
    "040300000000000000000000000000000f00000000000000000000000000000000000000000000000300000000"
    "000000000000000000000000000000000000000000000000000000c40043000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000004000000040000"
    "0000000000050000002c0000000108000000000000010000000000000000000000000000000000000000000000"
    "000000000000000008000000"
)


def test_version_1_keeps_loading():
    cpu = Processor.from_state(decode(GOLDEN))
    assert cpu.model.name == "nehalem" and cpu.rdmsr(MSR_LASTBRANCH_TOS) == 3
    assert [cpu.rdmsr(0x680 + i) for i in range(5)] == [
        0, 0x1000, 1 << 63 | 0x2000, 0x3000, 0]
    assert cpu.rdmsr(IA32_DEBUGCTL) == 0x801
    assert cpu.rdmsr(IA32_PERFEVTSEL0) == 0x4300C4 and cpu.rdmsr(IA32_PMC0) == 3


# Migration

def moved(cpu, target):
    return Processor.from_state(migrate(cpu.state(), target))


def simple(name, n=20):
    cpu = Processor(name)
    if cpu.model.arch:
        cpu.wrmsr(CTL, RECORD_ALL)
    else:
        cpu.wrmsr(DEBUGCTL, 1)
    cpu.record(some_branches(n))
    return cpu


def test_between_architectural_parts():
    cpu = simple("sapphire-rapids")
    there = moved(cpu, model("sierra-forest"))
    assert there.records().tolist() == cpu.records().tolist()
    cpu.record(some_branches(20, seed=5))
    there.record(some_branches(20, seed=5))
    assert there.records().tolist() == cpu.records().tolist()
    back = moved(there, model("sapphire-rapids"))
    assert back.state() == cpu.state()


@pytest.mark.parametrize("depth, target, works", [
    (16, (8, 16), True), (8, (8, 16), True), (32, (8, 16), False), (16, (32,), False)])
def test_unlike_depths(depth, target, works):
    cpu = Processor("sapphire-rapids")
    cpu.wrmsr(DEPTH, depth)
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.record(some_branches(40))
    other = architectural("other", depths=target)
    if not works:
        with pytest.raises(StateError, match=f"depth {depth} is none of"):
            migrate(cpu.state(), other)
        return
    there = moved(cpu, other)
    assert there.rdmsr(DEPTH) == depth
    assert there.records().tolist() == cpu.records().tolist()


@pytest.mark.parametrize("lip", [True, False])
def test_unlike_ip_formats(lip):
    """Effective and linear addresses differ by the base of CS, where that is known."""
    one, two = architectural("one", lip=lip), architectural("two", lip=not lip)
    cpu = Processor(one)
    cpu.wrmsr(CTL, RECORD_ALL)
    cpu.mode.cs_base = 0x10000
    native = Processor(two)
    native.wrmsr(CTL, RECORD_ALL)
    native.mode.cs_base = 0x10000
    for each in (cpu, native):
        each.record(some_branches(40))
    assert moved(cpu, two).records().tolist() == native.records().tolist()
    cpu.branch(BranchClass.FAR_BRANCH, 0x20000, 0x30000)
    with pytest.raises(StateError, match="far branches"):
        migrate(cpu.state(), two)
    cpu.mode.cs_base = 0
    migrate(cpu.state(), two)


def test_legacy_formats_translate_exactly_or_not_at_all():
    cpu = Processor("nehalem")
    cpu.wrmsr(DEBUGCTL, 1)
    cpu.branch(0, 0xFFFFFFFF81000000, 0x2000, flags=4)
    there = moved(cpu, model("haswell"))
    assert there.rdmsr(0x680 + there.rdmsr(MSR_LASTBRANCH_TOS)) == 0x9FFFFFFF81000000
    timed = simple("skylake")
    with pytest.raises(StateError, match="depth 32"):
        migrate(timed.state(), model("haswell"))
    there = moved(timed, model("goldmont"))
    tos = there.rdmsr(MSR_LASTBRANCH_TOS)
    assert there.rdmsr(0x6C0 + tos) >> 48 == timed.rdmsr(0xDC0 + tos) & 0xFFFF
    transactional = simple("skylake")
    transactional.tsx_begin()
    transactional.branch(0, 1, 2)
    transactional.tsx_commit()
    with pytest.raises(StateError, match="no place in LBR format 7"):
        migrate(transactional.state(), model("goldmont-plus"))


@pytest.mark.parametrize("name, target, reason", [
    ("sapphire-rapids", "skylake", "do not become legacy"),
    ("sapphire-rapids", "zen4", "do not become AMD"),
    ("zen4", "haswell", "do not become legacy"),
])
def test_flavours_do_not_mix(name, target, reason):
    with pytest.raises(StateError, match=reason):
        migrate(Processor(name).state(), model(target))


def test_what_else_is_refused():
    cpu = simple("sapphire-rapids")
    cpu.wrmsr(IA32_PERFEVTSEL0 + 7, 0x4300C4)
    with pytest.raises(StateError, match="counter 6"):
        migrate(cpu.state(), model("alder-lake-e"))
    cpu = simple("sapphire-rapids")
    cpu.branch(0, 1 << 50, 2)
    with pytest.raises(StateError, match="more than 48 bits"):
        migrate(cpu.state(), model("alder-lake-p"))
    cpu = simple("sapphire-rapids")
    with pytest.raises(StateError, match="filter bits"):
        migrate(cpu.state(), architectural("flat", cpl_filter=False))
    cpu.wrmsr(DEBUGCTL, 1 << 15)
    with pytest.raises(StateError, match="reserved"):
        migrate(cpu.state(), model("alder-lake-p"))
    listening = Processor("sapphire-rapids", Listener())
    listening.vm_entry(Vmcs.for_model(listening.model))
    with pytest.raises(StateError, match="in a guest"):
        migrate(listening.state(), model("sapphire-rapids"))


@pytest.mark.parametrize("name", MODELS)
def test_migration_to_the_same_model_changes_nothing(name):
    state = busy(name).state()
    assert migrate(state, MODELS[name]) == state
