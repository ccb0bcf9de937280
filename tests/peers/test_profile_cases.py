"""Recordings of real programs, from ``pylbr record`` to names and counts of one binary."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from peer_tools import need

from pylbr.cli import main
from pylbr.perf.abi import Record

pytestmark = [pytest.mark.peer, pytest.mark.slow]

CHILD = """
__attribute__((noinline)) void hot_child(void) {
    for (volatile int i = 0; i < 100000; i++) if (i & 1) i += 0;
}
int main(void) { hot_child(); }
"""
TEMPLATE = """
#include <cstdlib>
namespace shop { template<class T> struct Cart {
    __attribute__((noinline)) T add(T a, T b) { return a * 3 + b; } }; }
int main(int, char **v) {
    shop::Cart<long> c; long t = 0;
    for (int i = 0; i < 100000; i++) t = c.add(t, atoi(v[0]));
    return t == 7;
}
"""


def built(place: Path, compiler: str, text: str, suffix: str, *flags: str) -> Path:
    source = place / f"prog{suffix}"
    source.write_text(text)
    subprocess.run([need(compiler), "-O1", *flags, "-o", place / "prog", source], check=True)
    return place / "prog"


def record(data: Path, *words: object) -> Path:
    need("qemu-x86_64")
    subprocess.run(
        [sys.executable, "-m", "pylbr", "record", "-q", "-c", "1009", "-o", data, "--", *words],
        check=True, cwd=data.parent,
    )  # fmt: skip
    return data


def edges(data: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    assert main(["report", str(data), "--json", "-n", "1000"]) == 0
    return json.loads(capsys.readouterr().out)["edges"]


def with_forks_last(source: Path, target: Path) -> None:
    """The same file with every FORK after all other records, though not in time."""
    data = source.read_bytes()
    at, size = struct.unpack_from("<QQ", data, 40)
    start, end, records = at, at + size, []
    while at < end:
        kind, _, length = struct.unpack_from("<IHH", data, at)
        records.append((kind == Record.FORK, data[at : at + length]))
        at += length
    assert any(fork for fork, _ in records)
    records.sort(key=lambda record: record[0])
    target.write_bytes(data[:start] + b"".join(body for _, body in records) + data[end:])


def test_a_childs_code_is_its_own_wherever_its_fork_stands(tmp_path, capsys):
    binary = built(tmp_path, "gcc", CHILD, ".c")
    data = record(tmp_path / "in.perf.data", "bash", "-c", "./prog; exec true")
    other = tmp_path / "out.perf.data"
    with_forks_last(data, other)
    found = edges(other, capsys)
    assert found == edges(data, capsys)
    assert str(found[0]["from_symbol"]).startswith("hot_child+")
    for source in (data, other):
        words = [str(source), "-o", f"{source}.preagg", "--binary", str(binary)]
        assert main(["convert", *words]) == 0
    assert "of the branches are outside of" in capsys.readouterr().err
    text = Path(f"{data}.preagg").read_text()
    assert text == Path(f"{other}.preagg").read_text() != ""


def test_the_binary_of_another_machine_is_found(tmp_path, capsys):
    """By its build-id under another name, by its name with another path; never in vain."""
    binary = built(tmp_path, "gcc", CHILD, ".c", "-Wl,--build-id")
    data = record(tmp_path / "x.perf.data", binary)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    renamed = elsewhere / "renamed"
    os.rename(binary, renamed)
    words = [str(data), "-o", f"{data}.preagg", "--binary"]
    assert main(["convert", *words, str(renamed)]) == 0
    stripped = elsewhere / "prog"
    subprocess.run([need("objcopy"), "--remove-section", ".note.gnu.build-id", renamed, stripped],
                   check=True)  # fmt: skip
    first = Path(f"{data}.preagg").read_bytes()
    assert main(["convert", *words, str(stripped)]) == 0
    assert Path(f"{data}.preagg").read_bytes() == first != b""
    capsys.readouterr()
    os.remove(f"{data}.preagg")
    assert main(["convert", *words, need("objcopy")]) == 2
    error = capsys.readouterr().err
    assert "was not recorded under this path or name" in error and f"{binary} (" in error
    assert not os.path.exists(f"{data}.preagg")


def test_names_are_those_of_the_source_and_of_stubs(tmp_path, capsys):
    binary = built(tmp_path, "g++", TEMPLATE, ".cc", "-Wl,-z,lazy", "-fcf-protection=none")
    found = edges(record(tmp_path / "x.perf.data", binary), capsys)
    targets = {str(edge["to_symbol"]) for edge in found}
    assert {"shop::Cart<long>::add(long, long) (prog)", "strtol@plt (prog)"} <= targets or {
        "shop::Cart<long>::add(long, long) (prog)", "atoi@plt (prog)"} <= targets  # fmt: skip
    assert main(["report", str(tmp_path / "x.perf.data"), "--by", "functions", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["functions"]
    assert "shop::Cart<long>::add(long, long)" in {row["function"] for row in rows}
