"""Core and reference twin are equal bit by bit, whatever happens to them."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lbrcore import (
    BRANCH_DTYPE,
    CTL_ALL,
    INFO_ALL,
    SELECT_ALL_CALL_STACK,
    BranchClass,
    Fault,
    LbrConfig,
    LbrState,
    Quirk,
    xsave,
)
from lbrcore.reference import ReferenceLbr, ReferenceXsave
from tests.manual import RECORD_ALL

WORD = st.integers(0, (1 << 64) - 1)
ADDRESS = st.one_of(st.integers(1, 64), st.integers(1, (1 << 47) - 1), WORD)
DEFINED_CTL = st.integers(0, (1 << 11) - 1).map(lambda n: n & 0xF | n >> 4 << 16)

CONFIGS = st.one_of(
    st.builds(
        LbrConfig, depth_bitmap=st.integers(1, 15), linear_width=st.sampled_from([32, 48, 57, 64]),
        event_counters=st.sampled_from([0, 0xF, 0x5]),
        ctl_mask=st.sampled_from([CTL_ALL, CTL_ALL & ~0x6, CTL_ALL & ~0x7F0000, CTL_ALL & ~0x8]),
        info_mask=st.sampled_from([INFO_ALL, 0xFF0000000000FFFF, 0x8000000000000000, 0]),
    ),
    st.builds(
        LbrConfig.legacy, st.sampled_from([4, 8, 16, 32]),
        select_mask=st.sampled_from([SELECT_ALL_CALL_STACK, 0x1FF, 0]),
        info_mask=st.sampled_from([0xE00000000000FFFF, 0]), quirks=st.sampled_from([0, Quirk(1)]),
    ),
    st.builds(LbrConfig, depth=st.integers(1, 5)),
)


def mostly(usual, *others):
    """`usual` in nine cases of ten."""
    return st.integers(0, 9).flatmap(
        lambda n: st.just(usual) if n else st.sampled_from([usual, *others]))


@st.composite
def branch_batches(draw):
    """Batches that dwell on few classes, so that filters and pops meet often."""
    classes = draw(st.lists(st.sampled_from(list(BranchClass)), min_size=1, max_size=5))
    n = draw(st.one_of(st.integers(0, 40), st.integers(90, 400)))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    batch = np.zeros(n, BRANCH_DTYPE)
    batch["from"] = rng.integers(0, 1 << 64, n, dtype="u8")
    batch["to"] = rng.integers(0, 1 << 64, n, dtype="u8")
    batch["class"] = rng.choice(classes, n)
    batch["cycles"] = rng.choice([0, 1, 7, 0x8000, 0xFFFFFFFF], n)
    batch["flags"] = rng.integers(0, 8, n)
    levels = draw(st.sampled_from([[0], [3], [0, 3], [0, 1, 2, 3]]))
    batch["cpl_from"] = rng.choice(levels, n)
    batch["cpl_to"] = rng.choice(levels, n)
    batch["events"] = rng.choice([0, 1, 2, 255], (n, 4))
    return batch


@st.composite
def call_batches(draw):
    """What user code does to a call stack: deep enough to overflow, and back to empty."""
    batch = draw(branch_batches())
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    batch["class"] = rng.choice(
        [BranchClass.NEAR_REL_CALL, BranchClass.NEAR_RET, BranchClass.COND], len(batch),
        p=draw(st.sampled_from([(0.6, 0.2, 0.2), (0.4, 0.4, 0.2), (0.2, 0.6, 0.2)])))
    batch["cpl_from"] = batch["cpl_to"] = 3
    return batch


class TwinMachine(RuleBasedStateMachine):
    """Any sequence of branches, control, depth and record writes, packs and freezes."""

    @initialize(config=CONFIGS)
    def start(self, config):
        self.config = config
        self.core, self.twin = LbrState(config), ReferenceLbr(config)
        self.legacy = config.flavour == 1
        if self.legacy:
            self.core.enable = True
            self.twin.set_enable(True)

    def both(self, core_call, twin_call):
        """Both succeed, or both fault."""
        outcomes = []
        for call in (core_call, twin_call):
            try:
                call()
                outcomes.append("done")
            except Fault:
                outcomes.append("fault")
        assert outcomes[0] == outcomes[1]

    @rule(batch=branch_batches())
    def record(self, batch):
        self.core.record(batch)
        self.twin.record(batch)

    @rule(batch=branch_batches())
    def record_columns(self, batch):
        columns = {name: np.ascontiguousarray(batch[name]) for name in BRANCH_DTYPE.names}
        self.core.record_columns(
            columns["from"], columns["to"], columns["class"], cycles=columns["cycles"],
            flags=columns["flags"], cpl_from=columns["cpl_from"], cpl_to=columns["cpl_to"],
            events=columns["events"].view("u4").reshape(-1),
        )
        self.twin.record(batch)

    @rule(batch=branch_batches())
    def record_singly(self, batch):
        for b in batch:
            self.core.record_one(
                b["from"], b["to"], b["class"], cycles=b["cycles"], flags=b["flags"],
                cpl_from=b["cpl_from"], cpl_to=b["cpl_to"], events=tuple(b["events"]))
        self.twin.record(batch)

    @rule(value=st.one_of(DEFINED_CTL, st.integers(0, 0x3FF), WORD), on=st.booleans())
    def write_ctl(self, value, on):
        value |= on and not self.legacy
        self.both(lambda: setattr(self.core, "ctl", value), lambda: self.twin.write_ctl(value))

    @rule(classes=st.integers(0, 127))
    def write_plain_ctl(self, classes):
        """Both rings on: the commonest setting."""
        if not self.legacy:
            value = (classes << 16 | 7) & self.config.ctl_mask
            self.core.ctl = value
            self.twin.write_ctl(value)

    @rule(batch=call_batches())
    def follow_calls(self, batch):
        """Call-stack mode, branch by branch."""
        value = (0x1C5 | 0x200 if self.legacy else 0x38000D) & self.config.ctl_mask
        self.core.ctl = value
        self.twin.write_ctl(value)
        self.record_singly(batch)

    @rule(depth=st.one_of(st.sampled_from([8, 16, 24, 32]), st.integers(0, 70), WORD))
    def write_depth(self, depth):
        if not self.legacy:
            self.both(lambda: setattr(self.core, "depth", depth),
                      lambda: self.twin.write_depth(depth))

    @rule(tos=st.integers(0, 40))
    def write_tos(self, tos):
        if self.legacy:
            self.both(lambda: setattr(self.core, "tos", tos), lambda: self.twin.write_tos(tos))

    @rule(on=st.booleans())
    def enable(self, on):
        if self.legacy:
            self.core.enable = on
            self.twin.set_enable(on)

    @rule(on=st.booleans())
    def freeze(self, on):
        self.core.frozen = on
        self.twin.set_frozen(on)

    @rule(mask=st.integers(0, 15))
    def event_mask(self, mask):
        mask &= self.config.event_counters
        self.core.event_mask = mask
        self.twin.write_event_mask(mask)

    @rule(i=st.integers(0, 40), entry=st.tuples(ADDRESS, ADDRESS, WORD))
    def write_entry(self, i, entry):
        self.both(lambda: self.core.write_entry(i, *entry),
                  lambda: self.twin.write_entry(i, *entry))

    @rule(entry=st.tuples(ADDRESS, ADDRESS, WORD))
    def write_ler(self, entry):
        self.core.ler = entry
        self.twin.raw_ler = entry

    @rule()
    def reset(self):
        self.core.reset()
        self.twin.reset()

    @rule()
    def clear(self):
        self.core.clear()
        self.twin.clear()

    @rule()
    def copy(self):
        self.core = self.core.copy()

    @rule(rfbm=st.sampled_from([0x8000, 0x8003, 0x9803, 3]), fill=st.integers(0, 255),
          xinuse=WORD, aligned=st.sampled_from([0, 1 << 15, 1 << 12 | 1 << 15]))
    def xsaves(self, rfbm, fill, xinuse, aligned):
        if self.legacy:
            return
        sizes = {11: 16, 12: 24}
        areas = [bytearray([fill]) * 2048, bytearray([fill]) * 2048]
        xsave.xsaves(self.core, areas[0], rfbm, xinuse=xinuse, sizes=sizes, aligned=aligned)
        ReferenceXsave(self.twin).xsaves(
            areas[1], rfbm, xinuse=xinuse, sizes=sizes, aligned=aligned)
        assert areas[0] == areas[1]

    @rule(data=st.data(), depth=st.one_of(st.none(), st.integers(0, 70), WORD),
          ctl=st.one_of(DEFINED_CTL, DEFINED_CTL, WORD), rfbm=mostly(0x8003, 0x8000, 0x3),
          xstate_bv=mostly(0x8003, 0x8000, 3, 0, 1 << 63, 0x9800),
          xcomp_bv=mostly(0x8003, 0x8000, 3, 0x9803), compacted=mostly(True, False),
          dirt=mostly(None, 530, 575, 576 + 807, 576 + 808))
    def xrstors(self, data, depth, ctl, rfbm, xstate_bv, xcomp_bv, compacted, dirt):
        if self.legacy:
            return
        image = bytearray(data.draw(st.binary(min_size=64, max_size=64))) * 24
        image[512:576] = bytes(64)
        for at, value in ((512, xstate_bv), (520, xcomp_bv | compacted << 63), (576, ctl),
                          (584, self.core.depth if depth is None else depth)):
            image[at:at + 8] = value.to_bytes(8, "little")
        image[576 + 808:] = bytes(len(image) - 576 - 808)
        if dirt is not None:
            image[dirt] ^= 0x55
        sizes = {11: 16, 12: 24, 15: 816}
        self.both(
            lambda: xsave.xrstors(self.core, image, rfbm, supported=0x9803, sizes=sizes),
            lambda: ReferenceXsave(self.twin).xrstors(
                image, rfbm, supported=0x9803, sizes=sizes))

    @invariant()
    def equal(self):
        if not hasattr(self, "core"):
            return
        core, twin = self.core, self.twin
        assert [tuple(int(x) for x in e) for e in core.records()] == twin.records()
        assert core.ler == twin.ler
        assert (core.ctl, core.depth, core.active) == (twin.ctl, twin.depth, twin.active)
        assert core.cycles == twin.cycles
        if self.legacy:
            assert core.tos == twin.tos
        else:
            assert xsave.component(core) == ReferenceXsave(twin).component()


TestTwin = TwinMachine.TestCase
TestTwin.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)


class LongTwinMachine(TwinMachine):
    """The same for longer."""


TestTwinLong = pytest.mark.slow(LongTwinMachine.TestCase)
TestTwinLong.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)


@settings(max_examples=100, deadline=None)
@given(batch=branch_batches(), cuts=st.lists(st.integers(0, 400), max_size=4), ctl=DEFINED_CTL)
def test_any_split_of_a_batch_equals_the_batch(batch, cuts, ctl):
    whole, parts = LbrState(LbrConfig(event_counters=15)), LbrState(LbrConfig(event_counters=15))
    whole.ctl = parts.ctl = ctl | 1
    whole.record(batch)
    edges = sorted({0, len(batch), *(min(c, len(batch)) for c in cuts)})
    for start, stop in zip(edges, edges[1:], strict=False):
        parts.record(batch[start:stop])
    assert (whole.records() == parts.records()).all()
    assert (whole.cycles, whole.ler) == (parts.cycles, parts.ler)


@settings(max_examples=300, deadline=None)
@given(climbs=st.lists(st.integers(-12, 12), max_size=8), before=st.integers(0, 40),
       depth=st.sampled_from([1, 4, 8, 16]), legacy=st.booleans())
def test_climbs_and_falls_of_the_call_stack(climbs, before, depth, legacy):
    """Long batches in which calls and returns are rare, on a stack that holds something."""
    config = LbrConfig.legacy(depth) if legacy else LbrConfig(depth=depth)
    core, twin = LbrState(config), ReferenceLbr(config)
    ctl = 0x1C5 | 0x200 if legacy else 0x38000D
    core.ctl = ctl
    twin.write_ctl(ctl)
    if legacy:
        core.enable = True
        twin.set_enable(True)
    classes = [BranchClass.NEAR_REL_CALL] * before
    for climb in climbs:
        step = BranchClass.NEAR_IND_CALL if climb > 0 else BranchClass.NEAR_RET
        classes += [BranchClass.COND] * 20 + [step] * abs(climb)
    batch = np.zeros(len(classes), BRANCH_DTYPE)
    batch["class"], batch["from"], batch["to"] = classes, np.arange(len(classes)) + 1, 7
    batch["cycles"], batch["cpl_to"] = 3, 3
    for part in (batch[:before], batch[before:]):
        core.record(part)
        twin.record(part)
    assert [tuple(map(int, e)) for e in core.records()] == twin.records()
    assert core.cycles == twin.cycles
    if legacy:
        assert core.tos == twin.tos


@settings(max_examples=100, deadline=None)
@given(order=st.lists(st.sampled_from(["push", "pop", "event", "nothing"]), max_size=12))
@example(order=["push", "event", "pop", "event"])
@example(order=["event", "push", "nothing", "event", "pop", "pop", "nothing", "event"])
def test_ler_over_a_stack_that_empties(order):
    """An event on an empty stack leaves LER to an earlier event, in long batches too."""
    classes = {"push": BranchClass.NEAR_REL_CALL, "pop": BranchClass.NEAR_RET,
               "event": BranchClass.INTERRUPT, "nothing": BranchClass.COND}
    kinds = [classes[name] for name in order for _ in range(30 if name == "nothing" else 1)]
    batch = np.zeros(len(kinds) + 96, BRANCH_DTYPE)
    batch["class"][:len(kinds)] = kinds
    batch["from"], batch["to"] = np.arange(len(batch)) + 1, 5
    core, twin = LbrState(LbrConfig()), ReferenceLbr(LbrConfig())
    core.ctl = 0x38000F
    twin.write_ctl(0x38000F)
    core.record(batch)
    twin.record(batch)
    assert core.ler == twin.ler
    assert [tuple(map(int, e)) for e in core.records()] == twin.records()


@pytest.mark.parametrize("change", ["tos", "depth", "ler", "write", "off and on", "thaw"])
def test_what_a_change_does_to_the_counts(change):
    """Cycles and events pending for the next record: a restart drops them, the rest does not."""
    config = (LbrConfig.legacy(8) if change == "tos"
              else LbrConfig(event_counters=15, info_mask=INFO_ALL))
    core, twin = LbrState(config), ReferenceLbr(config)
    if config.flavour:
        core.enable = True
        twin.set_enable(True)
    core.ctl = config.ctl_mask & 0x200007 & ~(0xFF if config.flavour else 0)
    twin.write_ctl(core.ctl)
    pending = {"cycles": 9, "events": (1, 2, 3, 0)}
    for facility in (core, twin):
        facility.record_one(1, 2, BranchClass.NEAR_RET, cycles=4)
        facility.record_one(3, 4, BranchClass.NOT_TAKEN, **pending)
        if change == "tos":
            facility.tos = 5
        elif change == "depth":
            facility.write_depth(8) if facility is twin else setattr(facility, "depth", 8)
        elif change == "ler":
            setattr(facility, "raw_ler" if facility is twin else "ler", (1, 2, 3))
        elif change == "write":
            facility.write_entry(0, 7, 8, 9)
        else:
            for on in (True, False):
                if change == "thaw" and facility is twin:
                    twin.set_frozen(on)
                elif change == "thaw":
                    core.frozen = on
                else:
                    ctl = config.ctl_mask & (0x200006 if on else 0x200007)
                    twin.write_ctl(ctl) if facility is twin else setattr(core, "ctl", ctl)
    assert core.cycles == twin.cycles == (None if change in ("off and on", "thaw") else 9)
    for facility in (core, twin):
        facility.record_one(5, 6, BranchClass.NEAR_RET, cycles=1)
    assert [tuple(map(int, e)) for e in core.records()] == twin.records()
    if change != "tos":
        expected = 0 if change in ("off and on", "thaw") else 0b00_11_10_01
        assert core.read_entry(0)[2] >> 32 & 0xFF == expected


@pytest.mark.parametrize("depth", [0, 8, 16, 63, 64, 1 << 40])
def test_a_restored_component_of_another_depth(depth):
    """Reserved bits of DEPTH fault; any other number zeroes the records and leaves XINUSE."""
    image = bytearray(808)
    image[8:16] = depth.to_bytes(8, "little")
    core, twin = LbrState(LbrConfig()), ReferenceLbr(LbrConfig())
    for restore in (lambda: xsave.restore_component(core, image),
                    lambda: ReferenceXsave(twin).restore_component(image)):
        if depth >= 64:
            with pytest.raises(Fault):
                restore()
        else:
            restore()
    area = bytearray(1384)
    xsave.xsaves(core, area, 0x8003)
    assert ReferenceXsave(twin).initial() and area[512:520] == bytes(8)
    image[8:16] = (32).to_bytes(8, "little")
    xsave.restore_component(core, image)
    xsave.xsaves(core, area, 0x8003)
    assert area[512:520] == (0x8000).to_bytes(8, "little"), "all zero, but in use"


@pytest.mark.parametrize("saved", [8, 16, 24, 32])
@pytest.mark.parametrize("current", [8, 16, 24, 32])
def test_a_component_goes_into_a_state_of_any_depth(saved, current):
    """As `component` gives it: 40 + 24 * depth bytes."""
    source, core, twin = LbrState(LbrConfig()), LbrState(LbrConfig()), ReferenceLbr(LbrConfig())
    source.ctl, source.depth, source.ler = RECORD_ALL, saved, (1, 2, 3)
    source.record_one(5, 6, BranchClass.COND)
    core.depth = current
    twin.write_depth(current)
    xsave.restore_component(core, xsave.component(source))
    ReferenceXsave(twin).restore_component(xsave.component(source))
    assert (core.ctl, core.depth, core.ler) == (RECORD_ALL, current, (1, 2, 3))
    assert core.records().tolist() == twin.records()
    assert core.read_entry(0)[0] == (5 if saved == current else 0)


@pytest.mark.parametrize("count", [1, 40, 200])
def test_cyc_cnt_valid_needs_cyc_cnt(count):
    """A facility without CYC_CNT never sets CYC_CNT_VALID, by whichever path a batch goes."""
    config = LbrConfig(info_mask=0xFF << 56)
    core, twin = LbrState(config), ReferenceLbr(config)
    core.ctl = RECORD_ALL
    twin.write_ctl(RECORD_ALL)
    branches = np.zeros(count, BRANCH_DTYPE)
    branches["to"], branches["cycles"] = np.arange(count) + 1, 7
    core.record(branches)
    twin.record(branches)
    assert core.records().tolist() == twin.records()


def test_bytes_after_the_component_must_be_zero():
    image = bytearray(816)
    image[8] = 32
    state = LbrState(LbrConfig())
    xsave.restore_component(state, image)
    image[808] = 1
    with pytest.raises(Fault, match="bytes after 807"):
        xsave.restore_component(state, image)


def test_every_control_value_decides_every_branch_as_the_twin_does():
    """All 2,048 CTL and 1,024 LBR_SELECT values x 16 classes x 4 transitions."""
    cells = [(cls, source, target) for cls in BranchClass for source in (0, 3)
             for target in (0, 3)]
    arch, legacy = LbrConfig(), LbrConfig.legacy(16)
    for config, values in (
        (arch, [n & 0xF | n >> 4 << 16 for n in range(2048)]),
        (legacy, list(range(1024))),
    ):
        core, twin = LbrState(config), ReferenceLbr(config)
        if config.flavour:
            core.enable = True
            twin.set_enable(True)
        for value in values:
            core.ctl = value
            twin.write_ctl(value)
            for place in range(2):
                core.clear()
                twin.clear()
                core.write_entry(0, 1, 2, 3)
                twin.write_entry(0, 1, 2, 3)
                for cls, source, target in cells[place::2]:
                    core.record_one(5 + cls, 9, cls, cpl_from=source, cpl_to=target)
                    twin.record_one(5 + cls, 9, cls, cpl_from=source, cpl_to=target)
                assert [tuple(map(int, e)) for e in core.records()] == twin.records(), hex(value)
