"""Where the copies of a program's code go."""

from hypothesis import given
from hypothesis import strategies as st

from pylbr.record.native.ranges import Mapping, place, vacant

GIB, SIZE = 1 << 30, 4 << 20


def code(start, size=1 << 20):
    return Mapping(start, start + size, "r-xp", 0, 1, "/lib")


def reach(at, m):
    return max(at + SIZE, m.end) - min(at, m.start)


def test_many_libraries_share_a_region():
    """Debian's clang has nine, each as large as this."""
    found = [code(0x555555554000)] + [code(0x7FFFF0000000 + i * (40 << 20)) for i in range(6)]
    found += [code(0x7FFF80000000 + i * (60 << 20), 50 << 20) for i in range(20)]
    found.append(Mapping(0x7FFFFFFDE000, 0x7FFFFFFFF000, "rw-p", 0, 0, "[stack]"))
    assert len(place(found, SIZE)) == 2


@given(st.lists(st.tuples(
    st.integers(0x10, 0x7FFF_FFF0).map(lambda x: x << 16), st.integers(1, 64 << 20),
), min_size=1, max_size=12))
def test_every_piece_is_near_a_region_that_is_free(pieces):
    found, end = [], 0
    for start, size in sorted(pieces):
        if start >= end:
            end = start + (size + 4095) // 4096 * 4096
            found.append(code(start, end - start))
    regions = place(found, SIZE)
    for i, at in enumerate(regions):
        taken = [(m.start, m.end) for m in found] + [(b, b + SIZE) for b in regions[:i]]
        assert at > 0 and at + SIZE <= 1 << 47
        assert not any(at < high and low < at + SIZE for low, high in taken)
    assert all(any(reach(at, m) < 1 << 31 for at in regions) for m in found)


def test_the_recorder_fills_no_hole_of_the_program():
    """One page free between two of the program's is left to it."""
    found = [code(0x555555554000), code(0x7FFFF0000000, 0x1000), code(0x7FFFF0002000, 0x1000)]
    assert 0x555555654000 < vacant(found) < 0x7FFFF0000000 - (1 << 29)
