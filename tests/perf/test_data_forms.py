"""What perf.data may hold beside records: AUX areas, tracing data, features, several files."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from pylbr import trace
from pylbr.errors import TraceError
from pylbr.perf import abi, sample_reader
from pylbr.perf._sample_reader import Scanner
from pylbr.perf.stacks import Event, Samples
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


def auxtrace(payload: int) -> bytes:
    """An AUXTRACE record and so much of trace."""
    head = struct.pack("<QQQIIII", payload, 0, 0, 0, 7, 0, 0)
    return record(71, head, 0) + bytes(range(256)) * (payload // 256) + bytes(payload % 256)


def tracing_data(payload: int) -> bytes:
    return record(66, struct.pack("<I", payload)) + b"\xff" * payload + bytes(-payload % 8)


@pytest.mark.parametrize("make", [perf_file, pipe_file])
@pytest.mark.parametrize("extra", [
    auxtrace(0), auxtrace(8), auxtrace(64), auxtrace((1 << 20) - 100), auxtrace(1 << 20),
    auxtrace(5 << 20), tracing_data(0), tracing_data(13), tracing_data(3 << 20),
], ids=len)
def test_data_between_records_is_passed_over(tmp_path, make, extra):
    path = tmp_path / "perf.data"
    path.write_bytes(make(extra + RECORDS))
    check_records(contents(path))
    path.write_bytes(make(RECORDS + extra))
    check_records(contents(path))


def test_a_large_sparse_aux_area_is_not_read(tmp_path):
    path, size = tmp_path / "perf.data", 1 << 32
    aux = auxtrace(0)
    aux = aux[:8] + struct.pack("<Q", size) + aux[16:]
    whole = perf_file(b"")
    data = bytearray(whole)
    struct.pack_into("<Q", data, 48, len(aux) + size + len(RECORDS))
    with open(path, "wb") as file:
        file.write(data + aux)
        file.seek(size, io.SEEK_CUR)
        file.write(RECORDS)
    check_records(contents(path))


@pytest.mark.parametrize("size", [1, 256, 1 << 32, 2**63, 2**64 - 1])
@pytest.mark.parametrize("make", [perf_file, pipe_file])
def test_an_aux_area_larger_than_the_file_is_refused(tmp_path, make, size):
    """A valid size field with nothing there ended the process once."""
    aux = auxtrace(0)
    path = tmp_path / "perf.data"
    path.write_bytes(make(RECORDS + aux[:8] + struct.pack("<Q", size) + aux[16:]))
    with pytest.raises(TraceError, match="cut off in an AUX area"):
        contents(path)


@pytest.mark.parametrize("scan", [
    lambda index, data, at: Scanner(index).scan(data, at),
    lambda index, data, at: sample_reader.scan_samples(data, at, index),
], ids=["compiled", "twin"])
@pytest.mark.parametrize("at", [-1, 81, 1 << 40])
def test_a_scan_outside_of_its_window_is_refused(scan, at):
    index = sample_reader.EventIndex.of((Event(sample_type=0x803),))
    with pytest.raises(ValueError, match="in a window of 80 bytes"):
        scan(index, sample(1, 2, (3, 4, 5), (6, 7, 8)), at)
    assert scan(index, sample(1, 2, (3, 4, 5), (6, 7, 8)), 80)[1:] == (80, "")


def test_data_that_is_no_record_within_compressed_ones(tmp_path):
    path = tmp_path / "perf.data"
    path.write_bytes(perf_file(compressed(auxtrace(8) + RECORDS, 1)))
    with pytest.raises(TraceError, match="a record of type 71 within a compressed record"):
        contents(path)


@pytest.mark.parametrize("kind", [22, 82, 84, 85, 99])
@pytest.mark.parametrize(
    "make", [perf_file, pipe_file, lambda r: perf_file(compressed(r, 3, 83))],
    ids=["file", "pipe", "compressed"])
def test_records_of_other_versions_are_passed_over(tmp_path, kind, make):
    path = tmp_path / "perf.data"
    path.write_bytes(make(record(kind, bytes(16)) + RECORDS + record(kind, b"")))
    found = contents(path)
    ips = np.concatenate([r.ip for r in found if isinstance(r, Samples)])
    assert ips.tolist() == [0x401010, 0x401012]
    assert len([r for r in found if not isinstance(r, Samples)]) == 5


# Pipe mode ------------------------------------------------------------------------------------


def attributes(*ids: int) -> bytes:
    attr = perf_file(b"")[104:232]
    return record(64, attr + struct.pack(f"<{len(ids)}Q", *ids))


def description(name: bytes, *ids: int) -> bytes:
    attr = perf_file(b"")[104:232]
    body = struct.pack("<QII", abi.Feature.EVENT_DESC, 1, 128) + attr
    body += struct.pack("<I", len(ids)) + struct.pack("<I", len(name)) + name
    return record(80, body + struct.pack(f"<{len(ids)}Q", *ids))


@pytest.mark.parametrize("ids", [(), (5,), (5, 6)])
@pytest.mark.parametrize("order", [1, -1])
def test_features_stand_before_or_after_the_attributes(tmp_path, ids, order):
    path = tmp_path / "perf.data"
    head = b"".join([attributes(*ids), description(b"cycles\0\0", *ids)][::order])
    path.write_bytes(b"PERFILE2" + struct.pack("<Q", 16) + head + RECORDS)
    with trace.open_stacks(path) as stacks:
        (event,) = stacks.metadata.events
        assert (event.name, event.ids) == ("cycles", ids)
        check_records(list(stacks))


def test_an_event_after_the_first_record_is_refused(tmp_path):
    """Its samples would be read in the layout of the first."""
    path = tmp_path / "perf.data"
    path.write_bytes(pipe_file(RECORDS + attributes(9) + RECORDS))
    with pytest.raises(TraceError, match="an event is declared after the first record"):
        contents(path)


# Features ---------------------------------------------------------------------------------------


def with_features(features: dict[int, bytes | tuple[int, int]]) -> bytes:
    """A file with feature sections: their bytes, or offset and size as the table has them."""
    data = bytearray(perf_file(RECORDS))
    for bit in features:
        data[72 + bit // 8] |= 1 << bit % 8
    at, table, bodies = len(data) + 16 * len(features), b"", b""
    for _, body in sorted(features.items()):
        place = body if isinstance(body, tuple) else (at + len(bodies), len(body))
        bodies += b"" if isinstance(body, tuple) else body
        table += struct.pack("<QQ", *place)
    return bytes(data) + table + bodies


@pytest.mark.parametrize("bit", [*range(1, 32), 40, 63, 64, 127, 128, 255])
def test_features_of_no_bytes(tmp_path, bit):
    path = tmp_path / "perf.data"
    path.write_bytes(with_features({bit: b""}))
    with trace.open_stacks(path) as stacks:
        assert len(stacks.metadata.other_features) == 1
        check_records(list(stacks))


@pytest.mark.parametrize("body", [b"\xff" * 9, (1 << 40, 1 << 40), (0, 1 << 62)])
def test_unknown_features_never_cost_the_samples(tmp_path, body):
    path = tmp_path / "perf.data"
    path.write_bytes(with_features({13: body, 31: body, 200: body, 3: b"\4\0\0\0abc\0"}))
    with trace.open_stacks(path) as stacks:
        assert stacks.metadata.hostname == "abc"
        assert stacks.metadata.other_features == ("CPU_TOPOLOGY", "PMU_CAPS", "feature 200")
        check_records(list(stacks))


# Directories and standard input ------------------------------------------------------------------


def test_a_directory_of_data_files(tmp_path):
    """As perf record --threads writes them: a file without a head for each thread."""
    path = tmp_path / "perf.data"
    path.mkdir()
    (path / "data").write_bytes(perf_file(RECORDS))
    for i in range(12):
        records = sample(i, 7, (i, 9, 2)) * 3
        (path / f"data.{i}").write_bytes(compressed(records, 2) if i % 2 else records)
    (path / "kcore_dir").mkdir()
    assert trace.formats.detect(path).name == "perf.data"
    found = contents(path)
    check_records(found[:6])
    ips = np.concatenate([r.ip for r in found[6:] if isinstance(r, Samples)])
    assert ips.tolist() == [i for i in range(12) for _ in range(3)]
    (path / "data.3").write_bytes(sample(3, 7)[:-2])
    with pytest.raises(TraceError, match=r"data\.3.*cut off in the middle of a record"):
        contents(path)


