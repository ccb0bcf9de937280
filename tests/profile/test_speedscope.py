"""Call stacks for speedscope: of samples and of traces, against stacks kept apart from the code."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbrcore import BRANCH_DTYPE, BranchClass
from pylbr.cli import main
from pylbr.files.elf import ElfImage
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, BranchSample
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.stacks import Comm, Event, Mmap, Samples, StacksMetadata
from pylbr.profile.call_stacks import _follow, _Walk
from pylbr.trace import LbrtWriter, Metadata, Module
from tests.profile.test_merge import LIBRARY

BASE = 0x7F00_0000_0000
IMAGE = ElfImage(LIBRARY)
FUNCTIONS = sorted((start, name) for name, (start, size) in IMAGE.functions().items()
                   if size > 64)[:6]


def read(path):
    """Profile -> stack of names -> weight, of a file that keeps to speedscope's schema."""
    content = json.loads(path.read_text())
    assert content["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert set(content) <= {"$schema", "shared", "profiles", "name", "exporter",
                            "activeProfileIndex"}
    frames = content["shared"]["frames"]
    assert all(set(f) <= {"name", "file", "line", "col"} and isinstance(f["name"], str)
               for f in frames)
    found = {}
    for profile in content["profiles"]:
        assert set(profile) == {"type", "name", "unit", "startValue", "endValue", "samples",
                                "weights"}
        assert profile["type"] == "sampled" and profile["unit"] == "none"
        assert len(profile["samples"]) == len(profile["weights"])
        assert profile["endValue"] - profile["startValue"] == sum(profile["weights"])
        assert all(0 <= frame < len(frames) for stack in profile["samples"] for frame in stack)
        found[profile["name"]] = {
            tuple(frames[frame]["name"] for frame in stack): weight
            for stack, weight in zip(profile["samples"], profile["weights"], strict=True)}
    return found


def convert(source, out):
    return main(["convert", str(source), "-o", str(out)])


def recorded(path, mode, chains=False):
    """Three samples with two callers, one with none."""
    starts = [BASE + start for start, _ in FUNCTIONS]
    entries = np.zeros(6, BRANCH_ENTRY_DTYPE)
    entries["from"] = [starts[1] + 20, starts[0] + 20] * 3
    entries["to"] = [starts[2], starts[1]] * 3
    more = {}
    if chains:
        # Innermost first, callers by their return addresses: here the last CALL ends function 3.
        words = [(1 << 64) - 512, starts[5] + 8, starts[4], starts[0] + 9]
        more = {"chain_offsets": np.array([0, 4, 8, 12, 12]), "chain": np.array(words * 3, "u8")}
    samples = Samples.build(np.array([0, 2, 4, 6, 6]), entries, pid=7, tid=7,
                            ip=np.array([starts[2] + 30] * 3 + [starts[3]], "u8"), **more)
    maps = [Mmap(7, 7, BASE + vaddr, size, offset, LIBRARY)
            for offset, size, vaddr, _ in IMAGE.segments]
    kind = 0x803 | (0x20 if chains else 0)
    event = Event(name="branches:u", branch_sample_type=mode, sample_type=kind)
    write_perf_data(path, (StacksMetadata(events=(event,)), [Comm(7, 7, "x", True), *maps,
                                                             samples]))


NAMES = [name for _, name in FUNCTIONS]


def test_lbrs_in_call_stack_mode(tmp_path):
    recorded(tmp_path / "p", int(BranchSample.USER | BranchSample.CALL_STACK))
    assert convert(tmp_path / "p", tmp_path / "o.speedscope.json") == 0
    assert read(tmp_path / "o.speedscope.json") == {
        "samples": {tuple(NAMES[:3]): 3, (NAMES[3],): 1}}


def test_branches_alone_are_no_call_stacks(tmp_path, capsys):
    recorded(tmp_path / "p", int(BranchSample.USER | BranchSample.ANY))
    assert convert(tmp_path / "p", tmp_path / "o.speedscope.json") == 2
    assert "has no call stacks" in capsys.readouterr().err
    assert not (tmp_path / "o.speedscope.json").exists()


def test_call_chains(tmp_path, capsys):
    recorded(tmp_path / "p", int(BranchSample.USER | BranchSample.ANY), chains=True)
    assert convert(tmp_path / "p", tmp_path / "o.speedscope.json") == 0
    (stack, count), = read(tmp_path / "o.speedscope.json")["samples"].items()
    assert stack[0] == NAMES[0] and stack[2] == NAMES[5] and stack[1] != NAMES[4] and count == 3
    assert "1 of 4 samples have no call stack" in capsys.readouterr().err


MOVES = st.lists(st.tuples(st.sampled_from("cccrrj"), st.integers(0, 5)), max_size=80)


def played(moves, base=BASE):
    """A program's branches, and how many each of its stacks has had, kept as names."""
    starts = [base + start for start, _ in FUNCTIONS]
    stack, sites, rows, counts = [0], [], [], Counter()
    for kind, which in moves:
        counts[tuple(stack)] += kind != "r" or bool(sites)
        here = starts[stack[-1]] + 16
        if kind == "c":
            rows.append((here, starts[which], BranchClass.NEAR_REL_CALL))
            sites.append(here)
            stack.append(which)
        elif kind == "j":
            rows.append((here, here + 4, BranchClass.COND))
        elif sites:
            rows.append((here, sites.pop() + 5, BranchClass.NEAR_RET))
            stack.pop()
    branches = np.zeros(len(rows), BRANCH_DTYPE)
    for row, values in zip(branches, rows, strict=True):
        row["from"], row["to"], row["class"] = values
    return branches, +counts


@settings(max_examples=60, deadline=None)
@given(MOVES, st.integers(1, 80))
def test_a_walk_keeps_the_stack_that_the_program_has(moves, cut):
    branches, counts = played(moves, 0)
    walk = _Walk(FUNCTIONS[0][0])
    for part in (branches[:cut], branches[cut:]):
        _follow(walk, part["from"], part["to"], part["class"])
    starts = [start for start, _ in FUNCTIONS]
    assert walk.stacks(0) == {(0, *(starts[i] for i in stack)): count
                              for stack, count in counts.items()}


def test_returns_out_of_what_was_seen_and_past_frames():
    walk = _Walk(0x100)
    walk.call(0x110, 0x200)
    walk.call(0x210, 0x300)
    walk.call(0x310, 0x400)
    walk.spend(1)
    walk.back(0x115)  # as longjmp does: three frames at once
    walk.spend(2)
    walk.back(0x915)  # to a caller from before the trace
    walk.spend(4)
    assert walk.stacks(7) == {(7, 0x100, 0x200, 0x300, 0x400): 1, (7, 0x100): 2, (7, 0x915): 4}


def test_a_trace(tmp_path, capsys):
    branches, counts = played([("c", 1), ("c", 2), ("j", 0), ("r", 0), ("c", 2), ("j", 0),
                               ("r", 0), ("r", 0), ("c", 5), ("j", 0)])
    modules = tuple(Module(LIBRARY, BASE + vaddr, size, offset, IMAGE.build_id.hex())
                    for offset, size, vaddr, _ in IMAGE.segments)
    with LbrtWriter(tmp_path / "t.lbrt", Metadata(modules=modules), ("task",)) as out:
        out.write(branches, task=7)
        out.write(branches, task=8)
    assert convert(tmp_path / "t.lbrt", tmp_path / "o.speedscope.json") == 0
    expected = {tuple(NAMES[i] for i in stack): count for stack, count in counts.items()}
    assert read(tmp_path / "o.speedscope.json") == {"task 7": expected, "task 8": expected}
    assert sum(expected.values()) == 10 and not capsys.readouterr().err


@pytest.mark.parametrize("name", ["o.speedscope.json"])
def test_a_trace_without_classes_is_refused(tmp_path, capsys, name):
    (tmp_path / "t.csv").write_text("from,to\n0x10,0x20\n")
    assert convert(tmp_path / "t.csv", tmp_path / name) == 2
    assert "class" in capsys.readouterr().err
    assert not (tmp_path / name).exists()
