"""perf.data against what others read in it, in both modes, whole and damaged."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from dataclasses import fields

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pylbr import trace
from pylbr.errors import TraceError
from pylbr.perf import abi, data_reader, record_reader, sample_reader
from pylbr.perf._sample_reader import Scanner
from pylbr.perf.stacks import Comm, Event, Exit, Mmap, Samples
from tests.perf.perf_bytes import (
    RECORDS,
    check_records,
    compressed,
    contents,
    perf_file,
    pipe_file,
    record,
    sample,
)

REAL = pytest.mark.parametrize(
    ("name", "samples", "entries"),
    [("perf.data.branch-4.14", 13, 416), ("perf.data.raw_callgraph_branch-3.4", 513, 8208)],
)


def protobuf_text(text: str) -> dict:
    """A text protobuf as nested dicts; every field is a list."""
    stack: list[dict] = [{}]
    for line in text.splitlines():
        if not (line := line.strip()):
            continue
        if line.endswith("{"):
            stack[-1].setdefault(line[:-1].strip(), []).append(child := {})
            stack.append(child)
        elif line == "}":
            stack.pop()
        else:
            name, value = line.split(": ", 1)
            if value.startswith('"'):
                value = re.sub(
                    rb"\\([0-7]{3}|.)",
                    lambda m: bytes([int(m[1], 8)]) if m[1].isdigit() else m[1],
                    value[1:-1].encode("latin-1"),
                )
            else:
                value = {"true": 1, "false": 0}.get(value) if value.isalpha() else int(value)
            stack[-1].setdefault(name, []).append(value)
    return stack[0]


def one(message: dict, name: str, default: object = 0) -> object:
    return message.get(name, [default])[0]


@pytest.fixture(scope="module")
def reference(shared):
    """What the recording project's own reader finds in its file."""
    return protobuf_text(shared("perf.data.branch-4.14.pb_text").read_text())


def test_every_record_equals_the_reference(shared, reference):
    with trace.open_stacks(shared("perf.data.branch-4.14")) as stacks:
        ours = list(stacks)
    flat = []
    for found in ours:
        if isinstance(found, Samples):
            flat += [(found, i) for i in range(len(found))]
        else:
            flat.append(found)
    # The reference is sorted by time; the file has each CPU's buffer in turn.
    flat.sort(key=lambda r: r[0].time[r[1]] if isinstance(r, tuple) else r.time)
    kinds = {"mmap_event", "comm_event", "exit_event", "fork_event", "sample_event"}
    theirs = [event for event in reference["events"] if kinds & set(event)]
    assert len(flat) == len(theirs) == 13 + 31 + 3 + 1
    for mine, other in zip(flat, theirs, strict=True):
        (kind,) = kinds & set(other)
        body, misc = one(other, kind), one(other["header"][0], "misc")
        check = {"sample_event": check_sample, "mmap_event": check_mmap,
                 "comm_event": check_comm, "exit_event": check_exit}[kind]
        check(mine, body, misc)


def check_sample(mine, body, misc):
    samples, i = mine
    assert (int(samples.ip[i]), int(samples.pid[i]), int(samples.tid[i]), int(samples.time[i]),
            int(samples.period[i]), int(samples.misc[i])) == (
        *(one(body, name) for name in ("ip", "pid", "tid", "sample_time_ns", "period")), misc)
    stack = samples.stack(i)
    assert len(stack) == len(body["branch_stack"]) == 32
    for entry, other in zip(stack.tolist(), body["branch_stack"], strict=True):
        flags = abi.entry_flags(
            mispredicted=one(other, "mispredicted"), predicted=one(other, "predicted"),
            in_tx=one(other, "in_transaction"), abort=one(other, "abort"),
            cycles=one(other, "cycles"), kind=one(other, "type"), spec=one(other, "spec"),
        )
        assert entry == (one(other, "from_ip"), one(other, "to_ip"), flags)


def check_mmap(mine, body, misc):
    assert isinstance(mine, Mmap)
    assert (mine.pid & 0xFFFFFFFF, mine.tid, mine.start, mine.length, mine.file_offset,
            mine.path.encode(), mine.misc, mine.time) == (
        *(one(body, name) for name in ("pid", "tid", "start", "len", "pgoff", "filename")), misc,
        one(body["sample_info"][0], "sample_time_ns"))
    if "ino" in body:
        assert (mine.major, mine.minor, mine.inode, mine.generation, mine.prot, mine.flags) == \
            tuple(one(body, n) for n in ("maj", "min", "ino", "ino_generation", "prot", "flags"))


def check_comm(mine, body, misc):
    assert isinstance(mine, Comm)
    assert (mine.pid, mine.tid, mine.name.encode(), mine.exec_) == (
        one(body, "pid"), one(body, "tid"), one(body, "comm"), bool(misc & abi.MISC_EXEC))


def check_exit(mine, body, misc):
    assert isinstance(mine, Exit)
    names = ("pid", "ppid", "tid", "ptid", "fork_time_ns")
    assert (mine.pid, mine.ppid, mine.tid, mine.ptid, mine.time) == tuple(
        one(body, name) for name in names)


def test_head_equals_the_reference(shared, reference):
    with trace.open_stacks(shared("perf.data.branch-4.14")) as stacks:
        head = stacks.metadata
    attr = reference["file_attrs"][0]["attr"][0]
    (event,) = head.events
    assert (event.type, event.config, event.period, event.sample_type, event.branch_sample_type,
            event.name.encode()) == (
        *(one(attr, n) for n in ("type", "config", "sample_period", "sample_type",
                                 "branch_sample_type")), one(reference["event_types"][0], "name"))
    strings = reference["string_metadata"][0]
    for mine, name in (("hostname", "hostname"), ("os_release", "kernel_version"),
                       ("arch", "architecture"), ("cpu_description", "cpu_description"),
                       ("cpuid", "cpu_id")):
        assert getattr(head, mine).encode() == one(strings[name][0], "value")
    assert [word.encode() for word in head.command_line] == [
        one(token, "value") for token in strings["perf_command_line_token"]]
    assert [(b.path.encode(), b.build_id, b.pid & 0xFFFFFFFF, b.misc) for b in head.build_ids] == [
        (one(b, "filename"), one(b, "build_id_hash"), one(b, "pid"), one(b, "misc"))
        for b in reference["build_ids"]]


class Twin:
    """The plain-Python scan in the place of the compiled one."""

    def __init__(self, index):
        self.index = index

    def scan(self, data, at):
        return sample_reader.scan_samples(data, at, self.index)


def same(a, b):
    assert type(a) is type(b)
    if not isinstance(a, Samples):
        return a == b
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)]
    return all(
        x is y is None or (x.dtype == y.dtype and np.array_equal(x, y)) for x, y in pairs
    )


@REAL
def test_real_files_and_the_twin(shared, monkeypatch, name, samples, entries):
    with trace.open_stacks(shared(name)) as stacks:
        compiled = list(stacks)
    batches = [record for record in compiled if isinstance(record, Samples)]
    assert sum(map(len, batches)) == samples
    assert sum(len(batch.entries) for batch in batches) == entries
    monkeypatch.setattr(data_reader, "Scanner", Twin)
    with trace.open_stacks(shared(name)) as stacks:
        plain = list(stacks)
    assert len(plain) == len(compiled)
    assert all(map(same, plain, compiled))


# Made files ---------------------------------------------------------------------------------

WORDS = (abi.SampleType.IDENTIFIER, abi.SampleType.IP, abi.SampleType.TID, abi.SampleType.TIME,
         abi.SampleType.ADDR, abi.SampleType.ID, abi.SampleType.STREAM_ID, abi.SampleType.CPU,
         abi.SampleType.PERIOD)


@st.composite
def indexes(draw):
    """One to three events whose samples can be distinguished."""
    words = st.sets(st.sampled_from(WORDS)).map(lambda kinds: sum(kinds))
    others = st.sampled_from([
        abi.SampleType.READ, abi.SampleType.CALLCHAIN, abi.SampleType.RAW,
        abi.SampleType.BRANCH_STACK])
    count = draw(st.integers(1, 3))
    common = abi.SampleType.IDENTIFIER if count > 1 else 0
    events = tuple(
        Event(
            period=draw(st.integers(0, 9)),
            sample_type=int(draw(words) | sum(draw(st.sets(others))) | common),
            read_format=draw(st.integers(0, 31)),
            branch_sample_type=draw(st.sampled_from([0, 1 << 17, 1 << 19, 3 << 17 | 1 << 19])),
            ids=(100 + i, 200 + i),
        )
        for i in range(count)
    )
    return sample_reader.EventIndex.of(events)


@settings(max_examples=200, deadline=None)
@given(indexes(), st.data())
def test_twin_on_any_bytes(index, data):
    """Samples that are sound, short, too long or senseless: both say the same."""
    ids = st.sampled_from([100, 101, 102, 200, 7])
    number = st.one_of(st.integers(0, 4), st.integers(0, 2**64 - 1), ids)
    parts = []
    for _ in range(data.draw(st.integers(0, 6))):
        kind = data.draw(st.sampled_from([9, 9, 9, 68, 10, 200]))
        first = data.draw(ids) if index.id_word >= 0 else 0
        words = [first, *data.draw(st.lists(number, max_size=30))]
        parts.append(record(kind, struct.pack(f"<{len(words)}Q", *words)))
    window = b"".join(parts)
    window = window[:len(window) - data.draw(st.sampled_from([0, 0, 1, 8, 20]))]
    ours = Scanner(index).scan(window, 0)
    twin = sample_reader.scan_samples(window, 0, index)
    assert (ours.stop, ours.fault) == (twin.stop, twin.fault)
    assert same(ours.samples, twin.samples)


@pytest.mark.parametrize("make", [perf_file, pipe_file])
def test_made_file(tmp_path, make):
    path = tmp_path / "perf.data"
    path.write_bytes(make(RECORDS))
    check_records(contents(path))


def test_pipe_mode_head(tmp_path):
    path = tmp_path / "perf.data"
    path.write_bytes(pipe_file(RECORDS))
    with trace.open_stacks(path) as stacks:
        assert stacks.metadata.hostname == "machine"
        assert stacks.metadata.events[0].ids == (5,)


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("kind", [81, 83])
def test_compressed_records(tmp_path, pieces, kind):
    path = tmp_path / "perf.data"
    path.write_bytes(perf_file(compressed(RECORDS, pieces, kind)))
    found = contents(path)
    batches = [r for r in found if isinstance(r, Samples) and len(r)]
    others = [r for r in found if not isinstance(r, Samples)]
    assert len(others) == 5
    assert np.concatenate([b.ip for b in batches]).tolist() == [0x401010, 0x401012]
    assert sum(len(b.entries) for b in batches) == 2


def test_long_file_crosses_windows(tmp_path):
    stack = tuple((i, i + 1, i) for i in range(32))
    path = tmp_path / "perf.data"
    path.write_bytes(perf_file(b"".join(sample(i, 7, *stack) for i in range(5000))))
    ips = np.concatenate([r.ip for r in contents(path)])
    assert path.stat().st_size > 3 * record_reader._WINDOW
    assert np.array_equal(ips, np.arange(5000))


def test_bomb_in_compressed_records(tmp_path):
    stream = zstandard.ZstdCompressor().compressobj()
    zeros = record(68, bytes(65000)) * 16
    body = b"".join(stream.compress(zeros) for _ in range(400)) + stream.flush()
    pieces = [record(81, body[at:at + 60000]) for at in range(0, len(body), 60000)]
    path = tmp_path / "perf.data"
    path.write_bytes(perf_file(b"".join(pieces)))
    with pytest.raises(TraceError, match="swell to more than 4096 times"):
        contents(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"2ELIFREP" + bytes(200), "big-endian machine"),
        (b"PERFFILE" + bytes(200), "version 1"),
        (b"PERFILE2", "no perf.data"),
        (perf_file(b""), "not ended properly"),
        (perf_file(RECORDS)[:-1], "is cut off: the records reach to byte"),
        (pipe_file(RECORDS)[:-1], "is cut off in the middle of a record"),
        (pipe_file(b""), None),
        (b"PERFILE2" + struct.pack("<Q", 16) + RECORDS, "no event before its first record"),
        (perf_file(record(9, bytes(8))), "a sample of 16 bytes, whose fields need more"),
        (perf_file(struct.pack("<IHH", 9, 0, 4)), "a record of 4 bytes"),
        (perf_file(record(10, bytes(30))), "a record of type 10 is cut off or damaged"),
        (perf_file(record(81, b"no zstd")), "compressed record is damaged"),
        (perf_file(compressed(RECORDS[:-9], 1)), "end in the middle of one"),
        (perf_file(compressed(compressed(RECORDS, 1), 1)), "record within a compressed record"),
    ],
)
def test_bad_files(tmp_path, data, message):
    path = tmp_path / "perf.data"
    path.write_bytes(data)
    if message is None:
        assert contents(path) == []
        return
    with pytest.raises(TraceError, match=message) as caught:
        contents(path)
    assert str(path) in str(caught.value)
    assert caught.value.offset is not None


def test_events_that_samples_do_not_name(tmp_path):
    data = bytearray(pipe_file(RECORDS))
    attr = data[16:16 + 144]
    path = tmp_path / "perf.data"
    path.write_bytes(bytes(data[:16]) + bytes(attr) + bytes(data[16:]))
    with pytest.raises(TraceError, match="several events, whose samples do not state"):
        contents(path)


def survives(path, data):
    """Reads `data`: the records, or None if it is refused as it should be."""
    path.write_bytes(data)
    try:
        return contents(path)
    except TraceError as error:
        assert str(path) in str(error)
        return None


@pytest.mark.parametrize("make", [perf_file, pipe_file, lambda r: perf_file(compressed(r, 3))])
def test_every_truncation_is_refused(tmp_path, make):
    data, path = make(RECORDS), tmp_path / "perf.data"
    whole = len(survives(path, data))
    for end in range(len(data)):
        found = survives(path, data[:end])
        # A pipe may end between two records; it does not contain their number.
        assert found is None or (make is pipe_file and len(found) < whole), end


@pytest.mark.slow
@pytest.mark.parametrize("make", [perf_file, pipe_file, lambda r: perf_file(compressed(r, 3))])
def test_every_changed_byte_is_read_or_refused(tmp_path, make):
    data, path = make(RECORDS), tmp_path / "perf.data"
    for i in range(len(data)):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[i] ^= change
            survives(path, bytes(damaged))


# Files that perf makes here -------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.parametrize(
    "options",
    [["-e", "cpu-clock"], ["-e", "cpu-clock,task-clock", "-z"], ["-e", "cpu-clock", "-g", "pipe"],
     ["-e", "cpu-clock", "-a", "-z", "pipe"]],
    ids=["file", "compressed", "pipe", "compressed-pipe"],
)
def test_what_perf_records(tmp_path, options):
    """No branch stacks without the hardware, but all else: modes, events, sidebands."""
    if shutil.which("perf") is None:
        assert os.environ.get("CI") != "true", "perf is not installed"
        pytest.skip("perf is not installed")
    path, pipe = tmp_path / "perf.data", "pipe" in options
    command = ["perf", "record", "-q", "-F", "2000", "-o", "-" if pipe else str(path),
               *(option for option in options if option != "pipe"),
               "--", "sh", "-c", "for i in $(seq 300000); do :; done"]
    done = subprocess.run(command, capture_output=True, check=False, cwd=tmp_path)
    if done.returncode:
        pytest.skip(f"perf may not record here: {done.stderr.decode()[:200]}")
    if pipe:
        path.write_bytes(done.stdout)
    found = contents(path)
    batches = [record for record in found if isinstance(record, Samples)]
    ours = sorted(
        (int(time), int(tid)) for batch in batches
        for time, tid in zip(batch.time, batch.tid, strict=True)
    )
    text = subprocess.run(
        ["perf", "script", "-f", "-i", str(path), "-F", "tid,time,event", "--ns"],
        capture_output=True, check=True, text=True,
    ).stdout
    theirs = sorted(
        (int(seconds) * 10**9 + int(fraction), int(tid))
        for tid, seconds, fraction in re.findall(r"^ *(-?\d+) +(\d+)\.(\d{9}):", text, re.MULTILINE)
    )
    assert len(ours) > 10 and ours == theirs
    with trace.open_stacks(path) as stacks:
        names = {event.name for event in stacks.metadata.events}
    assert {"cpu-clock"} <= {name.split(":")[0] for name in names}
    assert any(isinstance(record, Comm) and record.name == "sh" for record in found)
    assert any(isinstance(record, Mmap) and "/libc" in record.path for record in found)
