"""Names of code that JITs have made."""

import os

import pytest

from pylbr.perf.stacks import Mmap
from pylbr.profile import perf_map
from pylbr.profile.address_space import AddressSpaces
from pylbr.profile.symbols import Symbols


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr(perf_map, "_DIRECTORY", str(tmp_path))

    def written(text, pid=77):
        (tmp_path / f"perf-{pid}.map").write_text(text)
        return perf_map.PerfMap(pid)

    return written


def test_pieces_are_found(write):
    found = write("1000 10 one\n0x1010 20 LazyCompile:~two a.js:3:4\n5000 0 empty\n")
    assert found.find(0x1000).name == found.find(0x100F).name == "one"
    assert found.find(0x102F) == (0x1010, 0x1030, "LazyCompile:~two a.js:3:4")
    assert found.find(0xFFF) is found.find(0x1030) is found.find(0x5000) is None


def test_the_later_of_two_counts(write):
    assert write("1000 10 old\n1000 8 new\n").find(0x1004).name == "new"
    assert write("1000 10 old\n1000 8 new\n").find(0x1008) is None


def test_a_piece_within_another(write):
    found = write("1000 100 outer\n1040 8 inner\n")
    assert found.find(0x1044).name == "inner" and found.find(0x1050).name == "outer"


def test_lines_that_are_no_pieces(write):
    found = write("\n1000\nx y z\n-5 10 a\n1000 -3 b\n2000 ffffffffffffffff c\n3000 4 d\n\x00\xff")
    assert found.find(0x3001).name == "d"
    assert found.find(0x1000) is found.find(0x2000) is None


def test_another_users_file_is_not_believed(write, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setattr(os, "fstat", lambda fd, real=os.fstat: os.stat_result(
        [*real(fd)[:4], 4243, *real(fd)[5:10]]))
    found = write("1000 10 one\n")
    assert found.find(0x1000) is None and "another user's" in found.problem


def test_a_pipe_is_not_read(write, tmp_path):
    os.mkfifo(tmp_path / "perf-78.map")
    assert "no file" in perf_map.PerfMap(78).problem


def test_places_in_made_code(write):
    write("7f0000001000 40 hot\n")
    spaces = AddressSpaces()
    for pid in (77, 77 + (1 << 22)):  # the second program that the process has executed
        spaces.add(Mmap(pid, pid, 0x7F0000000000, 0x10000, 0, "//anon"))
    for pid in (77, 77 + (1 << 22)):
        place = Symbols(spaces).place(pid, 0x7F0000001008)
        assert (place.function, place.offset) == ("hot", 8)
        assert str(place) == "hot+0x8 (perf-77.map)"
        assert Symbols(spaces).place(pid, 0x7F0000002000).function == ""
