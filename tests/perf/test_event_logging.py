"""What counters log into records goes through every reader and writer, or is missed aloud."""

from __future__ import annotations

import csv
import dataclasses
import json
import struct

import numpy as np
import pytest

from lbrcore import BRANCH_DTYPE, BranchClass
from pylbr import trace
from pylbr.cli import main
from pylbr.files.format import WriteOptions
from pylbr.perf import abi
from pylbr.perf.abi import BranchSample
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.stacks import Event, Samples, Stacks, StacksMetadata
from pylbr.profile import tables
from pylbr.trace import copy
from pylbr.trace.formats import formats, open_trace

CHOSEN = int(BranchSample.USER | BranchSample.ANY | BranchSample.COUNTERS)
#: They add entries up, or have call stacks only: no entry is left that could say it.
SUMS = {"preagg", "autofdo", "profgen", "llvm-profile", "pprof", "go-profile", "folded",
        "speedscope", "speedscope-trace"}
#: Formats of others without a place for it; the writer says what is missing.
WITHOUT = {"champsim", "perfscript"}


def branches(n=3000):
    random = np.random.default_rng(5)
    rows = np.zeros(n, BRANCH_DTYPE)
    rows["from"] = 0x401000 + random.integers(0, 64, n) * 16
    rows["to"] = np.roll(rows["from"], -1) - 8
    rows["class"] = random.choice([BranchClass.COND, BranchClass.NEAR_REL_JMP], n)
    rows["instructions"], rows["cpl_from"], rows["cpl_to"] = 3, 3, 3
    rows["events"] = random.integers(0, 256, (n, 4))
    rows["events"][random.random(n) < 0.5] = 0
    return rows


def samples(n=50, depth=6):
    random = np.random.default_rng(6)
    entries = np.zeros(n * depth, abi.BRANCH_ENTRY_DTYPE)
    entries["from"] = 0x401000 + random.integers(0, 4096, n * depth)
    entries["to"] = 0x401000 + random.integers(0, 4096, n * depth)
    entries["flags"] = abi.EntryFlag.PREDICTED
    return Samples.build(np.arange(n + 1) * depth, entries, ip=0x401000, pid=7, tid=7, time=9,
                         counters=random.integers(0, 256, n * depth).astype("u8"))


def stacks():
    event = Event(name="branches:u", config=4, period=100, branch_sample_type=CHOSEN)
    return Stacks(StacksMetadata(events=(event,)), [samples()])


def of(kind):
    found = [entry.name for entry in formats() if entry.kind == kind and entry.write is not None]
    return [name for name in found if name not in SUMS]


def named(name):
    return next(entry for entry in formats() if entry.name == name)


@pytest.mark.parametrize(("name", "small"),
                         [*((name, False) for name in of("trace")), ("lbrt", True)])
def test_every_trace_format(tmp_path, name, small):
    rows, notes = branches(), []
    part = trace.Part(rows, np.zeros(len(rows), "u4"), np.zeros(len(rows), "u4"))
    columns = BRANCH_DTYPE.names
    source = trace.StreamTrace("<memory>", trace.Metadata(), columns, lambda: iter([part]))
    path = tmp_path / f"out{named(name).suffixes[0]}"
    copy.copy_trace(source, path, WriteOptions(note=notes.append, small=small))
    if name in WITHOUT:
        assert notes
        return
    with open_trace(path) as again:
        found = np.concatenate([chunk.column("events") for chunk in again.chunks()])
    assert found.tolist() == rows["events"].tolist() and not notes


@pytest.mark.parametrize("name", of("stacks"))
def test_every_format_of_stacks(tmp_path, name):
    path, notes = tmp_path / f"out{named(name).suffixes[0]}", []
    copy.copy_stacks(stacks(), path, WriteOptions(note=notes.append))
    if name in WITHOUT:
        assert any("branch counters" in line for line in notes)
        return
    assert not notes
    if name == "entries-csv":
        with open(path, newline="") as file:
            found = [int(row["counters"]) for row in csv.DictReader(file)]
    else:
        with trace.open_stacks(path) as again:
            found = np.concatenate([batch.counters for batch in again.samples()]).tolist()
    assert found == samples().counters.tolist()


def test_what_has_no_place_for_it_is_named_here():
    """A new format carries it, or says that it does not."""
    assert {entry.name for entry in formats() if entry.write} >= SUMS | WITHOUT


def test_perf_is_told_how_wide_counters_are(tmp_path):
    """Feature CPU_PMU_CAPS, without which perf shows none; what a file had stays."""
    path = tmp_path / "perf.data"
    write_perf_data(path, stacks())
    with trace.open_stacks(path) as again:
        head = again.metadata
        records = list(again)
    assert head.pmu_capabilities == (("branch_counter_nr", "4"), ("branch_counter_width", "2"))
    other = StacksMetadata(events=head.events, pmu_capabilities=(
        ("branches", "32"), ("branch_counter_width", "4")))
    write_perf_data(tmp_path / "two", (other, records))
    with trace.open_stacks(tmp_path / "two") as again:
        assert again.metadata.pmu_capabilities == (
            ("branches", "32"), ("branch_counter_width", "4"), ("branch_counter_nr", "4"))
    plain = Event(name="branches:u", config=4, period=100, branch_sample_type=9)
    write_perf_data(tmp_path / "none", (StacksMetadata(events=(plain,)), records))
    with trace.open_stacks(tmp_path / "none") as again:
        assert again.metadata.pmu_capabilities == ()
        assert all(batch.counters is None for batch in again.samples())


def test_a_pipe_has_them_too(tmp_path):
    """What `perf record -o -` writes: attributes and features as records."""
    path, pipe = tmp_path / "perf.data", tmp_path / "pipe"
    write_perf_data(path, stacks())
    data = path.read_bytes()
    at, size = struct.unpack_from("<2Q", data, 40)
    attr = data[104:232]
    head = struct.pack("<IHHI", 64, 0, 8 + 128 + 8, 0)[:8] + attr + struct.pack("<Q", 1)
    pipe.write_bytes(b"PERFILE2" + struct.pack("<Q", 16) + head + data[at:at + size])
    with trace.open_stacks(pipe) as again:
        found = np.concatenate([batch.counters for batch in again.samples()]).tolist()
    assert found == samples().counters.tolist()


def test_tables_have_the_column():
    batch = samples()
    for found in (tables.entry_rows(batch)["counters"],
                  tables.arrow_entries(batch)["counters"].to_numpy()):
        assert found.tolist() == batch.counters.tolist()
    plain = dataclasses.replace(batch, counters=None)
    assert not tables.entry_rows(plain)["counters"].any()


def test_from_a_trace_to_a_table(tmp_path, capsys):
    """`replay -j counter`, `convert` and `inspect`: the counters' own events are among it."""
    path = tmp_path / "in.lbrt"
    rows = branches(20_000)
    with trace.Writer(tmp_path / "in.arrow") as out:
        out.write(rows)
    assert main(["convert", str(tmp_path / "in.arrow"), "-o", str(path)]) == 0
    assert main(["inspect", "--all", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["logged"] == rows["events"].sum(
        axis=0, dtype="u8").tolist()
    data = tmp_path / "out.perf.data"
    assert main(["replay", str(path), "-c", "997", "-j", "any,u,counter", "--cpu", "sierra-forest",
                 "-o", str(data)]) == 0
    capsys.readouterr()
    assert main(["inspect", "--json", str(data)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["logged"] <= found["entries"]
    table = tmp_path / "out.csv"
    assert main(["convert", str(data), "-o", str(table)]) == 0
    with open(table, newline="") as file:
        logged = [int(row["counters"]) for row in csv.DictReader(file)]
    assert sum(map(bool, logged)) == found["logged"] and max(logged) < 256
    with trace.open_stacks(data) as again:
        own = np.concatenate([batch.counters for batch in again.samples()])
    assert own.tolist() == logged
    # Counter 0 samples branches, so that each entry has counted itself.
    assert (own & np.uint64(3) == 1).all()


def test_models_without_logging_refuse_it(tmp_path, capsys):
    with trace.Writer(tmp_path / "in.arrow") as out:
        out.write(branches(2000))
    assert main(["replay", str(tmp_path / "in.arrow"), "-c", "997", "-j", "any,u,counter",
                 "--cpu", "sapphire-rapids", "-o", str(tmp_path / "out.perf.data")]) == 2
    assert "log no events" in capsys.readouterr().err
    assert not (tmp_path / "out.perf.data").exists()
