"""perf script text that is more than one line a sample, or less regular than perf's own."""

from __future__ import annotations

import numpy as np
import pytest

from pylbr import trace
from pylbr.cli import main
from pylbr.errors import TraceError
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, SampleType
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.event_names import event_name, named_event
from pylbr.perf.script_writer import write_perf_script
from pylbr.perf.stacks import Event, Samples, StacksMetadata

ENTRY = "0x401000/0x401010/P/-/-/1/"
ENTRIES = [(0x401000, 0x401010, 2 | 1 << 4)]


def read(path):
    """(events, batches) of a text."""
    with trace.open_stacks(path, "perfscript") as stacks:
        batches = [record for record in stacks if isinstance(record, Samples)]
        return stacks.metadata.events, batches


def one(tmp_path, text):
    """The only sample of a text: its ip, call chain and entries."""
    path = tmp_path / "t.txt"
    path.write_text(text)
    (batch,) = read(path)[1]
    assert len(batch) == 1
    chain = None if batch.chain is None else batch.chain.tolist()
    return int(batch.ip[0]), chain, batch.stack(0).tolist()


def refused(tmp_path, text, message):
    path = tmp_path / "t.txt"
    path.write_text(text)
    with pytest.raises(TraceError, match=message):
        read(path)


def test_a_lone_pid_before_branches_not_taken(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("16984  0x72e342e5f4/0x72e36192d0/M/-/-/11/RET/-\n"
                    "16984  0x72e7b8b3b4/0x72e7b8b3b8/PN/-/-/11/COND/-\n"
                    "16984  0x72e7b92b48/0x72e7b92b4c/MN/-/-/8/COND/-\n")
    assert trace.formats.detect(path).name == "perfscript"
    (batch,) = read(path)[1]
    assert batch.pid.tolist() == batch.tid.tolist() == [16984] * 3
    assert batch.ip.tolist() == [0, 0, 0]
    assert (batch.entries["flags"] >> np.uint64(33)).tolist() == [0, 1, 1]


def test_addresses_by_build_id(tmp_path):
    """As producers write that name the file of each address; here all are of one."""
    path = tmp_path / "t.txt"
    path.write_text(
        "           aabb1122:40162f aabb1122:0x40162f/aabb1122:0x4015b0/P/-/-/9"
        "  aabb1122:0x401645/aabb1122:0x4015ff/P/-/-/1\n"
        "           aabb1122:4015d7 aabb1122:0x4015d7/aabb1122:0x4015e5/P/-/-/8\n")
    assert trace.formats.detect(path).name == "perfscript"
    (batch,) = read(path)[1]
    assert batch.ip.tolist() == [0x40162f, 0x4015d7]
    assert batch.stack(0).tolist() == [
        (0x40162f, 0x4015b0, 2 | 9 << 4), (0x401645, 0x4015ff, 2 | 1 << 4)]


@pytest.mark.parametrize("entries", [
    "ab12:0x10/cd34:0x20/P/-/-/1", "ab12:0x10/0x20/P/-/-/1", "0x10/ab12:0x20/P/-/-/1",
    "ab12:0x10/ab12:0x20/P/-/-/1 cd34:0x10/cd34:0x20/P/-/-/1",
])
def test_addresses_of_several_files_are_refused(tmp_path, entries):
    refused(tmp_path, f" {entries}\n", "addresses of several files")


@pytest.mark.parametrize("prose", [
    "This is a comment with a bad face", "a bad face", "\tbad face", "  see 0x10", "x 401000",
    "dd 5805 401136 cycles and more", "            face", "abcdefghijklmno p",
])
@pytest.mark.parametrize("after", ["", f"           4016b7 {ENTRY}\n"])
def test_prose_is_no_sample(tmp_path, prose, after):
    refused(tmp_path, f"{prose}\n{after}", "line 1: .*(no line of perf script|columns)")


def test_comments_are_no_samples(tmp_path):
    text = f"# event : name = cycles 401000 {ENTRY}\n#\n           4016b7 {ENTRY}\n"
    assert one(tmp_path, text) == (0x4016b7, None, ENTRIES)


@pytest.mark.parametrize("columns", [
    "  401136", "dd 5805 401136", "prog 9999 401136", "12345678 ", "    7/7 ", "1/1 [001] ",
    "[1] ", " 1.5: ", "cycles: 401136 ", "cycles:          401136 ", "            prog 7 ",
    "         5080144 |OP LOAD|LVL L1           401010 ", " ABI:2    AX:0x1    BX:0x2", "VM:    7 ",
])
def test_columns_of_other_widths_are_refused(tmp_path, columns):
    refused(tmp_path, f"{columns} {ENTRY}\n", "columns that are not known")


@pytest.mark.parametrize("after", [
    " ilen: 3", " insn: 48 89 e5", " ilen: 3 insn: 48 89 e5", "       123456000", " 4K", " 4K 2M",
    " N/A 4K", "\t IPC: 1.50 (3/2) ",
])
def test_what_stands_behind_the_entries(tmp_path, after):
    assert one(tmp_path, f"           4016b7 {ENTRY} {after}\n") == (0x4016b7, None, ENTRIES)


@pytest.mark.parametrize("after", ["face face", "main", "4K 4X", "insn: 4", "0x10"])
def test_what_may_not(tmp_path, after):
    refused(tmp_path, f"           4016b7 {ENTRY}  {after}\n", "an entry that perf does not print")


CHAIN = "\t          40179e\n\t          4017f9\n\t    7ffff7de7793\n\t5a5a5a5a5a5a5a5a\n"
FRAMES = [0x40179e, 0x4017f9, 0x7ffff7de7793, 0x5a5a5a5a5a5a5a5a]
MAPPING = "PERF_RECORD_MMAP2 777/777: [0x401000(0x1000) @ 0 00:1d 1002 8]: r-xp /opt/prog\n"


@pytest.mark.parametrize("mapping", [MAPPING, ""])
@pytest.mark.parametrize("head", ["", "prog   777/777       cycles: ", "a b    77 "])
def test_a_call_chain(tmp_path, mapping, head):
    text = f"{mapping}{head}\n{CHAIN} {ENTRY}\n"
    assert one(tmp_path, text) == (FRAMES[0], FRAMES, ENTRIES)


def test_a_call_chain_relative_to_files(tmp_path):
    """perf 6 prints offsets in the file; mappings and names of files give the address."""
    maps = ("PERF_RECORD_MMAP2 7/7: [0x555555555000(0x1000) @ 0x1000 00:1d 1 8]: r-xp /a b\n"
            "PERF_RECORD_MMAP2 7/7: [0x7ffff7000000(0x9000) @ 0x1000 00:1d 2 8]: r-xp /lib/c\n")
    frames = [(0x1136, "/a b"), (0x1140, "/lib/c"), (0xFFFFFFFF81000000, "[kernel.kallsyms]")]
    named = "".join(f"\t{frame:16x} main+0x1 ({path})\n" for frame, path in frames)
    found = one(tmp_path, f"{maps}prog     7/7     \n{named} {ENTRY}\n")
    assert found == (0x555555555136, [0x555555555136, 0x7ffff7000140, 0xFFFFFFFF81000000], ENTRIES)
    plain = "".join(f"\t{frame:16x}\n" for frame in (0x9000, 0x1140, 0x9001))
    # 0x1140 may be in either file: what comes before it is kept.
    assert one(tmp_path, f"{maps}prog     7/7     \n{plain} {ENTRY}\n") == (
        0x7ffff7008000, [0x7ffff7008000], ENTRIES)


def test_source_lines_are_no_samples(tmp_path):
    text = f"    7 cycles:            401010\n  prog.c:12 {ENTRY}\n"
    assert one(tmp_path, text) == (0x401010, None, ENTRIES)
    text = f"prog     7 \n\t          401010\n  prog.c:12\n\t          401020\n {ENTRY}\n"
    assert one(tmp_path, text) == (0x401010, [0x401010, 0x401020], ENTRIES)
    assert one(tmp_path, f"    7            401010 {ENTRY}\n|12       x = 1;\n")[0] == 0x401010


@pytest.mark.parametrize("line", [
    "\t0000000000401000\tinsn: 48 89 e5", "\tmain:", "\t0000000000401000\tjmp 0x10",
])
def test_instructions_between_branches_are_refused(tmp_path, line):
    refused(tmp_path, f"    7            401010 {ENTRY}\n{line}\n",
            "no line of perf script|instructions between")
    refused(tmp_path, f"    7            401010\n{line}\n", "instructions between")


def test_a_call_chain_makes_the_round_trip(tmp_path):
    source, text, again = (tmp_path / name for name in ("a.txt", "b.txt", "c.perf.data"))
    source.write_text("prog     7/8     [003]     1.500000:          9 cycles: \n"
                      f"{CHAIN} {ENTRY} \n"
                      f"prog     7/8     [003]     1.600000:          9 cycles: \n {ENTRY} \n")
    with trace.open_stacks(source) as stacks:
        assert stacks.metadata.events[0].sample_type & SampleType.CALLCHAIN
        write_perf_script(text, stacks, fields=("comm", "pid", "tid", "cpu", "time", "period",
                                                "event", "ip", "brstack"))
    assert text.read_text() == source.read_text()
    with trace.open_stacks(text) as stacks:
        write_perf_data(again, stacks)
    with trace.open_stacks(again) as stacks:
        (batch,) = stacks.samples()
    assert batch.chain.tolist() == FRAMES and batch.chain_offsets.tolist() == [0, 4, 4]
    assert batch.time.tolist() == [1_500_000_000, 1_600_000_000]
    assert batch.cpu.tolist() == [3, 3] and batch.period.tolist() == [9, 9]


@pytest.mark.parametrize(
    ("name", "kind", "config"),
    [("cycles", 0, 0), ("branches:u", 0, 4), ("branch-instructions", 0, 4), ("cpu-clock:ppp", 1, 0),
     ("r20c4", 4, 0x20C4), ("raw 0x20c4", 4, 0x20C4), ("cpu/r20c4/", 4, 0x20C4),
     ("cpu/event=0xc4,umask=0x20/u", 4, 0x20C4), ("cpu/event=0xc4,cmask=1,inv/", 4, 0x18000C4),
     ("cpu/mem-loads/", 4, 0), ("br_inst_retired.near_taken:upp", 4, 0), ("", 4, 0)],
)
def test_events_by_name(name, kind, config):
    event = named_event(name, 7)
    assert (event.name, event.type, event.config, event.sample_type) == (name, kind, config, 7)


@pytest.mark.parametrize(
    ("kind", "config", "name"),
    [(0, 0, "cycles"), (0, 4, "branches"), (0, 5, "branch-misses"), (1, 0, "cpu-clock"),
     (4, 0x20C4, "raw 0x20c4"), (8, 5, "event:type=8,config=0x5"),
     (0, 99, "event:type=0,config=0x63")],
)
def test_events_without_a_name_keep_type_and_config(tmp_path, kind, config, name):
    event = Event(type=kind, config=config)
    assert event_name(event) == name
    samples = Samples.build(np.array([0, 0]), np.zeros(0, BRANCH_ENTRY_DTYPE))
    path = tmp_path / "t.perf.data"
    write_perf_data(path, (StacksMetadata(events=(event,)), [samples]))
    with trace.open_stacks(path) as stacks:
        (found,) = stacks.metadata.events
    assert (found.type, found.config, found.name) == (kind, config, name)


@pytest.mark.parametrize("text", [
    f"           4016b7 {ENTRY} \n", f"    7/8     {0x4016b7:17x} {ENTRY} \n", f" {ENTRY} \n",
    f"    7/8     [003]  {ENTRY} \n", f"    7/8         1.500000:  {ENTRY} \n",
    f"cycles:            4016b7 {ENTRY} \n", f"         9 cycles:  {ENTRY} \n",
])
def test_columns_that_a_text_lacks_are_not_made_up(tmp_path, text):
    source, target = tmp_path / "a.perfscript", tmp_path / "b.perfscript"
    source.write_text(text)
    assert main(["convert", str(source), "-o", str(target)]) == 0
    named = text.replace("    7/8  ", "              :8     7/8  ")
    assert target.read_text() == named
