"""Files that end the Parquet library's process, or that no longer look like ours."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pylbr import trace
from pylbr.cli import main
from pylbr.errors import TraceError
from pylbr.trace import parquet_part
from pylbr.trace.parquet_part import GuardedPart, Part
from pylbr.trace.seal import KEY, SealError, read_seal

DAMAGED = Path(__file__).parent / "damaged"


@pytest.fixture
def sealed(metadata, random_branches, tmp_path):
    path = tmp_path / "t.parquet"
    branches = random_branches(500)
    with trace.Writer(path, metadata) as out:
        out.write(branches)
    return path, branches


@pytest.fixture
def unsealed(sealed):
    """The same by another program."""
    path, branches = sealed
    other = path.with_name("other.parquet")
    table = pq.read_table(path)
    plain = pa.table({name: table.column(name) for name in table.column_names})
    pq.write_table(plain, other, row_group_size=200)
    return other, branches


def test_a_file_that_aborts_the_library_is_one_line(capsys, tmp_path):
    path = DAMAGED / "abort.parquet"
    assert main(["convert", str(path), "-o", str(tmp_path / "out.csv")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(path) in error
    assert list(tmp_path.iterdir()) == []


def test_a_bit_that_hides_the_metadata_is_seen(capsys):
    assert main(["inspect", str(DAMAGED / "hidden-metadata.arrow")]) == 2
    assert "the schemas at its head and in its footer differ" in capsys.readouterr().err


def test_what_ends_the_child_is_named(unsealed, monkeypatch):
    path, _ = unsealed
    part = GuardedPart(str(path), True)
    try:
        assert part.column(0, "from").shape == (200,)
        part._child.kill()
        part._child.wait()
        with pytest.raises(parquet_part.PartError, match="process ended with SIGKILL"):
            part.column(0, "to")
    finally:
        part.close()


def test_other_programs_files_are_read_by_a_child(unsealed, monkeypatch):
    path, branches = unsealed
    monkeypatch.setattr(Part, "column", lambda *_: pytest.fail("read in this process"))
    with trace.open(path) as opened:
        assert np.array_equal(opened.read(0, 500), branches)
        child = opened._files[0]._child
        assert child.poll() is None
    assert child.poll() is not None


def test_a_directory_runs_one_child_at_a_time(unsealed, tmp_path):
    path, branches = unsealed
    folder = tmp_path / "parts"
    folder.mkdir()
    for i in range(4):
        os.link(path, folder / f"{i}.parquet")
    with trace.open(folder) as opened:
        assert np.array_equal(opened.read(450, 1600), np.tile(branches, 4)[450:1600])
        assert sum(file._child is not None for file in opened._files) == 1


def test_our_files_are_read_in_this_process(sealed, monkeypatch):
    path, branches = sealed
    monkeypatch.setattr(parquet_part.subprocess, "Popen", lambda *_, **__: pytest.fail("a child"))
    with trace.open(path) as opened:
        assert np.array_equal(opened.read(0, 500), branches)


def test_the_seal_covers_footer_and_every_column_chunk(sealed):
    """A changed bit is refused before the library is called."""
    path, _ = sealed
    data = path.read_bytes()
    assert KEY in data
    with path.open("rb") as file:
        seal = read_seal(file.fileno())
    metadata = pq.ParquetFile(path).metadata
    assert len(seal.chunks) == metadata.num_columns * metadata.num_row_groups
    chunk = metadata.row_group(0).column(2)
    assert zlib.crc32(data[chunk.dictionary_page_offset:][:chunk.total_compressed_size]) == (
        seal.chunks[2])
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for at in range(footer - 20 - 4 * len(seal.chunks), len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        path.write_bytes(changed)
        with path.open("rb") as file, pytest.raises(SealError):
            read_seal(file.fileno())


def test_a_damaged_page_never_reaches_the_library(sealed, monkeypatch):
    path, _ = sealed
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(
        parquet_part.pq.ParquetFile, "read_row_group", lambda *_, **__: pytest.fail("decoded"))
    with trace.open(path) as opened, pytest.raises(TraceError, match="'from': its checksum"):
        opened.read(0, 1)
