"""Traces and stacks: how fast they are read and written, beside what users have today."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lbrcore import BRANCH_DTYPE
from pylbr import trace
from pylbr.perf import abi, brstack
from pylbr.perf._brstack import parse
from pylbr.perf.stacks import Samples

from .conftest import QUICK

COUNT = 1 << (20 if QUICK else 23)
SHARED = Path(os.environ.get("PYLBR_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    """A trace of COUNT branches with every column of BRANCH_DTYPE."""
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("bench") / "t.arrow"
    with trace.Writer(path) as out:
        for _ in range(COUNT >> 18):
            branches = np.zeros(1 << 18, BRANCH_DTYPE)
            branches["from"] = rng.integers(0x400000, 0x800000, len(branches))
            branches["to"] = rng.integers(0x400000, 0x800000, len(branches))
            branches["class"] = rng.integers(0, 6, len(branches))
            out.write(branches)
    return path


def test_scan_of_one_column(versus, container):
    """Counting returns in a file: one byte a branch, digests compared."""
    def ours():
        with trace.open(container) as source:
            return sum(
                int(np.count_nonzero(chunk.column("class") == 5)) for chunk in source.chunks()
            )

    def theirs():
        options = pa.ipc.IpcReadOptions(included_fields=[2])
        with pa.OSFile(str(container)) as file:
            reader = pa.ipc.open_file(file, options=options)
            return sum(
                int(np.count_nonzero(reader.get_batch(i).column("class").to_numpy() == 5))
                for i in range(reader.num_record_batches)
            )

    assert ours() == theirs()
    versus(ours, theirs, COUNT, name="pyarrow", rounds=5)


def test_whole_file(versus, container):
    """Every column into BRANCH_DTYPE, against a table of pyarrow's."""
    def ours():
        with trace.open(container) as source:
            for chunk in source.chunks():
                _ = chunk.branches

    def theirs():
        with pa.OSFile(str(container)) as file:
            pa.ipc.open_file(file).read_all()

    versus(ours, theirs, COUNT, name="pyarrow_table", rounds=2)


def test_window_of_32(versus, container):
    """32 branches in the middle of the file, which is open."""
    with trace.open(container) as source, pa.OSFile(str(container)) as file:
        reader = pa.ipc.open_file(file)
        starts = np.random.default_rng(2).integers(0, COUNT - 32, 16).tolist()

        def ours():
            for start in starts:
                source.read(start, start + 32)

        def theirs():
            for start in starts:
                batch = reader.get_batch(start >> 20)
                batch.slice(start & 0xFFFFF, 32).to_pydict()

        versus(ours, theirs, 16, name="pyarrow_batch", rounds=2)


def test_write(benchmark, tmp_path):
    """Megabytes of branches a second into .arrow and .parquet."""
    branches = np.zeros(1 << 20, BRANCH_DTYPE)
    branches["from"] = np.arange(1 << 20)

    def write(suffix):
        with trace.Writer(tmp_path / f"t{suffix}") as out:
            out.write(branches)

    benchmark.pedantic(write, args=(".arrow",), rounds=3)
    benchmark.extra_info["arrow_MB_s"] = round(branches.nbytes / 1e6 / benchmark.stats["min"])
    print(f"\n{benchmark.name}: {benchmark.extra_info['arrow_MB_s']} MB/s of branches")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A perf.data file of 416 real entries, many times over."""
    source = SHARED / "perf.data.branch-4.14"
    if not source.exists() or shutil.which("perf") is None:
        pytest.skip("needs perf and the recorded files")
    from pylbr.perf.data_writer import PerfDataWriter

    path = tmp_path_factory.mktemp("bench") / "big.perf.data"
    with trace.open_stacks(source) as stacks, PerfDataWriter(path, stacks.metadata) as out:
        samples = [record for record in stacks if isinstance(record, Samples)]
        for _ in range(200 if QUICK else 2000):
            for record in samples:
                out.write(record)
    return path


def perf_script(path, target):
    with open(target, "wb") as file:
        subprocess.run(
            ["perf", "script", "-f", "-F", "ip,brstack", "-i", str(path)], stdout=file,
            stderr=subprocess.DEVNULL, check=True,
        )


def test_perf_script_text(versus, recorded, tmp_path):
    """Parsing text in memory, against perf printing the same; goal: 20 times its speed."""
    perf_script(recorded, tmp_path / "t.txt")
    text = (tmp_path / "t.txt").read_bytes()
    size, window = len(text), 1 << 20
    text += bytes(brstack.PADDING)
    rows = np.empty(window // 64, brstack.ROW_DTYPE)
    entries = np.empty(window // 14, abi.BRANCH_ENTRY_DTYPE)
    offsets = np.empty(len(rows) + 1, np.int64)

    def ours():
        at = found = 0
        while at < size:
            at, count, why, _ = parse(
                text, at, min(at + window, size), rows.view("u1"), entries.view("u1"), offsets
            )
            assert why == brstack.AT_END
            found += int(offsets[count])
        return found

    count = ours()
    versus(ours, lambda: perf_script(recorded, "/dev/null"), count, name="perf_script",
           limit=0.05, rounds=2)


def test_perf_script_file(versus, recorded, tmp_path):
    """The same from the file to arrays of samples: the copy out of the page cache and the arrays
    come on top, in another thread than the parsing."""
    path = tmp_path / "t.txt"
    perf_script(recorded, path)

    def ours():
        with trace.open_stacks(path) as stacks:
            return sum(len(record.entries) for record in stacks.samples())

    versus(ours, lambda: perf_script(recorded, "/dev/null"), ours(), name="perf_script",
           limit=0.05, rounds=8)


def test_perf_data(versus, recorded):
    """A perf.data file into arrays, against perf printing it."""
    def ours():
        with trace.open_stacks(recorded) as stacks:
            return sum(len(record.entries) for record in stacks.samples())

    versus(ours, lambda: perf_script(recorded, "/dev/null"), ours(), name="perf_script", rounds=2)
