"""Mappings over time: every sample is looked up in what was mapped when it was taken."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pylbr.errors import TraceError
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE
from pylbr.perf.stacks import Comm, Fork, Mmap, Samples, Stacks, StacksMetadata
from pylbr.profile.address_space import AddressSpaces
from pylbr.profile.aggregate import collect
from pylbr.profile.history import Paths


def sample(pid, time, address, to=1):
    """One sample with one entry, from `address`."""
    return Samples.build(
        np.array([0, 1]), np.array([(address, to, 2)], BRANCH_ENTRY_DTYPE), pid=pid, time=time
    )


def files_by_edge(profile):
    """TO of each edge -> path that its FROM lies in."""
    found = {}
    for source, target, *_, space in profile.edges.tolist():
        mapped = profile.spaces.find(space, source)
        found[target] = mapped and mapped.path
    return found


def test_later_mappings_hide_earlier_ones():
    spaces = AddressSpaces()
    spaces.add(Mmap(1, 1, 0x1000, 0x3000, 0, "/a"))
    spaces.add(Mmap(1, 1, 0x2000, 0x1000, 0x50, "/b"))
    found = [spaces.find(1, at) for at in (0xFFF, 0x1000, 0x2000, 0x3000, 0x4000)]
    assert [f and (f.path, f.offset) for f in found] == [
        None, ("/a", 0), ("/b", 0x50), ("/a", 0x2000), None,
    ]  # fmt: skip


@given(st.lists(st.tuples(
    st.integers(1, 3), st.integers(0, 30), st.integers(0, 12), st.integers(0, 3)
), max_size=12))  # fmt: skip
def test_address_spaces_are_what_page_tables_would_be(steps):
    """Byte by byte against a dict for each process; a step maps, or forks where the last is 0."""
    spaces, pages = AddressSpaces(), {}
    for number, (pid, start, length, parent) in enumerate(steps):
        if parent == 0 and pid != 3:
            spaces.add(Fork(3, pid, 3, pid))
            pages[3] = dict(pages.get(pid, {}))
        else:
            spaces.add(Mmap(pid, pid, start, length, 100 * number, str(number)))
            for at in range(length):
                pages.setdefault(pid, {})[start + at] = (str(number), 100 * number + at)
    for pid in (1, 2, 3):
        found = {}
        for at in range(45):
            mapped = spaces.find(pid, at)
            if mapped is not None:
                found[at] = (mapped.path, mapped.offset + at - mapped.start)
        assert found == pages.get(pid, {})


def test_a_child_has_its_parents_mappings_until_it_maps_others():
    spaces = AddressSpaces()
    spaces.add(Mmap(1, 1, 0x1000, 0x1000, 0, "/a"))
    spaces.add(Mmap(-1, 0, 0xFFFF_8000_0000_0000, 0x1000, 0, "[kernel.kallsyms]_text"))
    spaces.add(Fork(2, 1, 2, 1))
    spaces.add(Fork(1, 1, 3, 1))
    spaces.add(Mmap(2, 2, 0x1000, 0x1000, 0, "/b"))
    assert spaces.find(1, 0x1000).path == "/a" and spaces.find(2, 0x1000).path == "/b"
    assert spaces.find(2, 0xFFFF_8000_0000_0001).path == "[kernel.kallsyms]_text"
    assert spaces.spaces() == [-1, 1, 2] and len(spaces.mappings(1)) == 1


FIRST, SECOND = (Mmap(5, 5, 0x1000, 0x1000, 0, "/first", time=10),
                 Mmap(5, 5, 0x1000, 0x1000, 0, "/second", time=50))  # fmt: skip
EXEC = Comm(5, 5, "second", True, time=49)
SAMPLES = [sample(5, time, 0x1010, time) for time in (20, 48, 60)]
BY_TIME = {20: "/first", 48: "/first", 60: "/second"}


@pytest.mark.parametrize("records", [
    [FIRST, *SAMPLES[:2], EXEC, SECOND, SAMPLES[2]],
    [FIRST, EXEC, SECOND, *SAMPLES],
    [FIRST, *SAMPLES, EXEC, SECOND],
    [SECOND, EXEC, *SAMPLES, FIRST],
    [SECOND, FIRST, *SAMPLES],
])  # fmt: skip
def test_an_exec_of_the_same_process_is_looked_up_by_time(records):
    profile = collect(records)
    assert files_by_edge(profile) == BY_TIME
    assert {profile.spaces.pid_of(space) for space in profile.edges["pid"].tolist()} == {5}


def test_a_child_keeps_its_own_code_wherever_its_fork_stands_in_the_file():
    parent = Mmap(1, 1, 0x1000, 0x1000, 0, "/shell", time=1)
    fork, run = Fork(2, 1, 2, 1, time=5), Comm(2, 2, "child", True, time=7)
    child = Mmap(2, 2, 0x1000, 0x1000, 0, "/child", time=8)
    samples = [sample(2, 6, 0x1010, 6), sample(2, 9, 0x1010, 9), sample(1, 10, 0x1010, 10)]
    expected = {6: "/shell", 9: "/child", 10: "/shell"}
    for records in (
        [parent, fork, samples[0], run, child, *samples[1:]],
        [parent, run, child, *samples, fork],
        [run, child, samples[1], fork, samples[0], parent, samples[2]],
    ):
        assert files_by_edge(collect(records)) == expected


def test_without_times_the_order_of_the_file_is_that_of_time():
    """perf.data without times has them in FORK all the same."""
    records = [
        Mmap(1, 1, 0x1000, 0x1000, 0, "/shell"), Fork(2, 1, 2, 1, time=77),
        sample(2, 0, 0x1010, 1), Comm(2, 2, "child", True),
        Mmap(2, 2, 0x1000, 0x1000, 0, "/child"), sample(2, 0, 0x1010, 2),
    ]  # fmt: skip
    assert files_by_edge(collect(records)) == {1: "/shell", 2: "/child"}


def test_the_kernel_has_one_space_in_which_later_mappings_hide_earlier_ones():
    base = 0xFFFF_FFFF_C000_0000
    records = [
        Mmap(-1, 0, base, 0x1000, 0, "/old.ko", time=1), sample(5, 2, base + 8, 1),
        Mmap(-1, 0, base, 0x1000, 0, "/new.ko", time=3), sample(5, 4, base + 8, 2),
    ]  # fmt: skip
    assert files_by_edge(collect(records)) == {1: "/new.ko", 2: "/new.ko"}


pids = st.integers(1, 3)
step = st.one_of(
    st.tuples(st.just("map"), pids, st.integers(0, 30), st.integers(1, 12)),
    st.tuples(st.just("fork"), pids, pids),
    st.tuples(st.just("exec"), pids),
    st.tuples(st.just("sample"), pids, st.integers(0, 42)),
)


@given(st.lists(step, max_size=14), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=300)
def test_streams_in_any_order_are_what_page_tables_would_be(steps, random, timed):
    """Step by step against a dict for each process; then in another order, if there are times."""
    pages, expected, records = {}, {}, []
    for number, (kind, pid, *rest) in enumerate(steps, 1):
        time = 10 * number if timed else 0
        if kind == "map":
            start, length = rest
            records.append(Mmap(pid, pid, start, length, 100 * number, f"/{number}", time=time))
            for at in range(start, start + length):
                pages.setdefault(pid, {})[at] = f"/{number}"
        elif kind == "fork" and pid != rest[0]:
            records.append(Fork(rest[0], pid, rest[0], pid, time=time))
            pages[rest[0]] = dict(pages.get(pid, {}))
        elif kind == "exec":
            records.append(Comm(pid, pid, "x", True, time=time))
            pages[pid] = {}
        elif kind == "sample":
            records.append(sample(pid, time, rest[0], number))
            expected[number] = pages.get(pid, {}).get(rest[0])
    if timed:
        random.shuffle(records)
    found = files_by_edge(collect(records))
    assert found.keys() == expected.keys()
    for number, path in expected.items():
        assert path is None or found[number] == path


def test_history_is_counted_once_though_the_stream_is_read_twice():
    paths = Paths(1)
    collect([FIRST, *SAMPLES, EXEC, SECOND], paths)
    assert paths.samples == 3 and sum(count for count, *_ in paths.most_common(9)) == 3


def test_a_stream_that_cannot_be_read_twice_says_so():
    records = [FIRST, *SAMPLES, EXEC, SECOND]
    with pytest.raises(TraceError, match="have to be read twice"):
        collect(iter(records))
    stacks = Stacks(StacksMetadata(), records, "x")
    with pytest.raises(TraceError, match="x: its records are not in the order of time"):
        collect(stacks)
    stacks = Stacks(StacksMetadata(), records, "x")
    stacks.reopen = lambda: Stacks(StacksMetadata(), records, "x")
    assert files_by_edge(collect(stacks)) == BY_TIME


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [1, 2, 0]])
def test_samples_without_a_pid_join_the_only_process(order):
    records = [FIRST, sample(0, 0, 0x1010, 1), sample(0, 0, 0x1020, 2)]
    profile = collect([records[i] for i in order])
    assert files_by_edge(profile) == {1: "/first", 2: "/first"}
    assert profile.edges["pid"].tolist() == [5, 5]


def test_samples_without_a_pid_of_several_processes_are_refused():
    other = Mmap(6, 6, 0x1000, 0x1000, 0, "/other")
    with pytest.raises(TraceError, match=r"no pid, and 2 processes are mapped \(5, 6\)"):
        collect([FIRST, sample(0, 0, 0x1010), other])
    with_pid = collect([FIRST, other, sample(0, 0, 0x1010), sample(6, 0, 0x1010, 2)])
    assert files_by_edge(with_pid)[2] == "/other"
