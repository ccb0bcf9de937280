"""Damaged, truncated and swollen files: right, or refused with file and offset."""

from __future__ import annotations

import gzip
import lzma
import os
import resource
import struct
import subprocess
import sys
import zlib
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import zstandard

from lbrcore import BRANCH_DTYPE
from pylbr import trace
from pylbr.errors import TraceError
from pylbr.files import source
from pylbr.files.source import ByteSource
from pylbr.trace import formats

SUFFIXES = (".arrow", ".parquet")


def everything(path):
    """All of a trace's content, or None if it is refused as it should be."""
    try:
        with trace.open(path) as opened:
            chunks = list(opened.chunks())
            return (
                opened.metadata, opened.columns,
                b"".join(chunk.branches.tobytes() for chunk in chunks),
                b"".join(chunk.column("task").tobytes() for chunk in chunks),
            )
    except TraceError as error:
        assert str(path) in str(error)
        return None


@pytest.fixture(scope="module")
def small(metadata, random_branches, tmp_path_factory):
    """Bytes of a small container of each kind, by suffix."""
    found = {}
    for suffix in SUFFIXES:
        path = tmp_path_factory.mktemp("small") / f"t{suffix}"
        with trace.Writer(path, metadata, ("cycles", "events", "task")) as out:
            out.write(random_branches(40), task=3)
        found[suffix] = path.read_bytes()
    return found


def check_truncations(data, path, step):
    path.write_bytes(data)
    whole = everything(path)
    assert whole is not None
    for end in range(0, len(data), step):
        path.write_bytes(data[:end])
        assert everything(path) is None, end


def check_changes(data, path, step):
    """A changed byte is refused or, where it stands for nothing, changes nothing."""
    path.write_bytes(data)
    whole = everything(path)
    refused = 0
    for i in range(0, len(data), step):
        damaged = bytearray(data)
        damaged[i] ^= (0x01, 0x80, 0xFF)[i % 3]
        path.write_bytes(bytes(damaged))
        found = everything(path)
        assert found in (None, whole), i
        refused += found is None
    assert refused > len(data) / step / 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_some_damage(small, tmp_path, suffix):
    check_truncations(small[suffix], tmp_path / f"t{suffix}", 53)
    check_changes(small[suffix], tmp_path / f"t{suffix}", 29)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_truncation(small, tmp_path, suffix):
    check_truncations(small[suffix], tmp_path / f"t{suffix}", 1)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_byte(small, tmp_path, suffix):
    check_changes(small[suffix], tmp_path / f"t{suffix}", 1)


def test_damage_is_named_with_its_place(metadata, random_branches, tmp_path):
    path = tmp_path / "t.arrow"
    branches = random_branches(60_000)
    with trace.Writer(path, metadata) as out:
        out.write(branches)
    data = bytearray(path.read_bytes())
    at = data.index(branches["to"][50_000:50_004].tobytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    with trace.open(path) as opened:
        assert np.array_equal(opened.read(0, 40_000), branches[:40_000])
        with pytest.raises(TraceError, match="column 'to' is damaged: its digest") as caught:
            opened.read(50_000, 50_001)
    assert caught.value.offset <= at < caught.value.offset + 8 * 16_384
    with trace.open(path, verify=False) as opened:
        assert opened.read(50_000, 50_001)["to"] != branches["to"][50_000]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cut_off_end_is_named_with_its_place(small, tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    path.write_bytes(small[suffix][:-9])
    with pytest.raises(TraceError) as caught:
        trace.open(path)
    size = len(small[suffix]) - 9
    assert size - 16 <= caught.value.offset < size, str(caught.value)


def test_a_damaged_footer_of_parquet_is_named_with_its_place(small, tmp_path):
    path, data = tmp_path / "t.parquet", bytearray(small[".parquet"])
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[footer:footer + 8] = bytes(8)
    path.write_bytes(bytes(data))
    with pytest.raises(TraceError, match="is damaged") as caught:
        trace.open(path)
    assert caught.value.offset == footer


def test_csv_truncation_and_damage(tmp_path):
    path = tmp_path / "t.csv"
    text = b"from,to,class,cycles,task\n" + b"".join(
        b"0x%x,0x%x,COND,%d,7\n" % (i, i * 9, i) for i in range(1, 9))
    path.write_bytes(text)
    whole = everything(path)
    assert whole is not None
    for i in range(len(text)):
        for change in (0x01, 0x10, 0x80, 0xFF):
            damaged = bytearray(text)
            damaged[i] ^= change
            path.write_bytes(bytes(damaged))
            everything(path)  # text has no digest: another number is another number
        path.write_bytes(text[:i])
        everything(path)


# Compressed input ----------------------------------------------------------------------------

PACK = {
    "gzip": gzip.compress, "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}
ALL_PACKS = pytest.mark.parametrize("kind", PACK)
PLAIN = os.urandom(3000) + bytes(70_000)


def unpacked(path, size=1000):
    with ByteSource(path) as opened:
        parts = []
        while part := opened.read(size):
            assert len(part) <= size
            parts.append(part)
        assert opened.offset == sum(map(len, parts))
    return b"".join(parts)


@ALL_PACKS
@pytest.mark.parametrize("size", [1, 999, 1 << 20])
def test_decompression(tmp_path, kind, size):
    path, data = tmp_path / "t", PACK[kind](PLAIN)
    skippable = struct.pack("<II", 0x184D2A53, 5) + b"12345" if kind == "zstd" else b""
    for members in (data, data * 3, skippable + data + skippable, data + bytes(64)):
        path.write_bytes(members)
        assert unpacked(path, size) == PLAIN * max(1, members.count(data[:60])), len(members)


@ALL_PACKS
def test_every_truncated_member(tmp_path, kind):
    path, data = tmp_path / "t", PACK[kind](PLAIN)
    for end in [*range(7, len(data), 17), *range(len(data) - 20, len(data))]:
        path.write_bytes(data[:end])
        with pytest.raises(TraceError, match=f"the {kind} file is (cut off|damaged)"):
            unpacked(path)


@ALL_PACKS
def test_every_damaged_member(tmp_path, kind):
    path, data = tmp_path / "t", PACK[kind](PLAIN)
    wrong = []
    for i in range(6, len(data), 7):
        damaged = bytearray(data)
        damaged[i] ^= 0x55
        path.write_bytes(bytes(damaged))
        try:
            if unpacked(path, 1 << 20) != PLAIN:
                wrong.append(i)
        except TraceError:
            pass
    assert wrong == []


@ALL_PACKS
def test_garbage_behind_the_end(tmp_path, kind):
    path = tmp_path / "t"
    path.write_bytes(PACK[kind](PLAIN) + b"garbage")
    with pytest.raises(TraceError, match="after its end"):
        unpacked(path)


def bomb(kind, path, mebibytes):
    """Zeros, compressed as far as they go."""
    engine = {
        "gzip": lambda: zlib.compressobj(9, wbits=31), "xz": lzma.LZMACompressor,
        "zstd": lambda: zstandard.ZstdCompressor(level=19).compressobj(),
    }[kind]()
    with open(path, "wb") as file:
        for _ in range(mebibytes):
            file.write(engine.compress(bytes(1 << 20)))
        file.write(engine.flush())


@pytest.mark.slow
@ALL_PACKS
def test_bombs_are_refused_or_streamed_in_little_memory(tmp_path, kind):
    path = tmp_path / "bomb"
    bomb(kind, path, 300)
    code = (
        "import resource, sys\nfrom pylbr.errors import TraceError\n"
        "from pylbr.files.source import ByteSource\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nrefused = False\n"
        "try:\n    with ByteSource(sys.argv[1]) as opened:\n"
        "        while opened.read(1 << 18): pass\n"
        "except TraceError as error:\n    refused = 'swells to more than' in str(error)\n"
        "print(refused, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True,
                          check=True)
    refused, grown = done.stdout.split()
    # gzip cannot pass a ratio of 1,032 and is read to its end.
    assert refused == str(kind != "gzip")
    assert int(grown) < 64 << 10
    assert path.stat().st_size * source.MAX_RATIO < 300 << 20 or kind == "gzip"


def test_zstd_window_is_bounded(tmp_path):
    path = tmp_path / "t"
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    engine = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path.write_bytes(engine.compress(os.urandom(1 << 16)) + engine.flush())
    with pytest.raises(TraceError, match="the zstd file is damaged: .*(memory|[Ww]indow)"):
        unpacked(path)


def test_declared_sizes_are_not_believed(tmp_path, small):
    """A footer that claims 2**31 bytes costs no memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = bytearray(small[".arrow"])
    data[-10:-6] = struct.pack("<i", 2**31 - 1)
    path = tmp_path / "t.arrow"
    path.write_bytes(bytes(data))
    assert everything(path) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10


# Finding formats -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["arrow", "parquet", "perf.data"])
def test_a_compressed_container_is_called_so(tmp_path, name):
    magic = {"arrow": b"ARROW1\0\0", "parquet": b"PAR1", "perf.data": b"PERFILE2"}[name]
    (tmp_path / "t.gz").write_bytes(gzip.compress(magic + bytes(200) + b"PAR1"))
    with pytest.raises(TraceError, match=f"is a compressed {name} file; decompress it first"):
        trace.open_any(tmp_path / "t.gz")


def test_what_is_no_file(tmp_path):
    (tmp_path / "empty").touch()
    for path, message in (
        (tmp_path / "absent", "cannot be read: No such file"), (tmp_path / "empty", "is empty"),
        ("/dev/zero", "is no regular file"), (tmp_path, "is of no known format"),
    ):
        with pytest.raises(TraceError, match=message):
            trace.open(path)


def test_a_format_of_another_package(tmp_path, monkeypatch):
    """The entry point group adds formats; ours keep their names."""
    theirs = formats.Format(
        "theirs", "a test", "trace", lambda head: head.raw.startswith(b"THEIRS"),
        lambda path, options: trace.StreamTrace(
            path, trace.Metadata(), ("from", "to", "class"),
            lambda: iter([trace.Part(np.zeros(3, BRANCH_DTYPE))])),
    )
    module = type(sys)("their_module")
    module.FORMAT, module.WRONG = theirs, 5
    monkeypatch.setitem(sys.modules, "their_module", module)
    point = EntryPoint("theirs", "their_module:FORMAT", formats.ENTRY_POINT_GROUP)
    monkeypatch.setattr(formats, "entry_points", lambda group: [point])
    formats.formats.cache_clear()
    try:
        path = tmp_path / "t"
        path.write_bytes(b"THEIRS")
        with trace.open(path) as opened:
            assert len(opened.read(0, 9)) == 3
        wrong = EntryPoint("wrong", "their_module:WRONG", formats.ENTRY_POINT_GROUP)
        monkeypatch.setattr(formats, "entry_points", lambda group: [wrong])
        formats.formats.cache_clear()
        with pytest.raises(TypeError, match="'wrong' of pylbr.formats is no Format"):
            formats.formats()
    finally:
        monkeypatch.undo()
        formats.formats.cache_clear()


def test_random_bytes_are_refused_or_read(tmp_path):
    """No format takes noise for its own and then fails in another way."""
    rng = np.random.default_rng(11)
    path = tmp_path / "t"
    heads = [b"", b"ARROW1\0\0", b"PAR1", b"PERFILE2", b"PK\x03\x04chunk.0", b"from,to\n",
             b"\x1f\x8b\x08", b"          401000 0x1/0x2/P/-/-/0/\n"]
    for i in range(200):
        path.write_bytes(heads[i % len(heads)] + rng.bytes(int(rng.integers(1, 3000))))
        try:
            opened = trace.open_any(path)
            with opened:
                for _ in opened.chunks() if isinstance(opened, trace.Trace) else opened:
                    pass
        except TraceError as error:
            assert str(path) in str(error)
