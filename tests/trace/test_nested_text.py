"""JSON that is nested too deep, with the right checksums, in every file that holds some."""

from __future__ import annotations

import hashlib
import json
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pylbr import trace
from pylbr.errors import TraceError
from pylbr.files.json_text import decode_json
from pylbr.profile import resume
from pylbr.sample import part_file
from pylbr.trace.metadata import CHECK_KEY, METADATA_KEY, Metadata, decode_metadata, encode_metadata
from pylbr.trace.place import PLACE_KEY, Place

DEEP = b"[" * 100_000


def test_it_is_no_value():
    with pytest.raises(ValueError, match="nested too deep"):
        decode_json(DEEP)
    assert decode_json(b"[1]") == [1]


def test_metadata_and_places():
    keys = {METADATA_KEY: DEEP, CHECK_KEY: f"{zlib.crc32(DEEP):08x}".encode()}
    with pytest.raises(ValueError, match="nested too deep"):
        decode_metadata(keys)
    with pytest.raises(ValueError, match="nested too deep"):
        Place.decode(DEEP)


@pytest.mark.parametrize("where", ["metadata", "place"])
def test_a_parquet_file(tmp_path, where):
    path = tmp_path / "x.parquet"
    keys = dict(encode_metadata(Metadata(), ("from", "to")))
    if where == "metadata":
        keys[METADATA_KEY], keys[CHECK_KEY] = DEEP, f"{zlib.crc32(DEEP):08x}".encode()
    else:
        keys[PLACE_KEY] = DEEP
    columns = {name: pa.array([1], pa.uint64()) for name in ("from", "to")}
    pq.write_table(pa.table(columns).replace_schema_metadata(keys), path)
    with pytest.raises(TraceError, match="is damaged"):
        trace.open(path)


def test_a_part_of_a_merge(tmp_path):
    path = tmp_path / "part"
    head = json.dumps([["key"], hashlib.sha256(DEEP).hexdigest()]).encode()
    path.write_bytes(head + b"\n" + DEEP)
    with pytest.raises(TraceError, match="nested too deep"):
        resume._read(path, ["key"])
    path.write_bytes(DEEP + b"\n")
    with pytest.raises(TraceError, match="nested too deep"):
        resume._read(path, ["key"])


def test_a_part_of_a_replay(tmp_path):
    path = tmp_path / "part"
    part_file.write_part(path, {}, {})
    words = path.read_bytes().split(b" ", 4)
    words[3:] = f"{zlib.crc32(DEEP):08x}".encode(), DEEP + b"\n"
    path.write_bytes(b" ".join(words))
    with pytest.raises(TraceError, match="nested too deep"):
        part_file.read_part(path)
