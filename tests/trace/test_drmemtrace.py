"""drmemtrace: the real file, and small ones made to measure."""

from __future__ import annotations

import gzip
import zipfile

import numpy as np
import pytest

from lbrcore import BranchClass
from pylbr import trace
from pylbr.errors import TraceError
from pylbr.trace import drmemtrace

NAME = "drmemtrace.simple_app.trace.zip"


def obvious(records):
    """The same branches, one record at a time; single thread, no signals."""
    kinds = {11: 2, 12: 1, 13: 0, 14: 4, 15: 3, 16: 5, 48: 0, 49: 6}
    out, last, since, instructions, gaps = [], None, 0, 0, 0
    for kind, size, address in records:
        if kind not in kinds and kind not in (10, 31):
            continue
        instructions += 1
        if last is not None:
            before, length, pc = last
            since += 1
            fall = pc + length
            if before in kinds:
                branch = kinds[before]
                if before == 13 and address == fall:
                    branch = 6
                if before == 14 and address == fall:
                    branch = 7
                out.append((pc, address, branch, since))
                since = 0
            elif address != fall:
                gaps += 1
        last = kind, size, address
    return out, instructions, gaps


@pytest.fixture(scope="module")
def real(shared):
    path = shared(NAME)
    with zipfile.ZipFile(path) as archive:
        records = np.frombuffer(archive.read("chunk.0000"), drmemtrace.RECORD)
    return path, obvious(records.tolist())


def test_real_file(real):
    path, (branches, instructions, gaps) = real
    assert (instructions, gaps) == (136_051, 0)
    with trace.open(path) as source:
        got = np.concatenate([chunk.branches for chunk in source.chunks()])
        tasks = np.concatenate([chunk.task for chunk in source.chunks()])
    assert list(zip(*(got[n].tolist() for n in ("from", "to", "class", "instructions")),
                    strict=True)) == branches
    recorded = ~np.isin(got["class"], [BranchClass.NOT_TAKEN, BranchClass.ZERO_CALL])
    # 12,602 times the next instruction is elsewhere; 12 indirect jumps (of lazily bound PLT
    # entries, and one through a table) are taken to the next instruction.
    with zipfile.ZipFile(path) as archive:
        records = np.frombuffer(archive.read("chunk.0000"), drmemtrace.RECORD)
    length = {int(pc): int(n) for kind, n, pc in records.tolist() if 10 <= kind <= 16}
    elsewhere = [pc + length[pc] != to for pc, to in got[recorded][["from", "to"]].tolist()]
    assert (sum(elsewhere), len(elsewhere)) == (12_602, 12_614)
    near = got[recorded][~np.array(elsewhere)]
    assert set(near["class"].tolist()) == {BranchClass.NEAR_IND_JMP}
    # Between two branches there is straight-line code only.
    assert (got["to"][:-1] <= got["from"][1:]).all()
    assert set(tasks.tolist()) == {1438993}


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_any_block_size_gives_the_same(real, monkeypatch, block):
    path, (branches, _, _) = real
    monkeypatch.setattr(drmemtrace, "_BLOCK", block if block > 1 else 13)
    with trace.open(path) as source:
        chunks = source.chunks()
        got = []
        for chunk in chunks:
            got += chunk.branches["to"].tolist()
            if len(got) > 2000:
                break
    assert got == [to for _, to, _, _ in branches[:len(got)]]


def test_zip_gzip_and_plain_are_one(real, tmp_path):
    path, (branches, _, _) = real
    with zipfile.ZipFile(path) as archive:
        data = archive.read("chunk.0000")
    (tmp_path / "t.gz").write_bytes(gzip.compress(data))
    (tmp_path / "t").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "t.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("chunk.0001", data[1_200_003:])
        archive.writestr("chunk.0000", data[:1_200_003])
    for name in ("t.gz", "t", "t.zip"):
        with trace.open(tmp_path / name) as source:
            count = sum(len(chunk) for chunk in source.chunks())
        assert count == len(branches), name


HEAD = [(25, 0, 4), (28, 12, 4), (28, 9, 0x240)]


def read(path, records):
    path.write_bytes(np.array(HEAD + records, drmemtrace.RECORD).tobytes())
    with trace.open(path) as source:
        chunks = list(source.chunks())
    branches = np.concatenate([chunk.branches for chunk in chunks])
    task = np.concatenate([chunk.task for chunk in chunks])
    cpu = np.concatenate([chunk.cpu for chunk in chunks])
    names = ("from", "to", "class", "instructions")
    return list(zip(*(branches[n].tolist() for n in names), task.tolist(), cpu.tolist(),
                    strict=True))


def test_signal(tmp_path):
    """A jump, then a signal before its target runs; the handler returns to that."""
    found = read(tmp_path / "t", [
        (22, 0, 5), (28, 3, 2),
        (10, 4, 0x100), (11, 2, 0x104), (28, 0, 0x200), (10, 4, 0x900), (10, 2, 0x904),
        (28, 1, 0x906), (10, 4, 0x200), (16, 1, 0x204), (10, 1, 0x300),
    ])
    assert found == [
        (0x104, 0x200, BranchClass.NEAR_REL_JMP, 2, 5, 2),
        (0x200, 0x900, BranchClass.INTERRUPT, 0, 5, 2),
        (0x906, 0x200, BranchClass.IRET, 2, 5, 2),
        (0x204, 0x300, BranchClass.NEAR_RET, 2, 5, 2),
    ]


def test_threads_keep_apart(tmp_path):
    found = read(tmp_path / "t", [
        (22, 0, 5), (10, 4, 0x100), (48, 2, 0x104),
        (22, 0, 6), (28, 3, 1), (14, 5, 0x500), (10, 4, 0x505),
        (22, 0, 5), (10, 4, 0x80), (49, 2, 0x84), (10, 1, 0x86),
    ])
    assert sorted(found) == sorted([
        (0x104, 0x80, BranchClass.COND, 2, 5, 0),
        (0x500, 0x505, BranchClass.ZERO_CALL, 1, 6, 1),
        (0x84, 0x86, BranchClass.NOT_TAKEN, 2, 5, 1),
    ])


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([(99, 0, 0)], "record of unknown type 99"),
        ([(28, 12, 99)], "is of version 99"),
        ([(28, 9, 0x48)], "of an Arm program"),
        ([(28, 9, 0x41)], "was filtered"),
    ],
)
def test_refused(tmp_path, records, message):
    with pytest.raises(TraceError, match=message):
        read(tmp_path / "t", records)


def test_cut_off_and_damaged(real, tmp_path):
    path, _ = real
    with zipfile.ZipFile(path) as archive:
        data = archive.read("chunk.0000")[:60_000]
    (tmp_path / "t").write_bytes(data[:-5])
    with pytest.raises(TraceError, match="cut off in the middle of a record") as caught, \
            trace.open(tmp_path / "t") as source:
        list(source.chunks())
    assert caught.value.offset == 59_988
    whole = path.read_bytes()
    rng = np.random.default_rng(5)
    for i in [*range(40), *rng.integers(40, len(whole), 60).tolist()]:
        damaged = bytearray(whole)
        damaged[i] ^= 0xFF
        (tmp_path / "d.zip").write_bytes(bytes(damaged))
        try:
            with trace.open(tmp_path / "d.zip") as source:
                for _ in source.chunks():
                    pass
        except TraceError as error:
            assert "d.zip" in str(error)
    for end in (1, 30, 70, 5000, len(whole) - 30, len(whole) - 1):
        (tmp_path / "d.zip").write_bytes(whole[:end])
        with pytest.raises(TraceError), trace.open(tmp_path / "d.zip") as source:
            list(source.chunks())


@pytest.mark.parametrize(("records", "message"), [
    ([(28, 9, 0x1040), (22, 4, 7), (24, 4, 7), (10, 4, 0x401000)], "kernel's side"),
    ([(22, 4, 7), (24, 4, 7), (10, 4, 0x401000), (10, 4, 0xFFFFFFFF81000000)], "kernel's side"),
])
def test_kernel_traces_are_refused(tmp_path, records, message):
    """Their branches would all come out as of user mode."""
    with pytest.raises(TraceError, match=message):
        read(tmp_path / "t", records)


def test_the_vsyscall_page_is_of_user_mode(tmp_path):
    found = read(tmp_path / "t", [
        (22, 4, 7), (24, 4, 7), (14, 5, 0x401000), (10, 7, 0xFFFFFFFFFF600000),
        (16, 1, 0xFFFFFFFFFF600007), (10, 4, 0x401005)])
    assert [row[:2] for row in found] == [
        (0x401000, 0xFFFFFFFFFF600000), (0xFFFFFFFFFF600007, 0x401005)]
