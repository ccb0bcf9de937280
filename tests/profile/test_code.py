"""Code with its counts: instructions, blocks, source lines, callers, and two profiles compared."""

import bisect
import csv
import io
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pylbr
import pylbr.perf._entries as some_module
from lbrcore import BRANCH_DTYPE
from pylbr.cli import main
from pylbr.errors import UnsupportedFeature
from pylbr.files.elf import ElfImage
from pylbr.files.elf_frames import frame_starts
from pylbr.files.elf_lines import source_lines
from pylbr.files.program_text import ProgramText
from pylbr.profile.annotated import annotate, executed_through, spread
from pylbr.profile.difference import split_name
from pylbr.profile.disassembly import disassemble
from pylbr.profile.file_profile import count_file
from pylbr.profile.lines import hottest, lines_of
from pylbr.profile.routines import edges_within, routines_of
from pylbr.trace import Metadata, Part, StreamTrace, Writer
from tests import once
from tests.profile.walked import mapped, walk

SOURCE = Path(__file__).parent / "source" / "lines.c"
BASE = 0x5555_5555_4000

stretches = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 1000)))


def columns(rows):
    first, last, weight = (np.array([row[i] for row in rows], np.int64) for i in range(3))
    return first, last, weight.astype(float)


@given(stretches)
def test_weights_are_spread_as_by_hand(rows):
    plain, through = [0] * 10, [0] * 10
    for first, last, weight in rows:
        for at in range(first, last + 1):
            plain[at] += weight
            through[at] += weight * (at != last)
    assert spread(*columns(rows), 10).tolist() == plain
    assert executed_through(*columns(rows), 10).tolist() == through


@pytest.fixture(scope="module")
def program():
    """A program with debug information and frame pointers of a known compiler."""
    once.needs("gcc")

    def build(folder):
        shutil.copy(SOURCE, folder)
        subprocess.run(["gcc", "-O1", "-g", "-o", "lines", SOURCE.name], cwd=folder, check=True)

    return once.built("lines", build) / "lines"


@pytest.fixture(scope="module")
def counted(program):
    image = ElfImage(program)
    table, executed = walk(image, ["collatz"], 20_000)
    table["from"] += BASE
    table["to"] += BASE
    modules = mapped(image, program, BASE)
    source = StreamTrace("walk", Metadata(modules=modules), BRANCH_DTYPE.names,
                         lambda: iter([Part(table)]))
    return count_file(source), executed, table, modules


@pytest.mark.peer
def test_every_execution_of_an_instruction_is_counted(counted):
    profile, executed, table, _ = counted
    (routine,) = [r for r in routines_of(profile) if r.name == "collatz"]
    code = annotate(routine)
    found = dict(zip([one.address for one in code.instructions], code.counts.tolist(),
                     strict=True))
    # What ran before the first branch, or after the last one, is in no run.
    assert sum(executed.values()) - sum(found.values()) < 40
    assert all(0 <= executed[address] - count <= 2 for address, count in found.items())
    assert code.cycles.sum() == pytest.approx(routine.cycles) == table["cycles"][1:].sum()
    assert routine.branches == len(table) == sum(count for _, _, count, _ in edges_within(routine))
    assert routine.mispredicted == (table["flags"] != 0).sum() > 0
    assert routine.entered == (table["to"] == BASE + routine.start).sum()


@pytest.mark.peer
def test_blocks_are_what_runs_together(counted):
    profile, _, table, _ = counted
    (routine,) = routines_of(profile)
    code = annotate(routine)
    blocks, edges = code.blocks()
    flow_in, flow_out = Counter(), Counter()
    for edge in edges:
        flow_in[edge.target] += edge.count
        flow_out[edge.source] += edge.count
    assert len(blocks) > 4 and sum(e.count for e in edges if e.taken) == len(table)
    for i, block in enumerate(blocks):
        assert len(set(code.counts[block.first:block.last + 1])) == 1, "one count for a block"
        assert abs(block.count - flow_in[i]) <= 1 and abs(block.count - flow_out[i]) <= 1
    assert sum(block.cycles for block in blocks) == pytest.approx(routine.cycles)
    assert not any(one.branches for block in blocks
                   for one in code.instructions[block.first:block.last])


@pytest.mark.peer
def test_source_lines_are_those_of_addr2line(program):
    once.needs("addr2line")
    image = ElfImage(program)
    wanted = [image.functions()[name] for name in ("collatz", "main")]
    found = source_lines(program, [(start, start + size) for start, size in wanted])
    starts = list(found)
    addresses = [one.address for start, size in wanted
                 for one in disassemble(image.code(start, start + size), start)]
    out = subprocess.run(["addr2line", "-e", program, *map(hex, addresses)], check=True,
                         capture_output=True, text=True).stdout.split("\n")[:-1]
    assert len(out) == len(addresses) > 20
    for address, line in zip(addresses, out, strict=True):
        mine = found[starts[bisect.bisect_right(starts, address) - 1]]
        assert f"{mine.file}:{mine.line}" == line.split(" (")[0]


@pytest.mark.peer
def test_lines_add_up(counted):
    profile, executed, table, _ = counted
    lines, problems = lines_of(profile)
    assert not problems and all(line.line.file.endswith("lines.c") for line in lines)
    assert 0 <= sum(executed.values()) - sum(line.executed for line in lines) < 40
    assert sum(line.cycles for line in lines) == pytest.approx(table["cycles"][1:].sum())
    assert sum(line.branches for line in lines) == len(table)
    assert {line.functions.most_common(1)[0][0] for line in lines} == {"collatz"}


@pytest.fixture(scope="module")
def trace(counted, tmp_path_factory):
    *_, table, modules = counted
    path = tmp_path_factory.mktemp("code") / "x.arrow"
    with Writer(path, Metadata(modules=modules)) as writer:
        writer.write(table)
    return path


def report(capsys, *words):
    assert main(["report", *map(str, words)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.mark.peer
def test_code_is_printed(trace, counted, capsys):
    *_, table, _ = counted
    text = report(capsys, trace, "--by", "code", "--function", "coll")
    assert re.search(r"^lines.c:8  if \(n % 2\)$", text, re.M)
    assert re.search(r"^ +[\d,]+ +[\d.]+ +[0-9a-f]+  testb? ", text, re.M)
    targets = re.findall(r"-> ([\d,]+)(?: \([\d.]+%\))? to (\S+), ([\d.]+)% mispredicted", text)
    assert sum(int(count.replace(",", "")) for count, *_ in targets) == len(table)
    assert "100.0" in {rate for *_, rate in targets}, "of the RET"
    intel = report(capsys, trace, "--function", "collatz", "-M", "intel")
    assert "%e" in text and "%e" not in intel
    code = json.loads(report(capsys, trace, "--by", "code", "--json"))["code"]
    assert code["function"] == "collatz" and code["blocks"][0]["mean_cycles"] > 0
    assert sum(branch["count"] for one in code["instructions"] for branch in one["branches"]) == (
        len(table))
    assert {edge["mispredicted"] is None for edge in code["edges"]} == {True, False}


@pytest.mark.peer
def test_lines_and_callers_are_printed(trace, capsys):
    rows = list(csv.DictReader(io.StringIO(report(capsys, trace, "--by", "lines", "--csv"))))
    assert {"n /= 2;", "n = 3 * n + 1;"} & {row["text"] for row in rows}
    found = json.loads(report(capsys, trace, "--by", "lines", "--json"))["lines"]
    table = pylbr.profile_of(trace).to_arrow("lines")
    assert table.to_pylist() == found and len(found) == len(rows) > 4
    assert report(capsys, trace, "--by", "callers").endswith("by count:\n\n  none\n")


@pytest.mark.peer
def test_a_profile_compared_with_itself_has_not_changed(trace, capsys):
    found = json.loads(report(capsys, trace, "--diff", trace, "--json"))
    assert found["before"] == found["after"] and found["before"]["run_bytes"] > 0
    assert [row["change"] for row in found["functions"]] == [0.0]
    assert "cycles per taken branch" in report(capsys, trace, "--diff", trace)


@pytest.mark.peer
def test_mistakes_in_the_choice_of_code(trace, capsys):
    for words, message in (
        (["--function", "nosuch"], "no branch was counted in a function of that name"),
        (["--by", "edges", "--function", "collatz"], "--function belongs to --by code"),
        (["--by", "edges", "--diff", trace], "--diff compares functions"),
        (["--by", "code", "--csv"], "no table"),
    ):
        assert main(["report", str(trace), *map(str, words)]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and message in captured.err and captured.err.count("\n") == 1


def test_routines_without_symbols_begin_where_call_frames_do():
    image = ElfImage(some_module.__file__)
    starts = {start for start, size in image.functions().values() if size > 16}
    frames = set(image._frame_starts.tolist())
    assert len(starts & frames) > 0.9 * len(starts) > 10


@pytest.mark.parametrize("data", [b"", b"\x01\x1b\x03\x3b", b"\x02" + bytes(40),
                                  b"\x01\x1b\x03\x3b\0\0\0\0\xff\xff\xff\xff" + bytes(12)])
def test_a_damaged_table_of_frames_has_what_fits(data):
    assert frame_starts(data, 0x1000) in ([], [0x1000])


def test_bytes_that_are_no_instructions_are_skipped():
    found = disassemble(b"\x06\x07\xc3\xeb\xfe\x0f", 0x1000)
    assert [one.text for one in found] == ["(bad)", "(bad)", "retq", "jmp 0x1003", "(bad)"]
    assert [one.target for one in found] == [None, None, None, 0x1003, None]
    with pytest.raises(UnsupportedFeature, match="no disassembler for VAX"):
        disassemble(b"\0", 0, "EM_VAX")


def test_other_machines_are_disassembled():
    (one,) = disassemble(bytes.fromhex("60000054"), 0x1000, "EM_AARCH64")
    assert (one.text.split()[0], one.target, one.branches) == ("b.eq", 0x100C, True)
    (one,) = disassemble(bytes.fromhex("63840000"), 0x1000, "EM_RISCV")
    assert one.branches and one.text.startswith("beqz") and one.target == 0x1008


@pytest.mark.parametrize("name, whole", [
    ("f.cold", "f"), ("f.cold.0", "f"), ("f/1", "f"), ("f/1(*2)", "f"), ("f.constprop.0.cold", "f"),
    ("ns::f(int) (.constprop.0)", "ns::f(int)"), ("f.part.3", "f"), ("cold", "cold"),
    (".cold", ".cold"), ("a.b", "a.b"), ("operator/", "operator/"),
])
def test_parts_of_a_function_are_its_own(name, whole):
    assert split_name(name) == whole


def test_only_source_is_shown(tmp_path):
    secret, link = tmp_path / "key.pem", tmp_path / "key.c"
    secret.write_text("private\n")
    link.symlink_to(secret)
    texts = ProgramText()
    assert texts.lines(str(secret)) == texts.lines(str(link)) == texts.lines("/dev/zero.c") == []
    assert texts.lines("a\0b.c") == []
    (tmp_path / "a.c").write_text("one\n  two\n")
    assert texts.line(str(tmp_path / "a.c"), 2) == "two"
    assert texts.line(str(tmp_path / "a.c"), 9) is None


@pytest.mark.peer
def test_the_hottest_are_enough(counted):
    profile, *_ = counted
    routines = routines_of(profile)
    assert hottest(routines) == routines and hottest([]) == [] and hottest(routines, 0) == []
