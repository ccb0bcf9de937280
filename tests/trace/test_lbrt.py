"""The compact container: what goes in comes out, as the plain reader has it, or an error."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE, BranchClass
from pylbr import trace
from pylbr.errors import TraceError
from pylbr.trace import lbrt_layout, lbrt_reference, lbrt_writer
from pylbr.trace.lbrt_layout import LayoutError
from pylbr.trace.lbrt_mending import mend, pack_parity, unpack_copy
from pylbr.trace.lbrt_streams import StreamWriter

FIELDS = BRANCH_DTYPE.names


def program(seed, count, places=40, ways=3, noise=0.0):
    """A walk through a random graph: most places have one way on, some two or more."""
    rng = np.random.default_rng(seed)
    follow = rng.integers(0, places, (places, ways))
    many = rng.integers(1, ways + 1, places)
    many[rng.random(places) < 0.5] = 1
    habit = rng.random(places) ** 4
    node, path = 0, 0
    rows = np.zeros(count, BRANCH_DTYPE)
    uniform = rng.random(count)
    for i in range(count):
        n = many[node]
        if n > 1 and uniform[i] < noise:
            way = rng.integers(0, n)
        else:
            way = (path * 7 + node) % n if habit[node] > 0.3 else int(uniform[i] < habit[node])
        target = follow[node][way % n]
        rows[i] = (0x401000 + node * 64 + 20, 0x401000 + target * 64, 3 + node, 4 + way,
                   (0, 6, 1, 3)[(node + way) % 4], 0, 3, 3, (0, 0, 0, 0))
        if n > 1:
            path = (path * 3 + way) % 64
        node = target
    return rows


def write(path, rows, columns=(*FIELDS, "task", "cpu"), metadata=None, **extra):
    with trace.LbrtWriter(path, metadata, columns) as out:
        out.write(rows, **extra)
    return path


def whole(path, **options):
    with trace.open(path, **options) as source:
        chunks = list(source.chunks())
        rows = [chunk.branches for chunk in chunks]
        tasks = [chunk.task for chunk in chunks if chunk.task is not None]
        cpus = [chunk.cpu for chunk in chunks if chunk.cpu is not None]
    return [np.concatenate(found) if found else None for found in (rows, tasks, cpus)]


def as_reference(rows, task, cpu):
    """Rows as the plain reader returns them."""
    events = np.ascontiguousarray(rows["events"]).view("<u4").reshape(-1)
    columns = {name: rows[name].tolist() for name in FIELDS if name != "events"}
    columns |= {"events": events.tolist(), "task": task.tolist(), "cpu": cpu.tolist()}
    return [dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)]


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1 << 30), count=st.integers(1, 1500), places=st.integers(1, 60),
       ways=st.integers(1, 6), noise=st.sampled_from([0.0, 0.05, 0.7]), data=st.data())
def test_fast_and_plain_reader_agree(tmp_path_factory, seed, count, places, ways, noise, data):
    rows = program(seed, count, places, ways, noise)
    rng = np.random.default_rng(seed)
    odd = rng.random(count) < data.draw(st.sampled_from([0, 0.01, 0.9]))
    for name, most in (("cycles", 1 << 32), ("flags", 8), ("instructions", 1 << 32)):
        if data.draw(st.booleans()):
            rows[name][odd] = rng.integers(0, most, count)[odd]
    rows["events"][odd] = rng.integers(0, 256, (count, 4))[odd]
    switches = np.cumsum(rng.random(count) < data.draw(st.sampled_from([0, 0.01, 0.5])))
    task, cpu = (switches % 3 + 100).astype(np.uint32), (switches % 2).astype(np.uint32)
    path = tmp_path_factory.getbasetemp() / "twin.lbrt"
    piece, group = data.draw(st.sampled_from([(64, 256), (1000, 2000), (1 << 15, 1 << 22)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lbrt_writer, "PIECE_ROWS", piece)
        patch.setattr(lbrt_writer, "GROUP_ROWS", group)
        patch.setattr(lbrt_writer, "_FEW_ROWS", data.draw(st.sampled_from([0, 1 << 14])))
        write(path, rows, task=task, cpu=cpu)
    head, expected = lbrt_reference.read(path.read_bytes())
    found = whole(path)
    assert as_reference(*found) == expected == as_reference(rows, task, cpu)
    assert head["columns"] == list(trace.open(path).columns)
    start = data.draw(st.integers(0, count))
    with trace.open(path) as source:
        assert np.array_equal(source.read(start, start + 64), rows[start:start + 64])
        assert sum(map(len, source.chunks(start=start))) == count - start


def test_rows_of_no_program(tmp_path, random_branches):
    """Branches that never repeat have no graph; they come back all the same."""
    rows = random_branches(40_000)
    path = write(tmp_path / "t.lbrt", rows, task=np.arange(40_000, dtype=np.uint32) // 3, cpu=3)
    found, task, cpu = whole(path)
    assert np.array_equal(found, rows) and (cpu == 3).all()
    assert np.array_equal(task, np.arange(40_000) // 3)


def test_rows_of_no_program_between_those_of_one(tmp_path, monkeypatch, random_branches):
    monkeypatch.setattr(lbrt_writer, "GROUP_ROWS", 1 << 14)
    rows = np.concatenate([program(1, 1 << 15), random_branches(1 << 14), program(2, 50_000)])
    path = write(tmp_path / "t.lbrt", rows)
    kinds = {kind for kind, _ in lbrt_reference.parts(path.read_bytes())}
    assert {lbrt_layout.ROWS, lbrt_layout.PIECE} <= kinds
    assert np.array_equal(whole(path)[0], rows)


def test_columns_that_are_absent(tmp_path):
    rows = program(3, 5000)
    path = write(tmp_path / "t.lbrt", rows, ("from", "to", "class"))
    with trace.open(path) as source:
        assert source.columns == ("from", "to", "class") and source.count == 5000
        chunk = next(source.chunks())
        assert np.array_equal(chunk.column("to"), rows["to"]) and chunk.task is None
        assert not chunk.column("cycles").any() and (chunk.branches["cpl_to"] == 3).all()


def test_any_format_into_it_and_out_of_it(tmp_path, metadata):
    from pylbr.trace import copy

    rows = program(4, 20_000)
    path = write(tmp_path / "a.lbrt", rows, metadata=metadata, task=7)
    for suffix in (".parquet", ".arrow", ".lbrt"):
        with trace.open(path) as source:
            assert copy.copy_trace(source, tmp_path / f"b{suffix}") == 20_000
        path = tmp_path / f"b{suffix}"
    with trace.open(path) as source:
        assert source.metadata == metadata
    found, task, _ = whole(path)
    assert np.array_equal(found, rows) and (task == 7).all()


def test_bits_per_branch(tmp_path):
    """A loop over calls costs next to nothing beside its graph."""
    rows = program(5, 200_000, places=30, ways=2)
    small = os.path.getsize(write(tmp_path / "a.lbrt", rows[:100_000], FIELDS))
    large = os.path.getsize(write(tmp_path / "b.lbrt", rows, FIELDS))
    assert 8 * (large - small) / 100_000 < 1.2


def flat(path):
    return [None if part is None else part.tobytes() for part in whole(path)]


def rows_of_all_kinds(before, after):
    """Two programs, and rows of none between them."""
    rng = np.random.default_rng(9)
    rows = np.concatenate([before, np.zeros(64, BRANCH_DTYPE), after])
    for column in ("from", "to"):
        rows[column][len(before):len(before) + 64] = rng.integers(0, 1 << 62, 64)
    rows["cycles"][::50] = 7
    return rows


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file with all kinds of parts, and its rows."""
    path = tmp_path_factory.mktemp("small") / "t.lbrt"
    rows = rows_of_all_kinds(program(6, 400, 12), program(7, 136, 12))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("PIECE_ROWS", 200), ("GROUP_ROWS", 200), ("_FEW_ROWS", 0)):
            patch.setattr(lbrt_writer, name, value)
        write(path, rows, task=np.repeat([1, 2], 300).astype(np.uint32))
    kinds = {kind for kind, _ in lbrt_reference.parts(path.read_bytes())}
    assert kinds == {b"META", b"GRPH", b"PIE2", b"ROWS", b"PRTY"}
    return path, rows


@pytest.fixture
def first():
    """A file as the first writer made it, with pieces `PIEC` and a `COPY`, and its rows."""
    rows = rows_of_all_kinds(program(6, 3000, 40, 5, 0.2), program(7, 1936, 12, noise=0.05))
    return Path(__file__).with_name("first.lbrt"), rows


def test_a_file_of_the_first_writer(first):
    path, rows = first
    data = path.read_bytes()
    kinds = {kind for kind, _ in lbrt_reference.parts(data)}
    assert kinds == {b"META", b"GRPH", b"PIEC", b"COPY"}
    found = whole(path)
    assert np.array_equal(found[0], rows)
    assert as_reference(*found) == lbrt_reference.read(data)[1]
    with trace.open(path) as source:
        for start in range(0, 5000, 61):
            assert np.array_equal(source.read(start, start + 64), rows[start:start + 64])


def test_a_first_file_whose_graph_is_damaged(first, tmp_path):
    data = bytearray(first[0].read_bytes())
    data[data.index(b"GRPH") + 30] ^= 1
    (tmp_path / "t.lbrt").write_bytes(data)
    assert np.array_equal(whole(tmp_path / "t.lbrt")[0], first[1])


def test_first_odds_are_those_of_the_page():
    page = (Path(trace.__file__).parents[2] / "docs" / "trace-format.md").read_text()
    told = "".join(re.findall(r"^    ([0-9a-f]{60,})$", page, re.M))
    assert bytes.fromhex(told) == lbrt_layout.FIRST_ODDS == lbrt_reference._FIRST_ODDS


def test_damage_no_longer_than_a_chunk_is_mended():
    rng = np.random.default_rng(1)
    graphs = [rng.bytes(n) for n in (1000, 3, 2600)]
    parity = pack_parity(graphs)
    length = -(-3603 // 16)
    for at in range(0, 3603, 37):
        data = bytearray(b"".join(graphs))
        data[at:at + length] = rng.bytes(length)[:len(data) - at]
        damaged = [bytes(data[:1000]), bytes(data[1000:1003]), bytes(data[1003:])]
        assert mend(damaged, parity) == graphs
    data = bytearray(graphs[0])
    data[0] ^= 1
    data[2 * length] ^= 1
    with pytest.raises(LayoutError, match="more places than can be mended"):
        mend([bytes(data), *graphs[1:]], parity)
    with pytest.raises(LayoutError, match="of another graph"):
        mend([*graphs[:2], b"x"], parity)
    many = StreamWriter()
    many.numbers(np.array([1 << 20], np.uint64))
    many.number(1)
    with pytest.raises(LayoutError, match="of another graph"):  # a chunk for each byte
        mend([bytes(1 << 20)], many.data)


def test_sizes_of_copies_that_exceed_the_part():
    write = StreamWriter()
    write.number(1)
    write.number(100)
    with pytest.raises(LayoutError, match="copies are damaged"):
        unpack_copy(write.data)


def test_every_byte_changed_never_gives_a_wrong_row(small, tmp_path):
    path, _ = small
    data, before = path.read_bytes(), flat(path)
    changed = tmp_path / "t.lbrt"
    refused = 0
    for at in range(len(data)):
        other = data[at] ^ (1, 0x80, 0xFF)[at % 3]
        changed.write_bytes(data[:at] + bytes([other]) + data[at + 1:])
        try:
            assert flat(changed) == before, at
        except TraceError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert refused > 300  # the graph can be spared, and so can the index


def test_a_changed_byte_costs_one_piece(small, tmp_path):
    path, rows = small
    data = path.read_bytes()
    changed = tmp_path / "t.lbrt"
    lost = []
    for at in range(8, len(data), 5):
        changed.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:])
        left = 0
        with trace.open(changed, verify=False) as source:
            for chunk in source.chunks():
                expected = rows[chunk.start:chunk.start + len(chunk)]
                assert np.array_equal(chunk.branches, expected), at
                left += len(chunk)
            assert left == len(rows) or source.notes
        lost.append(len(rows) - left)
    assert set(lost) == {0, 200}


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_file_that_is_cut_off(small, tmp_path, share):
    path, rows = small
    data = path.read_bytes()
    cut = tmp_path / "t.lbrt"
    cut.write_bytes(data[:int(len(data) * share)])
    with pytest.raises(TraceError, match="cut off"):
        trace.open(cut)
    with trace.open(cut, verify=False) as source:
        found = np.concatenate([np.empty(0, BRANCH_DTYPE),
                                *(chunk.branches for chunk in source.chunks())])
        assert "were read" in source.notes[0]
    assert np.array_equal(found, rows[:len(found)])
    assert len(found) >= len(rows) * share * 0.4


def test_a_value_that_no_branch_has(tmp_path):
    rows = program(8, 10)
    rows["class"][3] = 16
    path = tmp_path / "t.lbrt"
    with pytest.raises(TraceError, match="class 16"), trace.LbrtWriter(path) as out:
        out.write(rows)
    assert not list(tmp_path.iterdir())


def test_threads_interleaved_at_every_branch(tmp_path):
    parts = [program(seed, 9000) for seed in range(4)]
    rows = np.stack(parts, 1).reshape(-1)
    task = np.tile(np.arange(4, dtype=np.uint32), 9000)
    path = write(tmp_path / "t.lbrt", rows, task=task)
    found, tasks, _ = whole(path)
    assert np.array_equal(found, rows) and np.array_equal(tasks, task)


def test_a_signal_in_the_middle_of_a_block(tmp_path):
    """An interrupted block is another edge; what follows is not disturbed."""
    rows = program(11, 30_000)
    places = np.arange(100, 29_000, 997)
    broken = np.insert(rows, places, rows[places])
    at = places + np.arange(len(places))
    broken["class"][at], broken["cpl_to"][at] = BranchClass.INTERRUPT, 0
    broken["from"][at] += 3
    broken["to"][at] = 0xFFFFFFFF81000000
    path = write(tmp_path / "t.lbrt", broken)
    assert np.array_equal(whole(path)[0], broken)


class Counting:
    """A codec that notes how many rows it decodes and stores."""

    def __init__(self, walk):
        self.walk, self.decoded, self.stored = walk, [], []

    def use(self, version):
        self.walk.use(version)

    def decode(self, count, *rest):
        self.decoded.append(count)
        self.stored.append(count - rest[7])
        self.walk.decode(count, *rest)


def test_windows_are_exact_and_decode_one_piece(tmp_path, monkeypatch, random_branches):
    """Any 64 rows: what is decoded lies in the pieces that they are in, and is not stored."""
    for name, value in (("PIECE_ROWS", 500), ("GROUP_ROWS", 2000), ("_FEW_ROWS", 0)):
        monkeypatch.setattr(lbrt_writer, name, value)
    rows = np.concatenate([program(12, 5000), random_branches(1000), program(13, 4000, 50, 4)])
    rows["cycles"][::97] += 3
    task = (np.arange(len(rows), dtype=np.uint32) // 7) % 3
    path = write(tmp_path / "t.lbrt", rows, task=task)
    with trace.open(path) as source:
        source._walk = count = Counting(source._walk)
        for start in range(0, len(rows), 61):
            count.decoded.clear()
            count.stored.clear()
            assert np.array_equal(source.read(start, start + 64), rows[start:start + 64])
            assert sum(count.stored) <= 64 and len(count.decoded) <= 2
            assert max(count.decoded, default=0) <= 500


def test_windows_between_two_versions_of_the_graph(tmp_path, monkeypatch):
    """More versions than are kept, visited in any order."""
    monkeypatch.setattr(lbrt_writer, "PIECE_ROWS", 50)
    monkeypatch.setattr(lbrt_writer, "GROUP_ROWS", 100)
    monkeypatch.setattr(lbrt_writer, "_FEW_ROWS", 1 << 14)
    rows = program(14, 4000, places=400, noise=0.3)
    path = write(tmp_path / "t.lbrt", rows)
    kinds = [kind for kind, _ in lbrt_reference.parts(path.read_bytes())]
    assert kinds.count(b"GRPH") > 20
    starts = np.random.default_rng(4).permutation(3900)[:400]
    with trace.open(path) as source:
        for start in starts.tolist():
            assert np.array_equal(source.read(start, start + 64), rows[start:start + 64])
