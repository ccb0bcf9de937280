"""What the host has to save around a TD that has LBRs."""

from itertools import permutations

import pytest

from pylbr.verify import tdx


def test_all_four_in_order_hold_everything():
    found = tdx.search()
    assert not found.broken and found.states > 30


@pytest.mark.parametrize(("part", "broken"), [
    ("depth", {"P5"}), ("records", {"P21"}), ("ler", {"P7"}), ("ctl", {"P5"})])
def test_each_part_is_needed(part, broken):
    assert set(tdx.search([name for name in tdx.PARTS if name != part]).broken) == broken


def test_depth_comes_before_the_records():
    """A write of DEPTH resets them; every order that has it first holds, every other does not."""
    for order in permutations(tdx.PARTS):
        first = order.index("depth") < order.index("records")
        assert ("P21" not in tdx.search(order).broken) == first, order


def test_depth_alone_breaks_at_the_first_exit():
    assert tdx.search(("records", "ler", "ctl")).broken["P5"] == ["TD enter", "TD exit"]
