"""The last value that is taken, the first that is refused, and what every field of a configuration
does on its way through the object."""

from __future__ import annotations

import numpy as np
import pytest

from lbrcore import (
    BRANCH_DTYPE,
    CTL_ALL,
    INFO_ALL,
    SELECT_ALL,
    BranchClass,
    Flavour,
    LbrConfig,
    LbrState,
)
from tests.manual import RECORD_ALL

TOP = 2**64 - 1


@pytest.fixture
def lbr():
    state = LbrState(LbrConfig())
    state.ctl = RECORD_ALL
    return state


@pytest.mark.parametrize("field, last", [
    ("from_", TOP), ("to", TOP), ("cls", 15), ("cycles", 2**32 - 1), ("instructions", 2**32 - 1),
    ("flags", 7), ("cpl_from", 3), ("cpl_to", 3)])
def test_the_largest_value_of_each_field(lbr, field, last):
    words = {"from_": 1, "to": 2, "cls": 0} | {field: last}
    lbr.record_one(**words)
    for wrong in (last + 1, -1):
        with pytest.raises((ValueError, OverflowError), match=field):
            lbr.record_one(**words | {field: wrong})


@pytest.mark.parametrize("field, last", [
    ("class", 15), ("flags", 7), ("cpl_from", 3), ("cpl_to", 3)])
def test_the_largest_value_of_each_field_in_a_batch(lbr, field, last):
    batch = np.zeros(4, BRANCH_DTYPE)
    batch[field] = last
    lbr.record(batch)
    batch[field][2] = last + 1
    before = lbr.records().tobytes()
    with pytest.raises(ValueError, match=rf"branches\[2\].*{last + 1}"):
        lbr.record(batch)
    assert lbr.records().tobytes() == before


def test_entries_take_all_64_bits(lbr):
    lbr.write_entry(0, TOP, TOP, INFO_ALL)
    assert tuple(lbr.records()[0]) == (TOP, TOP, INFO_ALL)


@pytest.mark.parametrize("config", [
    LbrConfig(depth_bitmap=0b0101, linear_width=57, event_counters=5, ctl_mask=CTL_ALL,
              info_mask=0xFFFF),
    LbrConfig(flavour=Flavour.LEGACY, depth=16, linear_width=48, ctl_mask=SELECT_ALL, info_mask=0),
])
def test_a_configuration_comes_back_as_it_was_given(config):
    assert LbrState(config).config == config


def test_only_the_legacy_flavour_has_tos(lbr):
    with pytest.raises(AttributeError, match="tos"):
        _ = lbr.tos
    with pytest.raises(AttributeError, match="tos"):
        lbr.tos = 0


def test_stopped_it_is_as_quiet_as_after_reset(lbr):
    """Neither branches nor events leave a trace: LER stays what it was."""
    lbr.record_one(0x10, 0x20, BranchClass.COND)
    lbr.record_one(0x30, 0x40, BranchClass.EXCEPTION)
    records, ler = lbr.records().tobytes(), tuple(lbr.ler)
    lbr.ctl = 0
    assert lbr.active is False
    lbr.record_one(0x50, 0x60, BranchClass.COND)
    lbr.record_one(0x70, 0x80, BranchClass.EXCEPTION)
    assert lbr.records().tobytes() == records and tuple(lbr.ler) == ler
    lbr.ctl = RECORD_ALL
    assert lbr.active is True
