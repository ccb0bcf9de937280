"""Text from files never acts on a terminal, nor does it make lines of its own."""

from __future__ import annotations

import struct

import pytest

from pylbr.cli import main
from pylbr.printable import printable
from pylbr.trace import open_stacks
from tests.perf.perf_bytes import RECORDS, perf_file, record

TITLE = b"\x1b]0;owned\x07\x1b[2J"
LINE = b"x\n a 9/9 0.000000001: 1 e: 0x41/0x42/P/-/-/1"


@pytest.mark.parametrize(("text", "shown"), [
    ("prog [a] \N{GREEK SMALL LETTER ALPHA}", "prog [a] \N{GREEK SMALL LETTER ALPHA}"),
    ("a\nb\tc\x1b[2J\x7f", r"a\x0ab\x09c\x1b[2J\x7f"), ("\x9b2J", r"\x9b2J"),
    ("\u202eabc\u2028", r"\u202eabc\u2028"), ("\udcff\ud800", r"\xff\ud800"), ("\0", r"\x00"),
])
def test_printable(text, shown):
    assert printable(text) == shown


def test_bytes_are_kept_where_they_are_asked_for():
    assert printable("\udcff\n", keep_bytes=True) == "\udcff\\x0a"


def comm(name: bytes) -> bytes:
    return record(3, struct.pack("<ii", 7, 7) + name + bytes(8 - len(name) % 8), 0)


@pytest.mark.parametrize("name", [TITLE, LINE, b"\xc2\x9b2J", b"\xff\x1b"])
@pytest.mark.parametrize("command", ["inspect", "report", "report --csv", "report --json"])
def test_names_of_tasks_and_files(tmp_path, capsys, name, command):
    """In what commands print, and in what they say of mistakes."""
    path = tmp_path / "\x1b[2J\n.perf.data"
    path.write_bytes(perf_file(comm(name) + RECORDS.replace(b"/bin/prog", b"/b\x1b[2J\x07gg")))
    assert main([*command.split(), str(path)]) == 0
    found = capsys.readouterr()
    assert not set("\x1b\x07\x9b") & set(found.out + found.err)
    assert main(["convert", str(path), "-o", str(tmp_path / "o.\x1b")]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("name", [TITLE, LINE, b"\xc2\x9b2J"])
def test_names_in_perf_script_text(tmp_path, name):
    source, text = tmp_path / "a.perf.data", tmp_path / "b.perfscript"
    source.write_bytes(perf_file(comm(name) + RECORDS.replace(b"/bin/prog", b"/b\x1b[2J\ngg")))
    assert main(["convert", str(source), "-o", str(text)]) == 0
    data = text.read_text()
    assert not set("\x1b\x07\x9b") & set(data)
    # Two names, a fork, two mappings, two samples.
    assert len(data.splitlines()) == 2 + 1 + 2 + 2 + 0
    with open_stacks(text) as stacks:
        assert sum(len(samples) for samples in stacks.samples()) == 2
