"""Rows of readers, writers and the container of traces."""

from __future__ import annotations

import lzma
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from lbrcore import BRANCH_DTYPE, ENTRY_DTYPE
from pylbr import trace
from pylbr.bench.child import cost_of, first_of, tool
from pylbr.bench.contest import Contender, Contest, Row, Setting
from pylbr.bench.programs import recorded_trace
from pylbr.extras import needed
from pylbr.perf.abi import SampleType
from pylbr.perf.batch import SampleBatch
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.entries import perf_samples
from pylbr.perf.script_writer import write_perf_script
from pylbr.perf.stacks import Comm, Event, Mmap, Samples, Stacks, StacksMetadata

__all__ = ["ROWS"]

DEPTH: Final = 32
_USER_ANY: Final = 9
_KIND: Final = int(SampleType.IP | SampleType.TID | SampleType.TIME | SampleType.PERIOD
                   | SampleType.BRANCH_STACK)
METADATA: Final = StacksMetadata(
    events=(Event(name="branches:u", sample_type=_KIND, branch_sample_type=_USER_ANY),))
_HEAD: Final = (Comm(7, 7, "program", True), Mmap(7, 7, 0x401000, 0x20000, 0, "/program"))
_PREFIX: Final = 1 << 20  # rows that the slow alternatives of the container get


def stacks(samples: int) -> SampleBatch:
    """Samples whose branches come from 5,000 places, the near ones oftener."""
    random = np.random.default_rng(3)
    entries = np.zeros((samples, DEPTH), ENTRY_DTYPE)
    places = random.geometric(1 / 800, (samples, DEPTH)) % 5000
    entries["from"] = 0x401000 + places * 13
    entries["to"] = 0x401000 + random.permutation(5000)[places] * 13
    entries["info"] = (
        np.uint64(1 << 60) | random.integers(0, 6, entries.shape).astype("u8") << np.uint64(56)
        | random.integers(1, 200, entries.shape).astype("u8")
        | (random.random(entries.shape) < 0.05).astype("u8") << np.uint64(63))
    return SampleBatch.build(
        np.full(samples, 0x401000), entries, pid=7, tid=7, time=np.arange(samples) * 1000)


def _perf_samples(setting: Setting) -> Samples:
    return perf_samples(stacks(20_000 if setting.quick else 200_000), _USER_ANY)


def _stream(samples: Samples) -> Stacks:
    return Stacks(METADATA, iter((*_HEAD, samples)), "samples")


def _perf_script(path: Path, setting: Setting) -> Callable[[], object] | str:
    """perf printing a file, which is what other programs read of it."""
    return first_of(lambda: tool("perf", "linux-perf"), lambda perf: lambda: cost_of(
        [perf, "script", "-i", path, "-F", "ip,brstack"], setting.directory).elapsed)


def write_data(setting: Setting) -> Contest:
    """Samples to a finished perf.data, beside the bare bytes to the same disk."""
    samples, path = _perf_samples(setting), setting.directory / "perf.data"
    write_perf_data(path, (METADATA, [*_HEAD, samples]))
    data = path.read_bytes()

    def bare() -> None:
        with open(setting.directory / "bare", "wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())

    return Contest("bytes", Contender(
        lambda: write_perf_data(path, (METADATA, [*_HEAD, samples])), len(data)),
        {"bare bytes, fsync": Contender(bare, len(data))})


def write_text(setting: Setting) -> Contest:
    """Samples as text of perf script, beside perf printing the same."""
    samples, path = _perf_samples(setting), setting.directory / "perf.data"
    write_perf_data(path, (METADATA, [*_HEAD, samples]))
    count, text = len(samples.entries), setting.directory / "x.perfscript"
    return Contest("entries", Contender(
        lambda: write_perf_script(text, _stream(samples)), count),
        {"perf script": Contender(_perf_script(path, setting), count)})


def _counted(path: Path) -> None:
    with trace.open_stacks(path) as source:
        assert sum(len(found) for found in source.samples())


def read_data(setting: Setting) -> Contest:
    """A perf.data into arrays, beside perf printing it."""
    samples, path = _perf_samples(setting), setting.directory / "perf.data"
    write_perf_data(path, (METADATA, [*_HEAD, samples]))
    count = len(samples.entries)
    return Contest("entries", Contender(lambda: _counted(path), count),
                   {"perf script": Contender(_perf_script(path, setting), count)})


def read_text(setting: Setting) -> Contest:
    """Text of perf script into arrays, beside perf printing it."""
    samples, path = _perf_samples(setting), setting.directory / "perf.data"
    text = setting.directory / "x.perfscript"
    write_perf_data(path, (METADATA, [*_HEAD, samples]))
    write_perf_script(text, _stream(samples))
    count = len(samples.entries)
    return Contest("entries", Contender(lambda: _counted(text), count),
                   {"perf script": Contender(_perf_script(path, setting), count)})


def _rows(setting: Setting) -> tuple[NDArray[np.void], tuple[str, ...], Path]:
    """Rows of a program's trace, which columns it has, and its file."""
    path = recorded_trace(setting)
    with trace.open(path) as source:
        rows = source.read(0, 1 << (21 if setting.quick else 24))
        columns = tuple(name for name in source.columns if name != "task")
    return rows, columns, path


def _written(kind: Callable[..., Any], path: Path, columns: tuple[str, ...],
             rows: NDArray[np.void]) -> Callable[[], None]:
    def write() -> None:
        with kind(path, None, columns) as out:
            out.write(rows)
    return write


def _read(path: Path) -> Callable[[], None]:
    def read() -> None:
        with trace.open(path) as source:
            for chunk in source.chunks():
                _ = chunk.branches
    return read


def _parquet(call: Callable[[], Callable[[], object]]) -> Callable[[], object] | str:
    """A contender that needs pyarrow."""
    def use(_: str) -> Callable[[], object]:
        needed("pyarrow.parquet")
        return call()
    return first_of(lambda: "", use)


def container_write(setting: Setting) -> Contest:
    """Rows in memory to a finished file."""
    rows, columns, _ = _rows(setting)
    place = setting.directory
    target = np.empty_like(rows)

    def copy() -> None:
        target.view(np.uint8)[:] = rows.view(np.uint8)

    return Contest("branches", Contender(
        _written(trace.LbrtWriter, place / "t.lbrt", columns, rows), len(rows)), {
        ".parquet": Contender(_parquet(lambda: _written(
            trace.Writer, place / "t.parquet", columns, rows)), len(rows), once=setting.quick),
        "memcpy of the rows": Contender(copy, len(rows))})


def container_read(setting: Setting) -> Contest:
    """A file to rows in memory."""
    rows, columns, _ = _rows(setting)
    ours, theirs = setting.directory / "t.lbrt", setting.directory / "t.parquet"
    _written(trace.LbrtWriter, ours, columns, rows)()

    def other() -> Callable[[], object]:
        _written(trace.Writer, theirs, columns, rows)()
        return _read(theirs)

    return Contest("branches", Contender(_read(ours), len(rows)),
                   {".parquet": Contender(_parquet(other), len(rows))})


def count_of(source: trace.Trace) -> int:
    """Branches of a file of ours, which has their number."""
    assert source.count is not None
    return source.count


def container_window(setting: Setting) -> Contest:
    """64 branches anywhere in a file that is open."""
    rows, columns, path = _rows(setting)
    source = trace.open(path)
    starts = iter(np.random.default_rng(3).integers(0, 1 << 40, 1 << 20).tolist())
    close: list[Callable[[], object]] = [source.close]

    def window(of: trace.Trace) -> Callable[[], None]:
        def look() -> None:
            start = next(starts) % (count_of(of) - 64)
            assert len(of.read(start, start + 64)) == 64
        return look

    def other() -> Callable[[], object]:
        theirs = setting.directory / "t.parquet"
        _written(trace.Writer, theirs, columns, rows)()
        opened = trace.open(theirs)
        close.append(opened.close)
        return window(opened)

    return Contest("windows", Contender(window(source)), {".parquet": Contender(_parquet(other))},
                   clock=time.thread_time, close=close)


def container_size(setting: Setting) -> Contest:
    """Bits per branch, table and index included; of the first million where it is slow."""
    rows, columns, path = _rows(setting)
    with trace.open(path) as source:
        count = count_of(source)
    few = rows[:_PREFIX]
    packed = np.zeros(len(few), [("f", "u8"), ("t", "u8"), ("i", "u2"), ("c", "u1")])
    packed["f"], packed["t"], packed["c"] = few["from"], few["to"], few["class"]
    packed["i"] = few["instructions"]

    def parquet() -> Callable[[], object]:
        target = setting.directory / "t.parquet"
        _written(trace.Writer, target, columns, few)()
        return lambda: 8 * target.stat().st_size / len(few)

    return Contest("bit/branch", Contender(lambda: 8 * path.stat().st_size / count), {
        ".parquet": Contender(_parquet(parquet)),
        "rows, zstd -3": Contender(lambda: 8 * len(zstandard.ZstdCompressor(3).compress(
            packed.tobytes())) / len(few)),
        "rows, xz -9": Contender(
            "only with --full" if setting.quick
            else lambda: 8 * len(lzma.compress(packed.tobytes(), preset=9)) / len(few)),
        "rows in memory": Contender(lambda: 8.0 * BRANCH_DTYPE.itemsize),
    }, kind="size")


ROWS: Final = (
    Row("read.perf-data", "read perf.data", read_data),
    Row("read.perf-script", "read text of perf script", read_text),
    Row("write.perf-data", "write perf.data", write_data),
    Row("write.perf-script", "write text of perf script", write_text),
    Row("container.write", "write a trace", container_write),
    Row("container.read", "read a trace", container_read),
    Row("container.window", "64 branches anywhere", container_window),
    Row("container.size", "size of a trace", container_size),
)
