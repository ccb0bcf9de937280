"""The small coding of .lbrt: its twin, its size, damage, and the command that makes it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE
from pylbr import trace
from pylbr.cli import main
from pylbr.errors import TraceError
from pylbr.trace import lbrt_layout, lbrt_reference, lbrt_writer
from tests.trace.test_lbrt import FIELDS, as_reference, program, whole


def write(path, rows, columns=(*FIELDS, "task", "cpu"), **extra):
    with trace.LbrtWriter(path, None, columns, small=True) as out:
        out.write(rows, **extra)
    return path


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1 << 30), count=st.integers(1, 600), places=st.integers(1, 60),
       ways=st.integers(1, 9), noise=st.sampled_from([0.0, 0.05, 0.7]), data=st.data())
def test_fast_and_plain_reader_agree(tmp_path_factory, seed, count, places, ways, noise, data):
    rows = program(seed, count, places, ways, noise)
    rng = np.random.default_rng(seed)
    rows["cycles"][rng.random(count) < data.draw(st.sampled_from([0, 0.01, 0.9]))] += 9
    switches = np.cumsum(rng.random(count) < data.draw(st.sampled_from([0, 0.01, 0.5])))
    task, cpu = (switches % 3 + 100).astype(np.uint32), (switches % 2).astype(np.uint32)
    path = tmp_path_factory.getbasetemp() / "small.lbrt"
    piece, group = data.draw(st.sampled_from([(64, 256), (1 << 20, 1 << 22)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lbrt_writer, "SMALL_ROWS", piece)
        patch.setattr(lbrt_writer, "GROUP_ROWS", group)
        write(path, rows, task=task, cpu=cpu)
    kinds = {kind for kind, _ in lbrt_reference.parts(path.read_bytes())}
    assert lbrt_layout.SMALL in kinds and lbrt_layout.PIECE not in kinds
    _, expected = lbrt_reference.read(path.read_bytes())
    assert as_reference(*whole(path)) == expected == as_reference(rows, task, cpu)
    start = data.draw(st.integers(0, count))
    with trace.open(path) as source:
        assert np.array_equal(source.read(start, start + 64), rows[start:start + 64])


def pieces(path):
    """Bytes of all pieces."""
    return sum(len(payload) for kind, payload in lbrt_reference.parts(path.read_bytes())
               if kind in (lbrt_layout.PIECE, lbrt_layout.SMALL))


def test_smaller_pieces(tmp_path):
    """Choices that follow from earlier ones cost less where several paths guess."""
    rows = program(21, 150_000, places=60, ways=4, noise=0.01)
    small, plain = tmp_path / "small.lbrt", tmp_path / "plain.lbrt"
    write(small, rows, FIELDS)
    with trace.LbrtWriter(plain, None, FIELDS) as out:
        out.write(rows)
    assert np.array_equal(whole(small)[0], rows)
    # 4,352 bytes: the same rows in pieces `PIEC`; those that are written now are smaller.
    assert pieces(small) < min(0.8 * 4352, 0.84 * pieces(plain))


def test_a_changed_byte_costs_one_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(lbrt_writer, "SMALL_ROWS", 200)
    monkeypatch.setattr(lbrt_writer, "GROUP_ROWS", 400)
    rows = program(22, 800, 12)
    path = write(tmp_path / "t.lbrt", rows, FIELDS)
    data, changed, lost = path.read_bytes(), tmp_path / "c.lbrt", set()
    for at in range(8, len(data)):
        changed.write_bytes(data[:at] + bytes([data[at] ^ (1, 0x80, 0xFF)[at % 3]])
                            + data[at + 1:])
        left = 0
        with trace.open(changed, verify=False) as source:
            for chunk in source.chunks():
                assert np.array_equal(
                    chunk.branches, rows[chunk.start:chunk.start + len(chunk)]), at
                left += len(chunk)
            assert left == len(rows) or source.notes
        lost.add(len(rows) - left)
    assert lost == {0, 200}


def test_a_stream_that_contradicts_the_graph():
    """Bytes under a right checksum that no writer wrote: an error, or rows; never a crash."""
    from pylbr.trace._small import Small

    rng = np.random.default_rng(3)
    source = np.array([0, 1, 1, 1, 2, 2], np.uint32)
    target = np.array([1, 1, 2, 3, 1, 2], np.uint32)  # nothing leaves node 3
    coding = Small(source, target, 4, [6])
    coding.use(1)
    one, length = np.zeros(1, np.uint32), np.array([50], np.uint32)
    refused = 0
    for _ in range(300):
        try:
            found = coding.decode(50, one, length, one, rng.bytes(int(rng.integers(0, 40))))
        except ValueError:
            refused += 1
        else:
            assert (source[found[1:]] == target[found[:-1]]).all()
    assert refused > 100
    with pytest.raises(ValueError, match="a place that does not exist"):
        coding.decode(1, one, length, np.array([4], np.uint32), b"")
    with pytest.raises(ValueError, match="a task without a place"):
        coding.decode(1, one + 1, length, one, b"")


def test_convert_makes_it(tmp_path, capsys):
    rows = program(23, 30_000)
    plain, small, again = (tmp_path / f"{name}.lbrt" for name in ("plain", "small", "again"))
    with trace.LbrtWriter(plain, None, (*FIELDS, "task")) as out:
        out.write(rows, task=5)
    assert main(["convert", str(plain), "--small", "-o", str(small)]) == 0
    assert main(["convert", str(small), "-o", str(again)]) == 0
    assert again.read_bytes() == plain.read_bytes()
    assert np.array_equal(whole(small)[0], rows)
    assert main(["convert", str(plain), "--small", "-o", str(tmp_path / "x.parquet")]) != 0
    assert "only a .lbrt trace has a small coding" in capsys.readouterr().err
    assert not (tmp_path / "x.parquet").exists()


def test_rows_of_no_program_stay_plain(tmp_path):
    rows = np.zeros(20_000, BRANCH_DTYPE)
    rng = np.random.default_rng(4)
    rows["from"], rows["to"] = rng.integers(0, 1 << 47, (2, 20_000))
    path = write(tmp_path / "t.lbrt", rows, FIELDS)
    assert np.array_equal(whole(path)[0], rows)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(TraceError, match="damaged"):
        whole(path)
