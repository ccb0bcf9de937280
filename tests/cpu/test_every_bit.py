"""One judge a register: every bit of every MSR, and every number, against tables made by hand.

The twin is the table: what it says of a write is written from the manual, not from the rows.
"""

from itertools import product

import pytest

from pylbr.arch import MODELS, architectural, registers
from pylbr.cpu import Processor
from pylbr.errors import GeneralProtection
from tests.cpu import numbers, sweep, twin
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
    IA32_PERF_GLOBAL_STATUS_SET,
    IA32_PERFEVTSEL0,
    IA32_PMC0,
    IA32_RTIT_CTL,
    PERF_CNTR_GLOBAL_STATUS,
)

CTL, DEPTH = IA32_LBR_CTL, IA32_LBR_DEPTH
LBR = (CTL, DEPTH, IA32_LER_FROM_IP, IA32_LER_TO_IP, IA32_LER_INFO)
FROM, TO, INFO = IA32_LBR_0_FROM_IP, IA32_LBR_0_TO_IP, IA32_LBR_0_INFO


def access(cpu, fault, index, value=None, **host):
    try:
        return cpu.rdmsr(index, **host) if value is None else cpu.wrmsr(index, value, **host)
    except fault:
        return "#GP"


#: Registers that a guest may only read and a host may write: IA32_PERF_GLOBAL_STATUS, and AMD's.
STATUS = (IA32_PERF_GLOBAL_STATUS, PERF_CNTR_GLOBAL_STATUS)


def host_write(cpu, other, index, value, before):
    """What the host may write where the guest may not."""
    allowed = index in STATUS and not value & ~other.status_mask()
    outcome = access(cpu, GeneralProtection, index, value, host=True)
    assert outcome == (None if allowed else "#GP"), (hex(index), hex(value))
    if allowed:
        assert cpu.rdmsr(index) == value
        cpu.wrmsr(index, before, host=True)


def every_bit(cpu, other, indices):
    """Each bit alone of each register: stored, ignored or #GP on both, and nothing else moves."""
    everything = registers(cpu.model)
    fresh = [access(cpu, GeneralProtection, index) for index in everything]
    for index in indices:
        before = access(cpu, GeneralProtection, index)
        assert before == access(other, twin.Fault, index), hex(index)
        for bit in range(64):
            value = 1 << bit
            outcome = access(cpu, GeneralProtection, index, value)
            assert outcome == access(other, twin.Fault, index, value), (hex(index), bit)
            read = access(cpu, GeneralProtection, index)
            assert read == access(other, twin.Fault, index), (hex(index), bit)
            if outcome == "#GP":
                assert read == before, (hex(index), bit)
                if other.facts.kind != "legacy" or index not in (IA32_LER_FROM_IP, IA32_LER_TO_IP):
                    host_write(cpu, other, index, value, before)
            elif before != "#GP" and before != read:
                access(cpu, GeneralProtection, index, before)
                access(other, twin.Fault, index, before)
    assert [access(cpu, GeneralProtection, index) for index in everything] == fresh


#: CPUID.1CH:EBX[2:0]: CPL filter, branch filter, call-stack mode, which needs the second.
FILTERS = [f for f in product((False, True), repeat=3) if f[1] or not f[2]]


def facts(depths=(8, 16, 32), cpl=True, branch=True, stack=True, mispred=True, timed=True,
          typed=True, logging=0, tsx=True):
    return twin.Facts(
        depths=depths, ctl=1 | 6 * cpl | 8 * stack | 0x7F0000 * branch, cpl_filter=cpl,
        branch_filter=branch, mispred=mispred, timed=timed, typed=typed, logging=logging, tsx=tsx,
        rtm=tsx, debugctl=0xDFC6 if tsx else 0x5FC6)


@pytest.mark.parametrize("cpl, branch, stack", FILTERS)
def test_every_configuration_of_leaf_1c_ebx_and_ecx(cpl, branch, stack):
    for mispred, timed, typed, tsx in product((False, True), repeat=4):
        for logging in (0, 1, 2, 4, 8, 15):
            model = architectural(
                cpl_filter=cpl, branch_filter=branch, call_stack=stack, mispredict=mispred,
                timed=timed, branch_type=typed, event_logging=logging, rtm=tsx, hle=tsx)
            eax, ebx, ecx, edx = Processor(model).cpuid(0x1C)
            assert (ebx, ecx, edx) == (cpl | branch << 1 | stack << 2,
                                       mispred | timed << 1 | typed << 2 | logging << 16, 0)
            every_bit(Processor(model), twin.Twin(facts(
                cpl=cpl, branch=branch, stack=stack, mispred=mispred, timed=timed, typed=typed,
                logging=logging, tsx=tsx)), (*LBR, FROM, TO + 31, INFO, INFO + 31))


@pytest.mark.parametrize("lip", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_every_configuration_of_leaf_1c_eax(lip, deep):
    for bitmap in range(1, 16):
        depths = tuple(8 * (n + 1) for n in range(4) if bitmap >> n & 1)
        model = architectural(depths=depths, lip=lip, deep_cstate_reset=deep)
        assert Processor(model).cpuid(0x1C)[0] == bitmap | deep << 30 | lip << 31
        indices = [base + n for base in (FROM, TO, INFO) for n in range(32)]
        every_bit(Processor(model), twin.Twin(facts(depths)), [*LBR, *indices])
        for depth in range(66):
            cpu, other = Processor(model), twin.Twin(facts(depths))
            assert access(cpu, GeneralProtection, DEPTH, depth) == access(
                other, twin.Fault, DEPTH, depth)
            if depth not in depths:
                continue
            for n in range(33):
                for index in (FROM + n, TO + n, INFO + n):
                    assert access(cpu, GeneralProtection, index) == access(
                        other, twin.Fault, index) == (0 if n < depth else "#GP")
                    assert access(cpu, GeneralProtection, index, 0) == (
                        None if n < depth else "#GP")


@pytest.mark.parametrize("name", twin.MODELS)
def test_every_bit_of_every_register(name):
    cpu, other = Processor(name), twin.Twin(twin.MODELS[name])
    known = [index for index in registers(cpu.model) if access(other, twin.Fault, index) != "#GP"]
    lbrs = {index for index, r in registers(cpu.model).items()
            if r.row.accessor.startswith(("lbr", "ler", "amd", "debugctl"))}
    assert lbrs <= set(known), "the twin judges every LBR MSR"
    # A write of the status registers changes another one, as it should.
    every_bit(cpu, other, [index for index in known if index not in (
        IA32_PERF_GLOBAL_STATUS_SET, IA32_RTIT_CTL)])


@pytest.mark.parametrize("host", [False, True])
def test_no_value_is_narrowed(host):
    """64 bits go in and come out, in registers that hold all of them."""
    cpu = Processor("sierra-forest")
    for index in (INFO, INFO + 31, IA32_LER_INFO):
        for bit in range(64):
            for value in (1 << bit, (1 << 64) - 1 ^ 1 << bit):
                cpu.wrmsr(index, value, host=host)
                assert cpu.rdmsr(index, host=host) == value
    for value in (1 << 64, 1 << 64 | 7, -1, 1 << 200):
        for index in (CTL, DEPTH, FROM, INFO, IA32_LER_INFO, IA32_PERFEVTSEL0, IA32_PMC0,
                      IA32_PERF_GLOBAL_CTRL, IA32_DEBUGCTL):
            before = cpu.rdmsr(index)
            with pytest.raises(GeneralProtection):
                cpu.wrmsr(index, value, host=host)
            assert cpu.rdmsr(index) == before


# Only these MSRs

#: Where registers are, what lies around them, and the edges of the number space.
WINDOWS = [(0, 0x2000), (0x40000000, 0x40000100), (0x7FFFFF00, 0x80000100),
           (0xC0000000, 0xC0002000), (0xC0010000, 0xC0012000), (0xFFFFFF00, 1 << 32),
           *((1 << bit, (1 << bit) + 0x40) for bit in range(13, 31))]


@pytest.mark.parametrize("name", sweep.EXPECTED)
def test_only_these_numbers_answer(name):
    expected = sweep.EXPECTED[name]
    assert expected == set(registers(Processor(name).model))
    for first, last in WINDOWS:
        assert sweep.answering(name, first, last) == sorted(
            index for index in expected if first <= index < last)
        cpu = Processor(name)
        before = cpu.state()
        for index in range(first, last, 7):
            if index not in expected:
                assert access(cpu, GeneralProtection, index, 0) == "#GP"
        assert cpu.state() == before
    if name in ("sapphire-rapids", "sierra-forest"):
        assert len(sweep.architectural()) == 102


@pytest.mark.slow
def test_a_sweep_of_four_million_numbers():
    """``python -m tests.cpu.sweep`` goes through all of them."""
    assert set(sweep.answering("sapphire-rapids", 0, 1 << 22)) == sweep.EXPECTED["sapphire-rapids"]


def test_the_compiled_sweep_finds_the_same_numbers(tmp_path):
    """In windows; ``python -m tests.cpu.numbers`` goes through all 2**32 of every model."""
    find = numbers.Numbers(tmp_path)
    for name in MODELS:
        found = {int(row["index"]) for window in WINDOWS for row in find(name, *window)}
        assert found == {index for index in numbers.wanted(name)
                         if any(first <= index < last for first, last in WINDOWS)}, name
    rows = {int(row["index"]): row for row in find("sapphire-rapids", 0, 0x2000)}
    for index, row in rows.items():  # each bit, as the Python processor takes it
        for bit in range(64):
            outcome = access(Processor("sapphire-rapids"), GeneralProtection, index, 1 << bit)
            assert bool(row["accepted"] >> bit & 1) == (outcome != "#GP"), (hex(index), bit)


def test_reads_have_no_side_effects():
    for name in twin.MODELS:
        cpu = Processor(name)
        cpu.wrmsr(IA32_DEBUGCTL, 1)
        cpu.branch(0, 0x401000, 0x402000)
        before = cpu.state()
        for index in registers(cpu.model):
            cpu.rdmsr(index)
            cpu.rdmsr(index, host=True)
        assert cpu.state() == before
