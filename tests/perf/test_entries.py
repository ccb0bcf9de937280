import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrcore import ENTRY_DTYPE, BranchClass
from pylbr.perf import _entries, reference
from pylbr.perf.abi import BranchSample, BranchType, entry_flags
from pylbr.perf.batch import INFO_UNCOUNTED, SampleBatch
from pylbr.perf.entries import perf_batches, perf_samples
from tests.manual import INFO_CYC_CNT_VALID

USER_ANY = int(BranchSample.USER | BranchSample.ANY)
VALID = INFO_CYC_CNT_VALID
LEGACY = 0xE000_0000_0000_FFFF  # mispredict, TSX and cycles; no valid bit, no type
KERNEL_ADDRESS = 0xFFFF_FFFF_8100_0000

words = st.integers(0, 2**64 - 1)
addresses = st.one_of(
    st.just(0), st.just(2**64 - 1), st.integers(1, 2**47 - 1), st.integers(2**63, 2**64 - 2)
)
info_masks = st.one_of(st.just(INFO_UNCOUNTED), st.just(LEGACY), st.just(0), words)


def drawn(draw, dtype, n, element):
    return np.array(draw(st.lists(element, min_size=n, max_size=n)), dtype)


@st.composite
def batches(draw):
    n, depth = draw(st.integers(0, 5)), draw(st.integers(1, 6))
    entries = drawn(draw, ENTRY_DTYPE, n * depth, st.tuples(addresses, addresses, words))
    classes = None
    if draw(st.booleans()):
        classes = drawn(draw, "u1", n * depth, st.one_of(st.just(11), st.integers(0, 255)))
    return SampleBatch.build(
        drawn(draw, "u8", n, words), entries.reshape(n, depth),
        nr=drawn(draw, "u4", n, st.integers(0, depth)), classes=classes,
        info_mask=draw(info_masks),
    )  # fmt: skip


def one_stack(entries, **columns):
    return SampleBatch.build([0x401000], np.array([entries], ENTRY_DTYPE), **columns)


def flags(info, mask=INFO_UNCOUNTED, chosen=USER_ANY, cls=None):
    classes = None if cls is None else np.array([cls], "u1")
    batch = one_stack([(0x401000, 0x401010, info)], info_mask=mask, classes=classes)
    return int(perf_samples(batch, chosen).entries["flags"][0])


@given(batches(), st.integers(0, 2**20 - 1))
def test_twins_agree(batch, branch_sample_type):
    fast = _entries.convert(batch, branch_sample_type)
    slow = reference.convert(batch, branch_sample_type)
    for a, b in zip(fast, slow, strict=True):
        assert (a is None) == (b is None)
        assert a is None or a.tolist() == b.tolist()


@pytest.mark.parametrize(
    ("code", "kind"),
    [(0, BranchType.COND), (1, BranchType.IND), (2, BranchType.UNCOND), (3, BranchType.IND_CALL),
     (4, BranchType.CALL), (5, BranchType.RET), (8, BranchType.UNKNOWN)],
)  # fmt: skip
def test_type_comes_from_br_type(code, kind):
    assert flags(code << 56) == entry_flags(predicted=True, kind=kind)


@pytest.mark.parametrize(
    ("cls", "kind"),
    [(BranchClass.SYSCALL, BranchType.SYSCALL), (BranchClass.SYSRET, BranchType.SYSRET),
     (BranchClass.IRET, BranchType.ERET), (BranchClass.INTERRUPT, BranchType.IRQ),
     (BranchClass.EXCEPTION, BranchType.IRQ), (BranchClass.SOFT_INT, BranchType.UNKNOWN),
     (BranchClass.TSX_ABORT, BranchType.UNKNOWN), (BranchClass.FAR_BRANCH, BranchType.UNKNOWN)],
)  # fmt: skip
def test_class_tells_the_members_of_other_branch_apart(cls, kind):
    assert flags(8 << 56, cls=cls) == entry_flags(predicted=True, kind=kind)


def test_a_part_without_br_type_gets_a_type_only_on_request():
    assert flags(7, LEGACY, cls=BranchClass.NEAR_RET) == entry_flags(predicted=True, cycles=7)
    saved = USER_ANY | BranchSample.TYPE_SAVE
    assert flags(7, LEGACY, saved, BranchClass.NEAR_RET) == entry_flags(
        predicted=True, cycles=7, kind=BranchType.RET
    )


def test_cycles_count_only_when_valid():
    kind = BranchType.COND
    assert flags(0xFFFF) == entry_flags(predicted=True, kind=kind)
    assert flags(VALID | 0xFFFF) == entry_flags(predicted=True, cycles=0xFFFF, kind=kind)


def test_flags_that_the_part_lacks_are_neither_one_nor_the_other():
    assert flags(7 << 61, mask=0) == 0
    assert flags(7 << 61) == entry_flags(
        mispredicted=True, in_tx=True, abort=True, kind=BranchType.COND
    )


def test_stack_ends_at_zero_and_loses_what_was_filtered():
    batch = one_stack([
        (0x401000, 1, 0), (2**64 - 1, 2, 0), (KERNEL_ADDRESS, 3, 0), (0x401020, 4, 0), (0, 0, 0),
        (0x401030, 5, 0),
    ])  # fmt: skip
    both = USER_ANY | BranchSample.KERNEL
    assert perf_samples(batch, USER_ANY).entries["to"].tolist() == [1, 4]
    assert perf_samples(batch, both).entries["to"].tolist() == [1, 3, 4]


@pytest.mark.parametrize(
    ("chosen", "targets"),
    [(BranchSample.ANY, [1, 0, 2, 0]), (USER_ANY | BranchSample.KERNEL, [1, 0, 2, 0]),
     (USER_ANY, [1, 2]), (BranchSample.ANY | BranchSample.TYPE_SAVE, [1, 2]),
     (BranchSample.CALL_STACK, [1])],
)  # fmt: skip
def test_a_legacy_stack_stays_whole_unless_it_is_filtered(chosen, targets):
    batch = one_stack([(0x10, 1, 0), (0, 0, 0), (0x20, 2, 0), (0, 0, 0)], info_mask=LEGACY)
    assert perf_samples(batch, int(chosen)).entries["to"].tolist() == targets


def test_misc_tells_the_privilege_of_the_sample():
    batch = SampleBatch.build([0x401000, KERNEL_ADDRESS], np.zeros((2, 1), ENTRY_DTYPE))
    assert perf_samples(batch, USER_ANY).misc.tolist() == [2, 1]


def test_counters_and_index_are_there_when_asked_for():
    batch = one_stack([(1, 2, 0xB1 << 32), (3, 4, 0)], hw_idx=np.array([5], "u8"))
    plain = perf_samples(batch, USER_ANY)
    assert plain.hw_idx is None and plain.counters is None
    asked = perf_samples(batch, USER_ANY | BranchSample.HW_INDEX | BranchSample.COUNTERS)
    assert asked.hw_idx.tolist() == [5] and asked.counters.tolist() == [0xB1, 0]


def test_pieces_are_the_whole():
    entries = np.zeros((5000, 2), ENTRY_DTYPE)
    entries["from"] = np.arange(1, 10001).reshape(5000, 2)
    batch = SampleBatch.build(np.arange(5000), entries)
    pieces = list(perf_batches([batch], USER_ANY))
    assert len(pieces) == 3
    whole = perf_samples(batch, USER_ANY)
    assert np.concatenate([p.entries for p in pieces]).tolist() == whole.entries.tolist()
    assert np.concatenate([p.ip for p in pieces]).tolist() == whole.ip.tolist()
