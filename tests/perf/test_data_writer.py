import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylbr.errors import TraceError
from pylbr.perf import _data_writer, reference
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, BranchSample, SampleType
from pylbr.perf.data_writer import ATTR_SIZE, PerfDataWriter, attr_bytes, write_perf_data
from pylbr.perf.sample_layout import NEEDED_FIELDS, SAMPLE_FIELDS, SampleLayout
from pylbr.perf.stacks import Comm, Event, Exit, Mmap, Samples, StacksMetadata

words = st.integers(0, 2**64 - 1)


def drawn(draw, dtype, n, element):
    return np.array(draw(st.lists(element, min_size=n, max_size=n)), dtype)


@st.composite
def samples(draw):
    nr = draw(st.lists(st.integers(0, 4), max_size=5))
    n, m = len(nr), sum(nr)
    optional = {}
    if draw(st.booleans()):
        optional["hw_idx"] = drawn(draw, "u8", n, words)
    if draw(st.booleans()):
        optional["counters"] = drawn(draw, "u8", m, words)
    if draw(st.booleans()):
        links = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
        optional["chain_offsets"] = np.cumsum([0, *links], dtype="i8")
        optional["chain"] = drawn(draw, "u8", sum(links), words)
    ids = st.integers(-1, 2**31 - 1)
    return Samples.build(
        np.cumsum([0, *nr], dtype="i8"),
        drawn(draw, BRANCH_ENTRY_DTYPE, m, st.tuples(words, words, words)),
        ip=drawn(draw, "u8", n, words), pid=drawn(draw, "i4", n, ids),
        tid=drawn(draw, "i4", n, ids), time=drawn(draw, "u8", n, words),
        cpu=drawn(draw, "u4", n, st.integers(0, 2**32 - 1)),
        period=drawn(draw, "u8", n, words), event=drawn(draw, "u2", n, st.integers(0, 2)),
        misc=drawn(draw, "u2", n, st.integers(0, 2**16 - 1)), **optional,
    )  # fmt: skip


@st.composite
def layouts(draw):
    optional = list(SAMPLE_FIELDS & ~NEEDED_FIELDS)
    kind = NEEDED_FIELDS | sum(draw(st.sets(st.sampled_from(optional))))
    ids = draw(st.lists(words, min_size=3, max_size=3))
    return SampleLayout(int(kind), draw(st.integers(0, 2**20 - 1)), tuple(ids))


@given(samples(), layouts(), st.integers(0, 60))
def test_twins_agree(batch, layout, room):
    results = []
    for module in (_data_writer, reference):
        out = np.zeros(room, "u8")
        results.append((module.pack_samples(out, 0, batch, layout), out.tolist()))
    assert results[0] == results[1]


def stacks(n=3, depth=2, **columns):
    entries = np.zeros(n * depth, BRANCH_ENTRY_DTYPE)
    entries["from"] = np.arange(n * depth) + 0x401000
    return Samples.build(np.arange(n + 1) * depth, entries, **columns)


@pytest.mark.parametrize("module", [_data_writer, reference])
def test_what_does_not_fit_in_a_record_is_refused(module):
    layout, room = SampleLayout(int(NEEDED_FIELDS), 9), np.zeros(9000, "u8")
    assert module.pack_samples(room, 0, stacks(1, 2729), layout)[0] == 1
    with pytest.raises(ValueError, match="do not fit in a record"):
        module.pack_samples(room, 0, stacks(1, 2730), layout)
    with pytest.raises(ValueError, match="event 4"):
        module.pack_samples(room, 0, stacks(1, 1, event=4), layout)


def test_layout_refuses_what_it_cannot_write():
    for kind in (NEEDED_FIELDS | SampleType.RAW, SampleType.IP):
        with pytest.raises(ValueError, match="cannot be written"):
            SampleLayout(int(kind), 9)


def read_u64(data, at, n=1):
    values = struct.unpack_from(f"<{n}Q", data, at)
    return values if n > 1 else values[0]


def test_file_is_laid_out_as_documented(tmp_path):
    path = tmp_path / "out.perf.data"
    metadata = StacksMetadata(
        events=(Event(name="branches:u", config=4, period=100, branch_sample_type=9),),
        command_line=("pylbr", "replay"),
    )
    records = [
        Comm(7, 7, "demo", True),
        Mmap(7, 7, 0x401000, 0x1000, 0x1000, "/demo", build_id=bytes(range(20))),
        stacks(pid=7, tid=7), Exit(7, 7, 7, 7),
    ]  # fmt: skip
    assert write_perf_data(path, (metadata, records)) == 3
    data = path.read_bytes()
    assert data[:8] == b"PERFILE2" and read_u64(data, 8, 2) == (104, 144)
    attrs, attrs_size, start, size = read_u64(data, 24, 4)
    assert (attrs, attrs_size) == (104, 144)
    ids, ids_size = read_u64(data, attrs + 128, 2)
    assert ids_size == 8 and read_u64(data, ids) == 1
    at, kinds = start, []
    while at < start + size:
        kind, _, length = struct.unpack_from("<IHH", data, at)
        kinds.append(kind)
        at += length
    assert at == start + size and kinds == [3, 10, 9, 9, 9, 4]
    features = [bit for bit in range(64) if read_u64(data, 72) >> bit & 1]
    assert features == [2, 6, 11, 12, 15]
    table = [read_u64(data, at + 16 * i, 2) for i in range(len(features))]
    assert table[0][0] == at + 16 * len(features) and table[-1][1] == 0
    assert sum(table[-1]) == len(data)


def test_attr_is_what_perf_6_1_takes():
    attr = attr_bytes(Event(type=4, config=0x20C4, period=7, sample_type=0x803,
                            branch_sample_type=0x9, flags=0x800320))  # fmt: skip
    assert len(attr) == ATTR_SIZE == 128
    assert struct.unpack_from("<IIQQQQQ", attr) == (4, 128, 0x20C4, 7, 0x803, 0, 0x800320)
    assert read_u64(attr, 72) == 9


def test_events_share_one_layout_and_have_an_id_each(tmp_path):
    path = tmp_path / "two"
    kind = NEEDED_FIELDS | SampleType.TIME
    events = (
        Event(name="a", branch_sample_type=9, ids=(5, 6)),
        Event(name="b", branch_sample_type=int(9 | BranchSample.HW_INDEX), ids=(5,),
              sample_type=int(kind | SampleType.RAW)),
    )  # fmt: skip
    with PerfDataWriter(path, StacksMetadata(events=events)) as writer:
        writer.write(stacks(2, 1, event=np.array([1, 0], "u2"), time=99))
    data = path.read_bytes()
    kinds = [read_u64(data, 104 + 144 * i + 24) for i in range(2)]
    assert kinds == [int(kind | SampleType.IDENTIFIER)] * 2
    ids = [read_u64(data, read_u64(data, 104 + 144 * i + 128)) for i in range(2)]
    assert ids[0] == 5 and ids[1] not in (5, 0)
    start = read_u64(data, 40)
    length = struct.unpack_from("<H", data, start + 6)[0]
    assert [read_u64(data, start + 8), read_u64(data, start + length + 8)] == ids[::-1]
    assert read_u64(data, start + 48) == 2**64 - 1  # hw_idx


def test_a_failure_leaves_nothing(tmp_path):
    path = tmp_path / "out"
    metadata = StacksMetadata(events=(Event(branch_sample_type=9),))
    with pytest.raises(TraceError, match="do not fit"):
        write_perf_data(path, (metadata, [stacks(), stacks(1, 3000)]))
    with pytest.raises(TraceError, match="path in it is too long"):
        write_perf_data(path, (metadata, [Mmap(1, 1, 0, 1, 0, "x" * 65536)]))
    with pytest.raises(KeyboardInterrupt), PerfDataWriter(path, metadata):
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="no event"):
        PerfDataWriter(path, StacksMetadata())
    with pytest.raises(TraceError, match="missing"):
        write_perf_data(tmp_path / "missing" / "out", (metadata, []))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    metadata = StacksMetadata(events=(Event(branch_sample_type=9),))
    writer = PerfDataWriter(tmp_path / "out", metadata)

    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            real.close()

    real, writer._output.file = writer._output.file, Full()
    with pytest.raises(TraceError, match="No space left on device"), writer:
        writer.write(stacks())
    assert list(tmp_path.iterdir()) == []
