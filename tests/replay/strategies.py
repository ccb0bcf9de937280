"""Facilities, traces and events for the replay tests."""

import numpy as np
from hypothesis import strategies as st

from lbrcore import (
    BRANCH_DTYPE,
    INFO_ALL,
    INFO_CLASS,
    BranchClass,
    Flavour,
    LbrConfig,
    LbrState,
)
from tests.manual import RECORD_ALL

CALL_STACK_CTL = 0x38000F  # LBREn, OS, USR, CALL_STACK, near calls and returns
CALL_STACK_SELECT = 0x3C4  # EN_CALLSTACK; JCC, near JMPs and far branches suppressed


@st.composite
def facilities(draw):
    """A facility that records: any flavour, filter and mode."""
    if draw(st.booleans()):
        lbr = LbrState(LbrConfig(
            depth_bitmap=draw(st.sampled_from([1, 3, 15])), event_counters=draw(
                st.sampled_from([0, 0xF])), info_mask=draw(st.sampled_from([
                    INFO_ALL, INFO_ALL | INFO_CLASS, 0x7 << 61])),
        ))
        lbr.ctl = draw(st.sampled_from([
            RECORD_ALL, 0x7F0005, 0x7F0003, 0x380007, 0x200007, 0x400005, CALL_STACK_CTL,
            CALL_STACK_CTL & ~2,
        ]))
        if lbr.config.event_counters:
            lbr.event_mask = draw(st.sampled_from([0, 0x5, 0xF]))
        lbr.depth = draw(st.sampled_from([8, lbr.depth]))
    else:
        lbr = LbrState(LbrConfig.legacy(
            draw(st.sampled_from([4, 8, 16])), info_mask=draw(
                st.sampled_from([0xE00000000000FFFF, 0, INFO_CLASS]))))
        lbr.ctl = draw(st.sampled_from([0, 1, 2, 0xC5, CALL_STACK_SELECT, CALL_STACK_SELECT | 1]))
        lbr.enable = True
    return lbr


@st.composite
def traces(draw, longest=600):
    """Branches as structs.  Few classes each, so that filters, pops and overflows meet."""
    n = draw(st.integers(0, longest))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    classes = draw(st.one_of(
        st.lists(st.sampled_from(list(BranchClass)), min_size=1, max_size=6),
        st.sampled_from([[3, 4, 5, 5], [4, 5], [4, 4, 4, 5], [4, 5, 5, 0], [5, 12], [4, 5, 5, 13],
                         list(range(16))]),
    ))
    batch = np.zeros(n, BRANCH_DTYPE)
    batch["from"] = rng.integers(0, 1 << 64, n, dtype="u8")
    batch["to"] = rng.integers(0, 1 << 64, n, dtype="u8")
    # Stretches in which one class dominates: deep stacks, long waits for a record.
    dominant = np.repeat(rng.choice(classes, n // 40 + 1), 40)[:n]
    batch["class"] = np.where(rng.random(n) < 0.6, rng.choice(classes, n), dominant)
    cycles = [0, 1, 7, 900, 0x8000, 0xFFFFFFFF]
    batch["cycles"] = rng.choice(cycles, n, p=[0.2, 0.4, 0.2, 0.1, 0.05, 0.05])
    batch["instructions"] = rng.integers(0, 9, n)
    batch["flags"] = rng.integers(0, 8, n)
    levels = draw(st.sampled_from([[0], [3], [3, 3, 3, 0], [0, 1, 2, 3]]))
    batch["cpl_from"] = rng.choice(levels, n)
    batch["cpl_to"] = rng.choice(levels, n)
    batch["events"] = rng.choice([0, 0, 1, 255], (n, 4))
    return batch


def columns(batch):
    """The same branches as contiguous columns."""
    return {name: np.ascontiguousarray(batch[name]) for name in BRANCH_DTYPE.names}


def shown(lbr, *, head=True):
    """All that a facility holds, for comparison."""
    tos = lbr.tos if head and lbr.config.flavour == Flavour.LEGACY else None
    return lbr.records().tolist(), lbr.ler, lbr.cycles, tos
