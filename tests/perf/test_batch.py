import numpy as np
import pytest

from lbrcore import ENTRY_DTYPE
from pylbr.perf.batch import SampleBatch


def entries(n, depth):
    a = np.zeros((n, depth), ENTRY_DTYPE)
    a["from"] = np.arange(n * depth).reshape(n, depth) + 1
    return a


def test_rows_are_taken_without_a_copy():
    rows = entries(3, 4)
    batch = SampleBatch.build([10, 20, 30], rows, nr=[4, 0, 2], pid=7, time=[1, 2, 3])
    assert np.shares_memory(batch.entries, rows)
    assert [list(s["from"]) for s in batch.stacks()] == [[1, 2, 3, 4], [], [9, 10]]
    assert list(batch.pid) == [7, 7, 7] and list(batch.period) == [1, 1, 1]


def test_flat_entries_follow_one_another():
    batch = SampleBatch.build([1, 2], entries(1, 5).reshape(-1), nr=[2, 3])
    assert [list(s["from"]) for s in batch.stacks()] == [[1, 2], [3, 4, 5]]


def test_select_and_concat_are_inverse():
    rows = entries(5, 3)
    hw_idx = np.arange(5, dtype="u8")
    batch = SampleBatch.build(np.arange(5), rows, nr=[3, 2, 1, 0, 3], hw_idx=hw_idx)
    again = SampleBatch.concat([batch.select(slice(0, 2)), batch.select(np.array([2, 3, 4]))])
    assert [s.tolist() for s in again.stacks()] == [s.tolist() for s in batch.stacks()]
    assert again.hw_idx.tolist() == batch.hw_idx.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nr": [4, 4]}, "more than the 3 entries"),
        ({"time": [1, 2, 3]}, "shape"),
        ({"classes": np.zeros((2, 3), "u2")}, "classes"),
        ({"hw_idx": np.zeros(3, "u8")}, "hw_idx: 3 values where 2"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SampleBatch.build([1, 2], entries(2, 3), **change)


def test_a_stack_outside_of_the_entries_is_refused():
    flat = entries(1, 4).reshape(-1)
    for starts in ([-1], [2]):
        with pytest.raises(ValueError, match="outside of entries"):
            SampleBatch.build([1], flat, nr=[3], starts=starts)
