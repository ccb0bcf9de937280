"""The container: what goes in comes out, by column, by chunk, by index, and for others."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE
from pylbr import trace
from pylbr.errors import TraceError
from pylbr.trace import schema, writer

ALL = (*BRANCH_DTYPE.names, "task", "cpu")
BOTH = pytest.mark.parametrize("suffix", [".arrow", ".parquet"])


@pytest.fixture(scope="module")
def write(metadata):
    """``write(path, branches)`` -> path."""

    def write(path, branches, columns=ALL, **kwargs):
        with trace.Writer(path, metadata, columns) as out:
            out.write(branches, **kwargs)
        return path

    return write


@BOTH
def test_round_trip(tmp_path, suffix, write, random_branches, metadata):
    branches, task = random_branches(70_000), np.arange(70_000, dtype=np.uint32)
    path = write(tmp_path / f"t{suffix}", branches, task=task, cpu=3)
    with trace.open(path) as source:
        assert source.metadata == metadata
        assert (source.count, source.columns) == (70_000, schema.COLUMNS)
        chunks = list(source.chunks())
        assert np.array_equal(np.concatenate([c.branches for c in chunks]), branches)
        assert np.array_equal(np.concatenate([c.task for c in chunks]), task)
        assert all((c.cpu == 3).all() for c in chunks)
        assert [c.start for c in chunks] == list(
            np.cumsum([0, *(len(c) for c in chunks)])[:-1]
        )


@BOTH
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_window(tmp_path_factory, suffix, data, write, random_branches):
    path = tmp_path_factory.getbasetemp() / f"window{suffix}"
    branches = random_branches(40_000)
    if not path.exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(writer._SINKS, suffix, (writer._SINKS[suffix][0], 17_000))
            write(path, branches)
    start = data.draw(st.integers(0, 41_000))
    stop = data.draw(st.integers(0, 41_000))
    with trace.open(path) as source:
        assert np.array_equal(source.read(start, stop), branches[start:stop])
        chunks = list(source.chunks(start=start))
        assert sum(map(len, chunks)) == max(40_000 - start, 0)
        if chunks:
            expected = branches[start:start + len(chunks[0])]
            assert np.array_equal(chunks[0].branches, expected)


@BOTH
def test_absent_columns(tmp_path, suffix, write, random_branches):
    branches = random_branches(100)
    path = write(tmp_path / f"t{suffix}", branches, columns=("from", "to", "class"))
    with trace.open(path) as source:
        assert source.columns == ("from", "to", "class")
        chunk = next(source.chunks())
        assert not chunk.column("cycles").any() and chunk.task is None and chunk.cpu is None
        # Privilege follows from the half of the address space.
        assert np.array_equal(chunk.column("cpl_to"), np.where(branches["to"] >> 63, 0, 3))


def test_chunks_of_chosen_columns(tmp_path, write, random_branches):
    branches = random_branches(100)
    path = write(tmp_path / "t.arrow", branches)
    with trace.open(path) as source:
        chunk = next(source.chunks(columns=["class"]))
        assert np.array_equal(chunk.branches["class"], branches["class"])
        assert not chunk.branches["from"].any()
        with pytest.raises(ValueError, match="no such column: colour"):
            next(source.chunks(columns=["colour"]))


def test_a_scan_of_one_column_reads_that_column(tmp_path, monkeypatch, write, random_branches):
    path = write(tmp_path / "t.arrow", random_branches(100_000))
    read = 0
    preadv = os.preadv

    def counting(fd, buffers, offset):
        nonlocal read
        count = preadv(fd, buffers, offset)
        read += count
        return count

    with trace.open(path) as source:
        monkeypatch.setattr(os, "preadv", counting)
        for chunk in source.chunks():
            chunk.column("class")
    assert 100_000 <= read < 140_000


@BOTH
def test_empty_trace(tmp_path, suffix, write, random_branches):
    path = write(tmp_path / f"t{suffix}", random_branches(0))
    with trace.open(path) as source:
        assert source.count == 0
        assert list(source.chunks()) == []
        assert len(source.read(0, 10)) == 0


def test_mapped(tmp_path, write, random_branches):
    branches = random_branches(1000)
    path = write(tmp_path / "t.arrow", branches)
    with trace.open(path, mmap=True) as source:
        assert np.array_equal(source.read(5, 900), branches[5:900])


def test_shrinking_file_is_an_error_not_a_crash(tmp_path, write, random_branches):
    path = write(tmp_path / "t.arrow", random_branches(50_000))
    with trace.open(path) as source:
        os.truncate(path, 1000)
        with pytest.raises(TraceError, match="shrank while column 'from' was read") as caught:
            source.read(40_000, 40_010)
    assert caught.value.offset > 1000


def test_directory_of_parquet_files(tmp_path, write, random_branches):
    branches = random_branches(900)
    folder = tmp_path / "parts"
    folder.mkdir()
    for i in range(3):
        write(folder / f"part-{i}.parquet", branches[300 * i:300 * i + 300])
    with trace.open(folder) as source:
        assert source.count == 900
        assert np.array_equal(source.read(0, 900), branches)


def test_same_bytes_each_time(tmp_path, write, random_branches, metadata):
    branches = random_branches(3000)
    for suffix in (".arrow", ".parquet"):
        digests = set()
        for i, split in enumerate((3000, 1, 1700)):
            with trace.Writer(tmp_path / f"{i}{suffix}", metadata) as out:
                out.write(branches[:split])
                out.write(branches[split:])
            digests.add(hashlib.sha256((tmp_path / f"{i}{suffix}").read_bytes()).digest())
        assert len(digests) == 1


# Other people's tools -----------------------------------------------------------------------


@pytest.mark.slow
@BOTH
def test_pandas_polars_duckdb_read_it_unaided(tmp_path, suffix, write, random_branches):
    duckdb = pytest.importorskip("duckdb")
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    branches = random_branches(1000)
    path = str(write(tmp_path / f"t{suffix}", branches, task=5))
    frame = pandas.read_feather(path) if suffix == ".arrow" else pandas.read_parquet(path)
    table = polars.read_ipc(path) if suffix == ".arrow" else polars.read_parquet(path)
    connection = duckdb.connect()
    if suffix == ".parquet":
        relation = connection.sql(f"select * from '{path}'")
    else:
        arrow = pa.ipc.open_file(path).read_all()  # DuckDB reads Arrow tables by name
        relation = connection.from_arrow(arrow)
    data = relation.fetchnumpy()
    for name in ("from", "to", "class", "cycles", "flags", "cpl_to"):
        assert np.array_equal(frame[name].to_numpy(), branches[name]), name
        assert np.array_equal(table[name].to_numpy(), branches[name]), name
        assert np.array_equal(np.asarray(data[name]), branches[name]), name
    assert np.array_equal(np.stack(frame["events"].to_list()), branches["events"])
    assert np.array_equal(np.stack(table["events"].to_numpy()), branches["events"])
    assert (frame["task"] == 5).all()


@BOTH
def test_a_trace_written_by_others(tmp_path, suffix, random_branches):
    branches = random_branches(500)
    table = pa.table({name: branches[name] for name in ("from", "to", "class", "cycles")})
    path = tmp_path / f"t{suffix}"
    if suffix == ".arrow":
        with pa.ipc.new_file(path, table.schema) as out:
            out.write_table(table, max_chunksize=200)
    else:
        pq.write_table(table, path, row_group_size=200)
    with trace.open(path) as source:
        assert source.columns == ("from", "to", "class", "cycles")
        assert np.array_equal(source.read(150, 450)["cycles"], branches["cycles"][150:450])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"from": np.zeros(3, "u8")}, "needs the columns 'from' and 'to'"),
        ({"from": np.zeros(3, "u4"), "to": np.zeros(3, "u8")}, "column 'from' is uint32"),
        ({"from": pa.array([1, None], "uint64"), "to": np.zeros(2, "u8")}, "has nulls"),
        ({"from": np.zeros(1, "u8"), "to": np.zeros(1, "u8"), "class": np.full(1, 16, "u1")},
         "class 16 in row 0 of this block, but 15 is the greatest"),
    ],
)
def test_foreign_arrow_that_is_no_trace(tmp_path, table, message):
    path = tmp_path / "t.arrow"
    table = pa.table(table)
    with pa.ipc.new_file(path, table.schema) as out:
        out.write_table(table)
    with pytest.raises(TraceError, match=message), trace.open(path) as source:
        source.read(0, 10)


# The writer ---------------------------------------------------------------------------------


def test_nothing_appears_when_writing_fails(tmp_path, write, random_branches, metadata):
    with pytest.raises(RuntimeError), trace.Writer(tmp_path / "t.arrow", metadata) as out:
        out.write(random_branches(10))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@BOTH
def test_values_out_of_range_are_not_written(tmp_path, suffix, write, random_branches):
    branches = random_branches(10)
    branches["flags"][7] = 8
    with pytest.raises(TraceError, match="flags 8 in row 7"):
        write(tmp_path / f"t{suffix}", branches)
    assert list(tmp_path.iterdir()) == []


def test_existing_file_survives_a_failure(tmp_path, write, random_branches, metadata):
    path = write(tmp_path / "t.arrow", random_branches(10))
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), trace.Writer(path, metadata) as out:
        out.write(random_branches(5))
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_writer_refuses_other_names_and_types(tmp_path, write, random_branches):
    with pytest.raises(TraceError, match=r"neither of the suffixes \.arrow and \.parquet"):
        trace.Writer(tmp_path / "t.txt")
    with pytest.raises(TraceError, match="cannot be written: No such file or directory"):
        trace.Writer(tmp_path / "absent" / "t.arrow")
    with pytest.raises(TraceError, match="is a directory"):
        (tmp_path / "d.arrow").mkdir()
        trace.Writer(tmp_path / "d.arrow")
    with trace.Writer(tmp_path / "t.arrow") as out:
        with pytest.raises(ValueError, match="not BRANCH_DTYPE"):
            out.write(np.zeros(3))
        with pytest.raises(ValueError, match="has no such column"):
            out.write(random_branches(3), task=4)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40_000), st.sampled_from(["u1", "u4", "u8"]), st.data())
def test_digest_sees_every_change_of_a_byte(rows, dtype, data):
    column = np.random.default_rng(rows).integers(0, 255, rows).astype(dtype)
    before = schema.digest(column)
    assert len(before) == -(-rows // schema.BLOCK_ROWS)
    i = data.draw(st.integers(0, column.nbytes - 1))
    column.view(np.uint8)[i] ^= data.draw(st.integers(1, 255))
    after = schema.digest(column)
    block = i // (schema.BLOCK_ROWS * column.itemsize)
    assert [j for j, (a, b) in enumerate(zip(before, after, strict=True)) if a != b] == [block]


def test_digest_by_the_definition():
    column = np.random.default_rng(3).integers(0, 2**32, schema.BLOCK_ROWS + 3).astype("u4")
    expected = []
    for block in (column[:schema.BLOCK_ROWS], column[schema.BLOCK_ROWS:]):
        data = block.tobytes()
        padded = data + bytes(-len(data) % 8)
        words = [int.from_bytes(padded[i:i + 8], "little") for i in range(0, len(padded), 8)]
        expected.append((sum(w * (2 * i + 1) for i, w in enumerate(words)) + len(data)) % 2**64)
    assert schema.digest(column).tolist() == expected


# Directories --------------------------------------------------------------------------------


def test_partitioned(tmp_path, metadata, random_branches):
    branches, task = random_branches(1000), np.arange(1000, dtype=np.uint32)
    folder = tmp_path / "t.parquet"
    with trace.PartitionedWriter(folder, metadata, ALL, rows=300) as out:
        out.write(branches[:10], task=task[:10])
        out.write(branches[10:], task=task[10:])
        assert not folder.exists()
    names = [path.name for path in sorted(folder.iterdir())]
    assert names == [f"part-0000{i}.parquet" for i in range(4)]
    with trace.open(folder) as source:
        assert (source.count, source.metadata) == (1000, metadata)
        assert np.array_equal(source.read(0, 1000), branches)
        assert np.array_equal(np.concatenate([c.task for c in source.chunks()]), task)
    with pytest.raises(TraceError, match="exists; remove it"):
        trace.PartitionedWriter(folder)
    with pytest.raises(KeyboardInterrupt), trace.PartitionedWriter(tmp_path / "u", rows=7) as out:
        out.write(branches[:20])
        raise KeyboardInterrupt
    with trace.PartitionedWriter(tmp_path / "empty.parquet") as out:
        pass
    with trace.open(tmp_path / "empty.parquet") as source:
        assert source.count == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.parquet", "t.parquet"]
    # A file of another trace among them is noticed.
    with trace.Writer(folder / "part-00009.parquet") as out:
        out.write(branches[:3])
    with pytest.raises(TraceError, match="files of different traces"):
        trace.open(folder)
