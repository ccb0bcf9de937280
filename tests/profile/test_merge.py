"""``pylbr merge``: the sum of many recordings, the same for every number of workers."""

import gzip
import os
import pickle
import signal
import subprocess
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import pylbr.perf._entries as some_module
from pylbr.cli import main
from pylbr.errors import TraceError
from pylbr.files.elf import ElfImage
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, entry_flags
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.stacks import Comm, Event, Mmap, Samples, StacksMetadata
from pylbr.profile.formats import LINKED
from pylbr.profile.inputs import inputs_of
from pylbr.profile.merge import Counts, count_input, merge_inputs
from pylbr.profile.pprof import pprof_bytes

LIBRARY = some_module.__file__


def recording(path, seed, base, samples=40, depth=6, library=LIBRARY):
    """Stacks in some functions of a library that lies elsewhere in each process."""
    rng = np.random.default_rng(seed)
    image = ElfImage(library)
    starts = sorted(start for name, (start, _) in image.functions().items()
                    if library == LIBRARY or name.startswith("f"))[:12]
    n = samples * depth
    entries = np.zeros(n, BRANCH_ENTRY_DTYPE)
    to = base + rng.choice(starts, n).astype(np.uint64)
    entries["to"] = to
    # Newest first: each leaves a little after where the one before it arrived.
    entries["from"][:-1] = to[1:] + rng.integers(1, 9, n - 1).astype(np.uint64)
    entries["from"][-1] = 0x10
    flags = [entry_flags(predicted=True), entry_flags(mispredicted=True)]
    entries["flags"] = np.array(flags)[rng.integers(0, 2, n)]
    offsets = np.arange(0, n + 1, depth)
    pid = 100 + seed
    batch = Samples.build(offsets, entries, ip=to[::depth], pid=pid, tid=pid)
    maps = [Mmap(pid, pid, base + vaddr, size, offset, library)
            for offset, size, vaddr, _ in image.segments]
    metadata = StacksMetadata(events=(Event(name="branches:u", branch_sample_type=9),))
    write_perf_data(path, (metadata, [Comm(pid, pid, "x", True), *maps, batch]))
    return str(path)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A directory with five recordings."""
    return recordings(tmp_path_factory.mktemp("fleet"))


def recordings(place, **kwargs):
    for seed in range(5):
        recording(place / f"{seed}.perf.data", seed, 0x7F00_0000_0000 + (seed << 32), **kwargs)
    return place


@pytest.fixture(scope="module")
def with_lines(tmp_path_factory):
    """A directory with five recordings of a library with debug information, and its path."""
    place = tmp_path_factory.mktemp("lines")
    source, library = place / "x.c", place / "x.so"
    source.write_text("".join(
        f"int f{i}(int a) {{ volatile int b = a; while (b > {i}) b -= 3; return b * {i + 7}; }}\n"
        for i in range(16)))
    subprocess.run(["gcc", "-O1", "-g", "-shared", "-fPIC", "-o", library, source], check=True)
    (place / "fleet").mkdir()
    return recordings(place / "fleet", library=str(library)), str(library)


def merge(*words, binary=LIBRARY):
    return main(["merge", *map(str, words), "--binary", binary])


def summed(names):
    """What the sum must be, counted one after the other."""
    total = {}
    for name in names:
        for edge, count in count_input(name, LIBRARY).edges.items():
            total[edge] = total.get(edge, 0) + count
    return total


@pytest.mark.parametrize("suffix", LINKED)
def test_any_number_of_jobs_and_any_order_give_the_same_bytes(with_lines, tmp_path, suffix):
    fleet, library = with_lines
    names = sorted(map(str, fleet.iterdir()))
    found = set()
    for jobs, order in ((1, names), (1, names[::-1]), (2, names), (5, names)):
        out = tmp_path / f"{jobs}{suffix}"
        assert merge(*order, "-o", out, "-j", jobs, binary=library) == 0
        found.add(out.read_bytes())
    assert len(found) == 1 and found.pop()


def test_sums_and_weights(fleet):
    names = sorted(map(str, fleet.iterdir()))
    once = merge_inputs([(name, 1) for name in names], LIBRARY)
    assert dict(once.edges) == summed(names) and once.samples == 200
    assert once.branches == 5 * 240
    heavy = merge_inputs([(names[0], 3), (names[1], 1)], LIBRARY)
    assert dict(heavy.edges) == summed([names[0]] * 3 + [names[1]])
    assert heavy.branches == 4 * 240


def test_a_directory_a_pattern_and_weights_on_the_command_line(fleet, tmp_path):
    names = sorted(map(str, fleet.iterdir()))
    results = []
    for words in (names, [fleet], [f"{fleet}/*.data"], [f"{fleet}/[0-2]*", *names[3:]]):
        assert merge(*words, "-o", tmp_path / "o.preagg") == 0
        results.append((tmp_path / "o.preagg").read_bytes())
    assert len(set(results)) == 1
    assert merge(*names[1:], "--weighted-input", f"2,{names[0]}", "-o", tmp_path / "w.preagg") == 0
    assert (tmp_path / "w.preagg").read_bytes() != results[0]


@pytest.mark.parametrize("form", ["traces", "branches"])
def test_preaggregated_text_merges_like_the_recordings_it_is_of(fleet, tmp_path, form):
    """Parts may be merged where they are, and the parts' sums later."""
    names = sorted(map(str, fleet.iterdir()))
    for i, name in enumerate(names):
        assert merge(name, "-o", tmp_path / f"{i}.preagg", "--preagg-form", form) == 0
    assert merge(tmp_path, "-o", tmp_path / "sum.preagg", "--preagg-form", form) == 0
    assert merge(*names, "-o", tmp_path / "whole.preagg", "--preagg-form", form) == 0
    assert (tmp_path / "sum.preagg").read_bytes() == (tmp_path / "whole.preagg").read_bytes()
    packed = tmp_path / "0.preagg.gz"
    packed.write_bytes(gzip.compress((tmp_path / "0.preagg").read_bytes()))
    assert count_input(str(packed), LIBRARY) == count_input(str(tmp_path / "0.preagg"), LIBRARY)


def test_a_trace_and_its_container_count_alike(fleet, tmp_path):
    from lbrcore import BRANCH_DTYPE
    from pylbr.trace import LbrtWriter, Metadata, Module, Writer

    image = ElfImage(LIBRARY)
    modules = tuple(Module(LIBRARY, 0x7000_0000 + vaddr, size, offset, image.build_id.hex(), 7)
                    for offset, size, vaddr, _ in image.segments)
    starts = sorted(start for start, _ in image.functions().values())[:8]
    rows = np.zeros(1000, BRANCH_DTYPE)
    rows["to"] = 0x7000_0000 + np.resize(starts, 1000)
    rows["from"][1:] = rows["to"][:-1] + np.uint64(4)
    rows["class"] = 2
    for kind, name in ((Writer, "t.parquet"), (LbrtWriter, "t.lbrt")):
        with kind(tmp_path / name, Metadata(modules=modules), ("task",)) as out:
            out.write(rows, task=7)
    counts = [count_input(str(tmp_path / name), LIBRARY) for name in ("t.parquet", "t.lbrt")]
    assert counts[0] == counts[1] and counts[0].branches == 1000


@pytest.mark.parametrize(("words", "says"), [
    (["{d}/0.perf.data", "{d}/0.perf.data", "-o", "{t}/o.preagg"], "named twice"),
    (["{d}/*.nothing", "-o", "{t}/o.preagg"], "matches no file"),
    (["-o", "{t}/o.preagg"], "no input is named"),
    (["{t}", "-o", "{t}/o.preagg"], "directory without files"),
    (["{d}/0.perf.data", "-o", "{t}/o.txt"], "the suffix chooses the form"),
    (["{d}/0.perf.data", "-o", "{t}/o.preagg", "-j", "0"], "--jobs: at least 1"),
    (["--weighted-input", "0,{d}/0.perf.data", "-o", "{t}/o.preagg"], "a whole number"),
    (["{d}/missing", "-o", "{t}/o.preagg"], "missing: cannot be read"),
    (["{d}/0.perf.data", __file__, "-o", "{t}/o.preagg", "-j", "2"], "of no known format"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_nothing(fleet, tmp_path, capfd, words, says):
    place = tmp_path / "out"
    place.mkdir()
    assert merge(*(word.format(d=fleet, t=place) for word in words)) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and says in lines[0], lines
    assert not list(place.iterdir())


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "x.preagg"
    path.write_text("T 10 20 30 4\nT 10 20 zz 4\n")
    with pytest.raises(TraceError, match="line 2 is no line"):
        count_input(str(path), LIBRARY)


def test_trace_lines_are_not_made_up_of_lines_without_an_origin(tmp_path, capfd):
    path = tmp_path / "x.preagg"
    path.write_text("B 10 20 4 1\nF 20 30 4\n")
    assert merge(path, "-o", tmp_path / "o.preagg") == 2
    assert "--preagg-form branches" in capfd.readouterr().err
    assert merge(path, "-o", tmp_path / "o.preagg", "--preagg-form", "branches") == 0
    assert (tmp_path / "o.preagg").read_text() == path.read_text()


def _end(path, binary):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_one_line(fleet, tmp_path, capfd, monkeypatch):
    from pylbr.profile import merge as module

    monkeypatch.setattr(module, "count_input", _end)
    assert merge(fleet, "-o", tmp_path / "o.preagg", "-j", "2") == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and "worker process was ended" in lines[0]
    assert not list(tmp_path.iterdir())


def test_an_error_comes_out_of_a_worker_as_it_went_in():
    error = TraceError("/x", "is damaged", 18)
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.what, again.offset, str(again)) == (
        "/x", "is damaged", 18, str(error))


def test_any_executor_will_do(fleet):
    pairs = [(name, 1) for name in inputs_of([str(fleet)])]
    with ProcessPoolExecutor(3) as executor:
        assert merge_inputs(pairs, LIBRARY, executor) == merge_inputs(pairs, LIBRARY)


def fields(data):
    """Numbers and values of a message of Protocol Buffers."""
    at, found = 0, []

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        value = varint()
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        found.append((key >> 3, value))
    return found


def test_pprof_has_every_branch_with_its_function(fleet):
    counts = merge_inputs([(name, 1) for name in inputs_of([str(fleet)])], LIBRARY)
    image = ElfImage(LIBRARY)
    profile = counts.profile(image)
    message = fields(pprof_bytes(profile))
    strings = [value.decode() for number, value in message if number == 6]
    places = [dict(fields(value)) for number, value in message if number == 4]
    names = {f[1]: strings[f[3]] for f in (dict(fields(v)) for n, v in message if n == 5)}
    found = {}
    for number, value in message:
        if number == 2:
            sample = dict(fields(value))
            place = places[sample[1][0] - 1]
            values = [v for _, v in fields(b"".join(
                bytes([8]) + part for part in _varints(sample[2])))]
            label = dict(fields(sample[3])) if 3 in sample else {}
            found[place[3], label.get(3, -1)] = tuple(values)
            if 4 in place:
                assert names[dict(fields(place[4]))[1]] == image.function_at(place[3])[0]
    assert found == {edge: count for edge, count in profile.edges.items() if edge[0] != -1}


def _varints(data):
    part = b""
    for byte in data:
        part += bytes([byte])
        if byte < 128:
            yield part
            part = b""


def test_weighting_counts_is_adding_them_so_often():
    one = Counts()
    one.edges[1, 2], one.mispredicted[1, 2], one.branches, one.samples = 5, 2, 5, 1
    sum_, weighted = Counts(), Counts()
    for _ in range(3):
        sum_.add(one)
    weighted.add(one, 3)
    assert sum_ == weighted and weighted.edges[1, 2] == 15
