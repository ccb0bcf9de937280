"""RISC-V's control transfer records: the specification's words, and the twin bit by bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lbrcore import BRANCH_DTYPE, BranchClass, BranchFlag, Fault
from pylbr.sister.config import CtrConfig
from pylbr.sister.ctr import CtrState
from pylbr.sister.ctr_rows import CTR_ROWS, ENTRIES_FIRST, TYPES
from pylbr.sister.details import CAUSE_SHIFT, LINK, Cause
from pylbr.sister.reference_ctr import ReferenceCtr

WORD = st.integers(0, (1 << 64) - 1)
M, S, U, VS, VU = 0, 2, 3, 6, 7
CONFIGS = st.builds(
    CtrConfig, depths=st.sampled_from([(16,), (16, 32), (32, 64), (16, 32, 64, 128, 256)]),
    rasemu=st.booleans(), external_traps=st.booleans(), type_filter=st.booleans(),
    misp=st.booleans(), cycles=st.booleans(), exponent_bits=st.integers(0, 4),
    sscofpmf=st.booleans(), hypervisor=st.booleans(),
)
CONTROLS = st.one_of(WORD, st.integers(0, 0x1FFF), st.builds(
    lambda low, bit: low | 1 << bit, st.integers(0, 0x1FFF), st.integers(32, 47)))


@st.composite
def batches(draw):
    classes = draw(st.lists(st.sampled_from(list(BranchClass)), min_size=1, max_size=6))
    levels = draw(st.sampled_from([(U,), (S, U), (M, S, U), (VS, VU), (M, S, U, VS, VU)]))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    n = draw(st.integers(0, 60))
    rows = np.zeros(n, BRANCH_DTYPE)
    rows["from"], rows["to"] = rng.integers(0, 1 << 64, (2, n), dtype="u8")
    rows["class"] = rng.choice(classes, n)
    rows["cycles"] = rng.choice([0, 1, 4095, 4096, 8191, 1 << 20, (1 << 32) - 1], n)
    rows["flags"] = rng.integers(0, 16, n)
    # What freezes is rare, or nothing else would happen.
    rows["flags"] |= np.where(rng.random(n) < 0.1, rng.integers(0, 9, n), 0).astype(
        "u1") << CAUSE_SHIFT
    rows["cpl_from"], rows["cpl_to"] = rng.choice(levels, (2, n))
    return rows


class Machine(RuleBasedStateMachine):
    """Whatever is written and recorded, the compiled state and its twin agree."""

    @initialize(config=CONFIGS)
    def start(self, config):
        self.state, self.twin = CtrState(config), ReferenceCtr(config)

    @rule(name=st.sampled_from(["mctrctl", "sctrctl", "vsctrctl"]), value=CONTROLS)
    def control(self, name, value):
        if name == "vsctrctl" and not self.state.config.hypervisor:
            with pytest.raises(Fault):
                self.state.write(name, value)
            return
        self.state.write(name, value)
        self.twin.write_control(name, value)

    @rule(value=WORD)
    def depth(self, value):
        self.state.write("sctrdepth", value)
        self.twin.write_depth(value)

    @rule(value=st.one_of(WORD, st.integers(0, 255)))
    def status(self, value):
        self.state.write("sctrstatus", value)
        self.twin.write_status(value)

    @rule()
    def thaw(self):
        self.state.frozen = self.twin.frozen = False

    @rule(rows=batches())
    def record(self, rows):
        if not self.state.config.hypervisor and (rows["cpl_from"] | rows["cpl_to"] > 3).any():
            with pytest.raises(ValueError, match="privilege level"):
                self.state.record(rows)
            return
        self.state.record(rows)
        self.twin.record(rows)

    @rule(logical=st.integers(0, 255), which=st.integers(0, 2), value=WORD)
    def entry(self, logical, which, value):
        self.state.write("siselect", ENTRIES_FIRST + logical)
        self.state.write(("sireg", "sireg2", "sireg3")[which], value)
        self.twin.write_entry(logical, which, value)

    @rule()
    def sctrclr(self):
        self.state.sctrclr()
        self.twin.sctrclr()

    @rule()
    def copied(self):
        self.state = self.state.copy()

    @invariant()
    def equal(self):
        state, twin = self.state, self.twin
        assert state.depth == twin.depth
        assert [tuple(int(x) for x in row) for row in state.registers()] == twin.registers()
        assert [tuple(int(x) for x in row) for row in state.records()] == twin.records()
        assert state.read("mctrctl") == twin.mctrctl
        assert state.read("sctrstatus") == twin.wrptr | twin.frozen << 31
        assert 16 << state.read("sctrdepth") == twin.depth
        if state.config.hypervisor:
            assert state.read("vsctrctl") == twin.vsctrctl
        assert state.cycles == (twin.counter if twin.ccv else None)
        for logical in (0, 15, 16, 255):
            state.write("siselect", ENTRIES_FIRST + logical)
            assert tuple(state.read(f"sireg{n}") for n in ("", "2", "3")) == (
                twin.read_entry(logical))


Machine.TestCase.settings = settings(max_examples=80, stateful_step_count=15, deadline=None)
test_twin = Machine.TestCase


def test_twin_over_all_transitions():
    """Every trap and return between all modes, under many controls."""
    rng = np.random.default_rng(17)
    classes = [BranchClass.SYSCALL, BranchClass.INTERRUPT, BranchClass.IRET,
               BranchClass.EXCEPTION, BranchClass.NEAR_REL_CALL]
    recorded = 0
    for _ in range(300):
        state, twin = CtrState(), ReferenceCtr(CtrConfig())
        for name in ("mctrctl", "vsctrctl"):
            # Filters are rare, enables are not.
            value = int(rng.integers(0, 1 << 10)) & ~0x80
            value |= int(rng.random() < 0.3) << int(rng.integers(33, 48))
            state.write(name, value)
            twin.write_control(name, value)
        rows = np.zeros(40, BRANCH_DTYPE)
        rows["from"], rows["to"] = rng.integers(0, 1 << 64, (2, 40), dtype="u8")
        rows["class"], rows["flags"] = rng.choice(classes, 40), rng.choice([0, 4], 40)
        rows["cycles"] = rng.integers(0, 100000, 40)
        rows["cpl_from"], rows["cpl_to"] = rng.choice([M, S, U, VS, VU], (2, 40))
        state.record(rows)
        twin.record(rows)
        assert [tuple(int(x) for x in r) for r in state.registers()] == twin.registers()
        recorded += len(kinds(state))
    assert recorded > 2000


def on(control=0x3, **config):
    state = CtrState(CtrConfig(**config))
    state.write("mctrctl", control)
    return state


def kinds(state):
    names = {code: name for name, code in TYPES.items()}
    return [names[int(r["info"]) & 15] for r in state.registers() if int(r["from"]) & 1]


@given(st.integers(0, (1 << 27) - 1))
@settings(max_examples=200, deadline=None)
def test_cycles_are_encoded_as_the_specification_does(counter):
    cc = ReferenceCtr.encode(counter)
    unit = 1 << max((cc >> 12) - 1, 0)
    assert ReferenceCtr.decode(cc) == counter // unit * unit


@pytest.mark.parametrize(("bits", "most"), [(0, 4095), (1, 8191), (2, 32764), (3, 524224),
                                            (4, 134201344)])
def test_the_most_that_a_count_can_say(bits, most):
    """The specification's table of counter sizes."""
    state = on(exponent_bits=bits)
    state.record_one(2, 4, BranchClass.COND)
    state.record_one(2, 4, BranchClass.COND, cycles=(1 << 32) - 1)
    data = int(state.registers()[0]["info"])
    assert data >> 15 & 1 and ReferenceCtr.decode(data >> 16 & 0xFFFF) == most


def test_numbers_of_registers():
    """As the toolchains spell them."""
    numbers = {row.name: row.number for row in CTR_ROWS}
    known = {"sctrctl": 0x14E, "sctrstatus": 0x14F, "sctrdepth": 0x15F, "vsctrctl": 0x24E,
             "mctrctl": 0x34E, "siselect": 0x150, "sireg": 0x151, "sireg3": 0x153,
             "sireg4": 0x155, "sireg6": 0x157, "vsireg": 0x251}
    assert all(numbers[name] == number for name, number in known.items())


def test_types():
    state = on()
    for cls, flags in ((BranchClass.COND, 0), (BranchClass.NEAR_RET, LINK),
                       (BranchClass.NEAR_IND_JMP, LINK), (BranchClass.NEAR_REL_JMP, 0),
                       (BranchClass.ZERO_CALL, 0), (BranchClass.NOT_TAKEN, 0)):
        state.record_one(2, 4, cls, flags=flags)
    assert kinds(state) == ["DIRECT_CALL", "DIRECT_JUMP", "OTHER_INDIRECT", "SWAP", "TAKEN"]
    state.write("mctrctl", 0x3 | 1 << 36)
    state.record_one(2, 4, BranchClass.NOT_TAKEN)
    assert kinds(state)[0] == "NOT_TAKEN"
    assert int(state.records()[0]["info"]) == BranchClass.NOT_TAKEN << 48, "BR_TYPE: COND"


def test_a_record():
    state = on()
    state.record_one(0x1000, 0x2000, BranchClass.COND, cycles=3)
    state.record_one(0x2002, 0x3004, BranchClass.NEAR_RET, cycles=5000,
                     flags=BranchFlag.MISPRED)
    newest, older = ([int(x) for x in r] for r in state.registers()[:2])
    assert older == [0x1001, 0x2000, TYPES["TAKEN"]], "CCV is 0 after a write of control"
    assert newest == [0x2003, 0x3005, TYPES["RETURN"] | 1 << 15 | (1 << 12 | 5000 - 4096) << 16]


def test_return_address_stack():
    state = on(0x3 | 1 << 7)
    state.record_one(0x10, 0x100, BranchClass.NEAR_REL_CALL)
    state.record_one(0x110, 0x200, BranchClass.NEAR_IND_CALL)
    state.record_one(0x120, 0x130, BranchClass.COND)
    state.record_one(0x210, 0x114, BranchClass.NEAR_RET)
    assert [int(x) for x in state.records()["from"][:2]] == [0x10, 0]
    # The popped entry is the oldest now, without V.
    state.write("siselect", ENTRIES_FIRST + 255)
    assert state.read("sireg") == 0x110
    state.record_one(0x118, 0x300, BranchClass.NEAR_RET, flags=LINK)
    assert [int(x) for x in state.records()["from"][:2]] == [0x118, 0], "a swap overwrites"


def test_traps():
    state = on(0x1)  # U alone
    state.record_one(2, 0x80, BranchClass.SYSCALL, cpl_to=S)
    assert kinds(state) == []
    state.record_one(0x90, 6, BranchClass.IRET, cpl_from=S)
    assert kinds(state) == [], "from a disabled mode"
    state.write("mctrctl", 0x1 | 1 << 8)  # STE
    state.record_one(2, 0x80, BranchClass.SYSCALL, cpl_to=S)
    assert kinds(state) == ["EXCEPTION"] and int(state.registers()[0]["to"]) == 0
    state.record_one(2, 0x80, BranchClass.SYSCALL, cpl_to=M)
    assert len(kinds(state)) == 1, "needs MTE and STE"
    state.write("mctrctl", 0x2)  # S alone
    state.record_one(2, 0x80, BranchClass.INTERRUPT, cpl_to=S)
    assert int(state.registers()[0]["from"]) == 1
    assert int(state.records()[0]["from"]) == (1 << 64) - 1


@pytest.mark.parametrize(("bit", "cls", "cause"), [
    (12, BranchClass.INTERRUPT, Cause.COUNTER_OVERFLOW), (11, BranchClass.SOFT_INT, Cause.OTHER),
    (11, BranchClass.EXCEPTION, Cause.BREAKPOINT),
])
def test_freeze(bit, cls, cause):
    state = on(0x3 | 1 << bit)
    state.record_one(2, 4, BranchClass.COND)
    state.record_one(6, 8, cls, flags=cause << CAUSE_SHIFT, cpl_to=S)
    state.record_one(10, 12, BranchClass.COND)
    assert state.frozen and state.read("sctrstatus") == 1 << 31 | 1 and kinds(state) == ["TAKEN"]


def test_a_guest_has_its_own_control():
    state = on(0)
    state.write("sctrctl", 0x3, level=VS)
    assert state.read("vsctrctl") == 3 and state.read("sctrctl") == 0
    state.record_one(2, 4, BranchClass.COND, cpl_from=VU, cpl_to=VU)
    state.record_one(6, 8, BranchClass.COND)
    assert int(state.registers()[0]["from"]) == 3
    state.write("siselect", ENTRIES_FIRST, level=VS)
    assert state.read("sireg", level=VS) == 3 and state.read("vsireg") == 3
    assert state.read("siselect") == 0
    for name, level in (("sctrdepth", VS), ("vsctrctl", VS), ("mctrctl", S), ("sctrctl", U)):
        with pytest.raises(Fault, match="instruction exception"):
            state.read(name, level=level)


def test_depths():
    state = on()
    assert state.depth == 256
    for n in range(300):
        state.record_one(2 * n, 4, BranchClass.COND)
    assert int(state.registers()[255]["from"]) == 2 * 44 + 1
    state.write("sctrdepth", 7)
    assert state.depth == 256, "a reserved value"
    state.write("sctrdepth", 0)
    assert state.depth == 16 and len(state.records()) == 16
    state.write("siselect", ENTRIES_FIRST + 16)
    assert state.read("sireg") == 0
    with pytest.raises(ValueError, match="depths"):
        CtrConfig(depths=(8,))
