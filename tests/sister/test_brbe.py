"""Arm's branch record buffer: the manual's words, and the twin bit by bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lbrcore import BRANCH_DTYPE, BranchClass, BranchFlag, Fault
from pylbr.sister.brbe import BrbeState
from pylbr.sister.brbe_rows import BRBE_INSTRUCTIONS, BRBE_ROWS, TYPES, sysreg
from pylbr.sister.config import BrbeConfig
from pylbr.sister.details import CAUSE_SHIFT, Cause
from pylbr.sister.reference_brbe import ReferenceBrbe

WORD = st.integers(0, (1 << 64) - 1)
CONFIGS = st.builds(
    BrbeConfig, records=st.sampled_from([8, 16, 32, 64]), el2=st.booleans(), tme=st.booleans(),
    snapshot=st.booleans(),
)
WRITABLE = ["BRBCR_EL1", "BRBCR_EL2", "BRBFCR_EL1", "BRBTS_EL1", "BRBINFINJ_EL1",
            "BRBSRCINJ_EL1", "BRBTGTINJ_EL1"]
#: E0BRE, ExBRE, CC, MPRED, ERTN, EXCEPTION
EVERYTHING, ALL_CLASSES = 0xC0001B, 0x7E0000


def batch(seed, n, classes, levels=(0, 1, 2, 3)):
    rng = np.random.default_rng(seed)
    rows = np.zeros(n, BRANCH_DTYPE)
    rows["from"], rows["to"] = rng.integers(0, 1 << 64, (2, n), dtype="u8")
    rows["class"] = rng.choice(classes, n)
    rows["cycles"] = rng.choice([0, 1, 255, 256, 511, 512, 70000, 1 << 19, (1 << 32) - 1], n)
    rows["flags"] = rng.integers(0, 8, n) | rng.integers(0, 9, n) << CAUSE_SHIFT
    rows["cpl_from"], rows["cpl_to"] = rng.choice(levels, (2, n))
    return rows


BATCHES = st.builds(
    batch, st.integers(0, 1 << 32), st.integers(0, 100),
    st.lists(st.sampled_from(list(BranchClass)), min_size=1, max_size=6),
    st.sampled_from([(3,), (2, 3), (0, 1, 2, 3)]),
)


class Machine(RuleBasedStateMachine):
    """Whatever is written and recorded, the compiled state and its twin agree."""

    @initialize(config=CONFIGS)
    def start(self, config):
        self.state, self.twin = BrbeState(config), ReferenceBrbe(config)

    @rule(name=st.sampled_from(WRITABLE), value=WORD)
    def write(self, name, value):
        self.put(name, value)

    @rule(first=st.integers(0, EVERYTHING), second=st.sampled_from([0, EVERYTHING, 0x1B]),
          function=st.integers(0, 0x7F).map(lambda bits: bits << 16))
    def enable(self, first, second, function):
        self.put("BRBCR_EL1", first | 0x18)
        self.put("BRBCR_EL2", second)
        self.put("BRBFCR_EL1", function)

    def put(self, name, value):
        if name == "BRBCR_EL2" and not self.state.config.el2:
            with pytest.raises(Fault):
                self.state.write(name, value, el=2)
            return
        self.state.write(name, value, el=2)
        self.twin.write(name, value)

    @rule(rows=BATCHES)
    def record(self, rows):
        self.state.record(rows)
        self.twin.record(rows)

    @rule(value=st.booleans())
    def host(self, value):
        self.state.host = self.twin.host = value
        self.twin._settle()

    @rule(el=st.integers(0, 3), hyp=st.booleans(), time=WORD)
    def overflow(self, el, hyp, time):
        assert self.state.overflow(el=el, hyp=hyp, time=time) == self.twin.overflow(el, hyp, time)

    @rule()
    def inject(self):
        self.state.inject()
        self.twin.inject()

    @rule()
    def invalidate(self):
        self.state.invalidate()
        self.twin.clear()

    @rule()
    def copied(self):
        self.state = self.state.copy()

    @invariant()
    def equal(self):
        state, twin = self.state, self.twin
        assert [tuple(int(x) for x in row) for row in state.registers()] == twin.stack
        assert [tuple(int(x) for x in row) for row in state.records()] == twin.records()
        for name, value in twin.values.items():
            if name != "BRBCR_EL12" and (name != "BRBCR_EL2" or state.config.el2):
                assert state.read(name, el=2) == value, name
        for n in (0, 7, 8, 31):
            assert tuple(state.read(f"BRB{part}{n}_EL1") for part in ("SRC", "TGT", "INF")) == (
                twin.numbered(n))
        assert state.cycles == (
            twin.cycles if twin.cycles is None else min(twin.cycles, 1 << 20))


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
test_twin = Machine.TestCase


def test_twin_over_all_transitions():
    """Every exception and return between all levels, under many controls."""
    rng = np.random.default_rng(17)
    classes = [BranchClass.SYSCALL, BranchClass.INTERRUPT, BranchClass.IRET,
               BranchClass.EXCEPTION, BranchClass.NEAR_REL_CALL]
    recorded = 0
    for i in range(400):
        config = BrbeConfig(el2=bool(i & 1), tme=bool(i & 2))
        state, twin = BrbeState(config), ReferenceBrbe(config)
        for name in ("BRBCR_EL1", "BRBCR_EL2")[:1 + (i & 1)]:
            value = int(rng.integers(0, 4)) << 22 | int(rng.integers(0, 4)) << 3 | int(
                rng.integers(0, 4))
            state.write(name, value, el=2)
            twin.write(name, value)
        state.write("BRBFCR_EL1", ALL_CLASSES)
        twin.write("BRBFCR_EL1", ALL_CLASSES)
        state.host = twin.host = bool(i & 4)
        rows = batch(i, 40, classes)
        state.record(rows)
        twin.record(rows)
        assert [tuple(int(x) for x in r) for r in state.registers()] == twin.stack
        recorded += sum(info & 3 != 0 for _, _, info in twin.stack)
    assert recorded > 2000


def on(**config):
    state = BrbeState(BrbeConfig(**config))
    state.write("BRBCR_EL1", EVERYTHING)
    if state.config.el2:
        state.write("BRBCR_EL2", 0x18, el=2)  # CC and MPRED: EL2 has a say in both
    state.write("BRBFCR_EL1", ALL_CLASSES)
    return state


@given(st.integers(0, (1 << 21)))
@settings(max_examples=200, deadline=None)
def test_cycles_are_encoded_as_the_pseudocode_does(cycles):
    cc = ReferenceBrbe.encode(cycles)
    if cycles >= 1 << 20:
        assert cc == 0x3FFF
    else:
        exponent = cc >> 8
        unit = 1 << max(exponent - 1, 0)
        assert ReferenceBrbe.decode(cc) == cycles // unit * unit


def test_numbers_of_registers_are_those_of_the_assembler():
    """As binutils encodes ``mrs x0, NAME``: bits 20:5 of the instruction, op0 without its 1."""
    known = {"BRBCR_EL1": (2, 1, 9, 0, 0), "BRBCR_EL2": (2, 4, 9, 0, 0),
             "BRBFCR_EL1": (2, 1, 9, 0, 1), "BRBIDR0_EL1": (2, 1, 9, 2, 0)}
    rows = {row.name: row.number for row in BRBE_ROWS}
    assert all(rows[name] == sysreg(*fields) for name, fields in known.items())
    state = BrbeState()
    assert state.read(sysreg(2, 1, 9, 2, 0)) == 5 << 12 | 64
    # BRBSRC17_EL1: CRm 1, op2 101b
    state = on()
    for n in range(18):
        state.record_one(n + 1, 2, BranchClass.COND)
    assert state.read(sysreg(2, 1, 8, 1, 0b101)) == state.read("BRBSRC17_EL1") == 1
    assert BRBE_INSTRUCTIONS["BRB INJ"] == sysreg(1, 1, 7, 2, 5)


def test_a_record_of_each_type():
    state = on()
    state.record_one(0x1000, 0x2000, BranchClass.NEAR_REL_CALL, cycles=5)
    state.record_one(0x2010, 0x1004, BranchClass.NEAR_RET, cycles=300, flags=BranchFlag.MISPRED)
    source, target, info = (int(x) for x in state.registers()[0])
    assert (source, target) == (0x2010, 0x1004)
    assert info == 1 << 40 | (300 - 256) << 32 | TYPES["RET"] << 8 | 1 << 5 | 3
    assert int(state.registers()[1]["info"]) == 1 << 46 | TYPES["DIRECT_LINK"] << 8 | 3


def test_enables_and_filters():
    state = on()
    state.write("BRBFCR_EL1", 1 << 22 | 1 << 16)  # all but conditional branches
    state.record_one(1, 2, BranchClass.COND)
    state.record_one(3, 4, BranchClass.NEAR_RET)
    assert [int(x) for x in state.registers()["from"][:2]] == [3, 0]
    state.frozen = True
    state.record_one(5, 6, BranchClass.NEAR_RET)
    assert int(state.registers()["from"][0]) == 3 and not state.active


def test_a_transition_to_a_prohibited_level_shows_the_source_alone():
    state = on()
    state.write("BRBCR_EL1", EVERYTHING & ~2)  # EL0 alone
    state.record_one(0x10, 0xFFFF0000, BranchClass.SYSCALL, cpl_to=2)
    source, target, info = (int(x) for x in state.registers()[0])
    assert (source, target, info & 3, info >> 8 & 63) == (0x10, 0, 2, TYPES["CALL"])
    state.record_one(0xFFFF0010, 0x14, BranchClass.IRET, cpl_from=2)
    source, target, info = (int(x) for x in state.registers()[0])
    assert (source, target, info & 3, info >> 46 & 1) == (0, 0x14, 1, 1)
    assert int(state.records()[0]["from"]) == (1 << 64) - 1


def test_causes_choose_the_type():
    state = on()
    for cls, cause, name in (
        (BranchClass.EXCEPTION, Cause.DATA_FAULT, "DATA_FAULT"),
        (BranchClass.EXCEPTION, Cause.OTHER, "TRAP"), (BranchClass.INTERRUPT, Cause.FIQ, "FIQ"),
        (BranchClass.INTERRUPT, Cause.COUNTER_OVERFLOW, "IRQ"),
        (BranchClass.SOFT_INT, Cause.OTHER, "INSN_DEBUG"),
    ):
        state.record_one(1, 2, cls, flags=cause << CAUSE_SHIFT, cpl_to=2)
        assert int(state.registers()[0]["info"]) >> 8 & 63 == TYPES[name]


def test_banks():
    state = on(records=64)
    for n in range(64):
        state.record_one(n + 1, 0, BranchClass.COND)
    assert state.read("BRBSRC0_EL1") == 64
    state.write("BRBFCR_EL1", 1 << 28)
    assert state.read("BRBSRC0_EL1") == 32 and state.read("BRBSRC31_EL1") == 1
    state.write("BRBFCR_EL1", 2 << 28)
    assert state.read("BRBSRC0_EL1") == 0


def test_freeze_on_overflow():
    state = on()
    assert not state.overflow(el=0, time=7)
    state.write("BRBCR_EL1", EVERYTHING | 1 << 8)
    assert not state.overflow(el=2, time=7), "a prohibited region"
    assert state.overflow(el=0, time=7)
    assert state.frozen and state.read("BRBTS_EL1") == 7


def test_accesses_that_fault():
    state = BrbeState(BrbeConfig(el2=False))
    for name, el in (("BRBCR_EL2", 2), ("BRBCR_EL1", 0), ("BRBCR_EL9", 1)):
        with pytest.raises(Fault, match=name):
            state.read(name, el=el)
    with pytest.raises(Fault, match="read-only"):
        state.write("BRBSRC3_EL1", 1)
    with pytest.raises(Fault):
        BrbeState().read("BRBCR_EL2", el=1)


def test_host_names_at_el2():
    state = BrbeState()
    state.write("BRBCR_EL1", 1, el=2, e2h=True)
    assert state.read("BRBCR_EL2", el=2) == 1 and state.read("BRBCR_EL1") == 0
    state.write("BRBCR_EL12", 2, el=2, e2h=True)
    assert state.read("BRBCR_EL1") == 2
    with pytest.raises(Fault, match="BRBCR_EL12"):
        state.read("BRBCR_EL12", el=2)


def test_input_out_of_range():
    state = on()
    rows = batch(1, 3, [BranchClass.COND])
    rows["flags"][2] = 0xF0
    with pytest.raises(ValueError, match=r"branches\[2\]: flags"):
        state.record(rows)
    rows["flags"], rows["cpl_to"][1] = 0, 7
    with pytest.raises(ValueError, match=r"branches\[1\]: privilege level 7"):
        state.record(rows)
    assert not state.registers()["info"].any()
    with pytest.raises(ValueError, match="records"):
        BrbeConfig(records=12)
