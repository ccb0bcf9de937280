"""The eight legacy formats, against examples worked out by hand from spec 3.4."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylbr.arch import FORMATS
from tests.manual import INFO_IN_TSX, INFO_MISPRED, INFO_TSX_ABORT

KERNEL, USER = 0xFFFFFFFF81000010, 0x00007F0000401000
MISPRED, IN_TSX, ABORT = INFO_MISPRED, INFO_IN_TSX, INFO_TSX_ABORT


@pytest.mark.parametrize("number, from_, to, info, expected", [
    (1, KERNEL, USER, MISPRED | 9, (KERNEL, USER)),
    (2, KERNEL, USER, MISPRED | 9, (KERNEL, USER)),
    (3, USER, KERNEL, MISPRED, (1 << 63 | USER, KERNEL)),
    (3, KERNEL, USER, 0, (0x7FFFFFFF81000010, USER)),
    (4, KERNEL, USER, 0, (0x1FFFFFFF81000010, USER)),
    (4, KERNEL, USER, MISPRED | ABORT, (0xBFFFFFFF81000010, USER)),
    (4, USER, USER, IN_TSX, (1 << 62 | USER, USER)),
    (5, KERNEL, USER, MISPRED | 77, (KERNEL, USER)),
    (6, KERNEL, KERNEL, MISPRED | 0x1234, (KERNEL, 0x1234FFFF81000010)),
    (6, USER, USER, 0xFFFF, (USER, 0xFFFF7F0000401000)),
    (7, USER, KERNEL, 5, (USER, KERNEL)),
])
def test_registers_of_a_record(number, from_, to, info, expected):
    layout = FORMATS[number]
    assert (layout.encode_from(from_, info), layout.encode_to(to, info)) == expected


def test_format_0_has_one_register():
    assert FORMATS[0].encode_single(0x8048000, 0x8049010) == 0x0804901008048000
    assert FORMATS[0].decode_single(0x0804901008048000) == (0x8048000, 0x8049010)


canonical = st.integers(0, (1 << 47) - 1) | st.integers((1 << 64) - (1 << 47), (1 << 64) - 1)


@given(st.sampled_from([FORMATS[n] for n in range(1, 8)]), canonical, canonical,
       st.integers(0, (1 << 64) - 1))
def test_decode_undoes_encode_for_all_a_format_can_show(layout, from_, to, info):
    info &= layout.info_mask
    fresh = info & layout.info  # what the INFO register brings along
    seen_from, seen = layout.decode_from(layout.encode_from(from_, info), fresh)
    seen_to, seen = layout.decode_to(layout.encode_to(to, info), seen)
    assert (seen_from, seen_to, seen) == (from_, to, info)


def test_what_each_format_can_show():
    flags = MISPRED | IN_TSX | ABORT
    assert [FORMATS[n].info_mask for n in range(8)] == [
        0, 0, 0, MISPRED, flags, flags | 0xFFFF, MISPRED | 0xFFFF, MISPRED | 0xFFFF]
