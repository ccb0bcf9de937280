"""Samples out: perf.data, perf script text, counting; each beside its twin in plain Python.

The twins get a part of the samples and the rates are compared, so that a run ends in a minute.
"""

import os
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bench.conftest import QUICK, best_of
from pylbr.bench.rows_files import DEPTH, METADATA, stacks
from pylbr.perf import _script_writer, reference
from pylbr.perf.abi import SampleType
from pylbr.perf.data_writer import PerfDataWriter, write_perf_data
from pylbr.perf.entries import perf_batches, perf_samples
from pylbr.perf.sample_layout import SampleLayout
from pylbr.perf.stacks import Comm, Mmap
from pylbr.profile import _aggregate
from pylbr.profile.aggregate import collect
from pylbr.trace.formats import open_stacks

SAMPLES = 20_000 if QUICK else 200_000
FEW = 200
ROUNDS = 3 if QUICK else 7
USER_ANY = 9
KIND = int(SampleType.IP | SampleType.TID | SampleType.TIME | SampleType.PERIOD
           | SampleType.BRANCH_STACK)  # fmt: skip


@pytest.fixture(scope="module")
def batch():
    """Stacks whose branches come from 5,000 places, the near ones oftener."""
    return stacks(SAMPLES)


@pytest.fixture(scope="module")
def samples(batch):
    return perf_samples(batch, USER_ANY)


def rate(call, items, rounds=ROUNDS):
    """Items a second, best of `rounds`."""
    return items / best_of(call, rounds)


def say(benchmark, unit, ours, others, goal=None):
    """Put the figures where the report finds them: rates, and how many times the others'."""
    info = {f"{unit}_per_s": ours, "goal": goal}
    info |= {f"{unit}_per_s {name}": other for name, other in others.items()}
    info |= {f"times {name}": round(ours / other, 1) for name, other in others.items()}
    benchmark.extra_info.update(info)
    text = "; ".join(f"{name} {v:,.4g} ({ours / v:,.1f} x)" for name, v in others.items())
    aim = f" (goal {goal})" if goal else ""
    print(f"\n{benchmark.name}: {ours:,.4g} {unit}/s{aim}; {text}")


def test_write_perf_data_from_records(benchmark, batch, samples, tmp_path):
    """Records of the facility to a finished file: conversion, packing, write, fsync, rename."""
    path = tmp_path / "perf.data"

    def write():
        with PerfDataWriter(path, METADATA) as writer:
            writer.write(Comm(7, 7, "program"))
            for piece in perf_batches([batch], USER_ANY):
                writer.write(piece)

    write()
    megabytes = path.stat().st_size / 1e6
    ours = rate(write, megabytes)
    room, layout = np.empty(1 << 16, "u8"), SampleLayout(KIND, USER_ANY)
    few = batch.select(slice(0, FEW))

    def in_python():
        offsets, entries, _ = reference.convert(few, USER_ANY)
        part = perf_samples(few, USER_ANY)
        assert len(entries) == len(part.entries) and len(offsets) == FEW + 1
        reference.pack_samples(room, 0, part, layout)

    slow = rate(in_python, megabytes * FEW / SAMPLES, 2)
    say(benchmark, "MB", ours, {"plain Python": slow}, goal=400)
    benchmark.pedantic(write, rounds=3, iterations=1)


def test_write_perf_data(benchmark, samples, tmp_path):
    """Samples in perf's form to a finished file."""
    path = tmp_path / "perf.data"
    write_perf_data(path, (METADATA, [samples]))
    megabytes = path.stat().st_size / 1e6

    def write():
        write_perf_data(path, (METADATA, [samples]))

    data = path.read_bytes()

    def bare():  # what the disk takes: the same bytes, written and synchronised
        with open(tmp_path / "bare", "wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())

    say(benchmark, "MB", rate(write, megabytes), {"the bare bytes": rate(bare, megabytes)},
        goal=400)  # fmt: skip
    benchmark.pedantic(write, rounds=3, iterations=1)


def test_format_perf_script(benchmark, samples, tmp_path):
    """Entries a second as text: ours, plain Python, and ``perf script`` on the same file.

    In batches of the size in which readers and samplers give them.
    """
    entries = len(samples.entries)
    few, batches = part(samples, 0, FEW), [
        part(samples, at, min(at + 2048, SAMPLES)) for at in range(0, SAMPLES, 2048)
    ]  # fmt: skip

    def ours():
        for batch in batches:
            _script_writer.format_stacks(batch, None, True, True, False)

    others = {
        "plain Python": rate(
            lambda: reference.format_stacks(few, None, True, True, False), FEW * DEPTH, 2
        )
    }
    if shutil.which("perf"):
        path = tmp_path / "perf.data"
        write_perf_data(path, (METADATA, [samples]))
        start = time.perf_counter()
        done = subprocess.run(
            ["perf", "script", "-i", path, "-F", "ip,brstack"], check=True, capture_output=True
        )
        others["perf script"] = entries / (time.perf_counter() - start)
        assert done.stdout == _script_writer.format_stacks(samples, None, True, True, False)
    say(benchmark, "entries", rate(ours, entries), others)
    benchmark.pedantic(ours, rounds=3, iterations=1)


def part(samples, first, last):
    """Samples `first` to `last`; each has `DEPTH` entries."""
    return replace(
        samples, offsets=samples.offsets[first : last + 1] - samples.offsets[first],
        entries=samples.entries[first * DEPTH : last * DEPTH],
        **{name: getattr(samples, name)[first:last]
           for name in ("ip", "pid", "tid", "time", "cpu", "period", "event", "misc")},
    )  # fmt: skip


def test_count_edges(benchmark, samples):
    """Entries a second counted by (FROM, TO)."""
    few = part(samples, 0, FEW)

    def ours():
        table = _aggregate.PairTable()
        table.add_edges(samples)
        return table.to_array()

    def with_numpy():
        pairs = np.stack([samples.entries["from"], samples.entries["to"]], axis=1)
        return np.unique(pairs, axis=0, return_counts=True)

    def with_counter():
        return Counter(zip(few.entries["from"].tolist(), few.entries["to"].tolist(), strict=True))

    pairs, counts = with_numpy()
    table = ours()
    assert table["first"].tolist() == pairs[:, 0].tolist()
    assert table["count"].tolist() == counts.tolist()
    entries = len(samples.entries)
    say(benchmark, "entries", rate(ours, entries), {
        "NumPy unique": rate(with_numpy, entries, 1),
        "collections.Counter": rate(with_counter, len(few.entries), 3),
    })  # fmt: skip
    benchmark.pedantic(ours, rounds=3, iterations=1)


def test_collect_perf_data(benchmark, samples, tmp_path):
    """A perf.data file, read and counted at the times of its samples; beside reading it alone.

    The stacks are windows of one way through a program, as those of real ones are.
    """
    path = tmp_path / "perf.data"
    first = np.random.default_rng(5).integers(0, 5000, SAMPLES)
    way = samples.entries[:5000 + DEPTH]
    windows = way[first[:, None] + np.arange(DEPTH)].reshape(-1)
    samples = replace(samples, entries=np.ascontiguousarray(windows))
    programs = [
        Mmap(7, 7, 0x401000, 0x20000, 0, "/first", time=1),
        Comm(7, 7, "second", True, time=SAMPLES * 500),
        Mmap(7, 7, 0x401000, 0x20000, 0, "/second", time=SAMPLES * 500),
    ]
    write_perf_data(path, (METADATA, [*programs, samples]))
    megabytes = path.stat().st_size / 1e6

    def ours():
        with open_stacks(path) as stacks:
            return collect(stacks)

    def reading():
        with open_stacks(path) as stacks:
            return sum(len(batch) for batch in stacks.samples())

    assert ours().samples == reading() == SAMPLES
    say(benchmark, "MB", rate(ours, megabytes), {"reading alone": rate(reading, megabytes)})
    benchmark.pedantic(ours, rounds=3, iterations=1)
