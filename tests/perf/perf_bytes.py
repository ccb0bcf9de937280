"""perf.data byte by byte, for the tests of its readers."""

from __future__ import annotations

import struct

import zstandard

from pylbr import trace
from pylbr.perf import abi
from pylbr.perf.stacks import Comm, Fork, Lost, Mmap


def record(kind, body, misc=2):
    return struct.pack("<IHH", kind, misc, 8 + len(body)) + body


def perf_file(records: bytes, sample_type: int = 0x803, branch: int = 9) -> bytes:
    """The smallest file mode perf.data: one event, no features."""
    attr = struct.pack("<IIQQQQQ", 0, 128, 0, 1, sample_type, 0, 0) + bytes(24)
    attr += struct.pack("<Q", branch) + bytes(48)
    data_at = 104 + 144
    head = b"PERFILE2" + struct.pack(
        "<QQ6Q4Q", 104, 144, 104, 144, data_at, len(records), 0, 0, 0, 0, 0, 0)
    return head + attr + struct.pack("<QQ", 0, 0) + records


def pipe_file(records: bytes, sample_type: int = 0x803, branch: int = 9) -> bytes:
    """The same in pipe mode, with a feature."""
    attr = perf_file(b"", sample_type, branch)[104:232]
    name = struct.pack("<QI", abi.Feature.HOSTNAME, 8) + b"machine\0"
    return (b"PERFILE2" + struct.pack("<Q", 16) + record(64, attr + struct.pack("<Q", 5))
            + record(80, name) + records)


def sample(ip, pid, *entries):
    body = struct.pack("<QIIQ", ip, pid, pid, len(entries))
    return record(9, body + b"".join(struct.pack("<QQQ", *entry) for entry in entries))


def mmap2(path: bytes, build_id: bytes = b""):
    middle = struct.pack("<BBH20s", len(build_id), 0, 0, build_id) if build_id else \
        struct.pack("<IIQQ", 8, 1, 99, 1)
    body = struct.pack("<iiQQQ", 7, 7, 0x401000, 0x1000, 0x1000) + middle
    body += struct.pack("<II", 5, 2) + path + bytes(8 - len(path) % 8)
    return record(10, body, 2 | (1 << 14 if build_id else 0))


RECORDS = (
    record(3, struct.pack("<ii", 7, 7) + b"prog\0\0\0\0", 2 | 1 << 13)
    + record(7, struct.pack("<iiiiQ", 8, 7, 8, 7, 1234))
    + mmap2(b"/bin/prog") + mmap2(b"/bin/libc", b"\x11" * 20)
    + sample(0x401010, 7, (0x401000, 0x401010, 2), (0x401020, 0x400ff0, 1 << 20 | 1))
    + record(68, b"")
    + sample(0x401012, 7)
    + record(13, struct.pack("<Q", 3))
)


def contents(path):
    with trace.open_stacks(path) as stacks:
        return list(stacks)


def check_records(found):
    comm, fork, first, second, one_sample, lost = found
    assert comm == Comm(7, 7, "prog", True)
    assert fork == Fork(8, 7, 8, 7, 1234)
    assert first == Mmap(7, 7, 0x401000, 0x1000, 0x1000, "/bin/prog", b"", 8, 1, 99, 1)
    assert (second.path, second.build_id) == ("/bin/libc", b"\x11" * 20)
    assert one_sample.offsets.tolist() == [0, 2, 2]
    assert one_sample.ip.tolist() == [0x401010, 0x401012]
    assert one_sample.stack(0).tolist()[1] == (0x401020, 0x400ff0, 1 << 20 | 1)
    assert lost == Lost(3)


def compressed(data: bytes, pieces: int, kind: int = 81) -> bytes:
    """Records as perf record -z writes them: one zstd stream, flushed at each record."""
    stream = zstandard.ZstdCompressor().compressobj()
    step = -(-len(data) // pieces)
    out = []
    for at in range(0, len(data), step):
        body = stream.compress(data[at:at + step])
        body += stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        if kind == 83:
            body = struct.pack("<Q", len(body)) + body + bytes(-len(body) % 8)
        out.append(record(kind, body))
    return b"".join(out)
