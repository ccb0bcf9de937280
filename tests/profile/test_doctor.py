"""``pylbr doctor``: one finding for each thing that makes a profile empty or poor."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from pylbr.cli import main
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, AttrFlag, BranchSample, SampleType, entry_flags
from pylbr.perf.stacks import Comm, Event, Lost, Mmap, Samples, Stacks, StacksMetadata
from pylbr.profile.doctor import CONSUMERS, examine

PID = 7
BASE = 0x40_0000
EVENT = Event(
    name="branches:u", period=10007, flags=int(AttrFlag.COMM),
    sample_type=int(SampleType.IP | SampleType.TID | SampleType.BRANCH_STACK),
    branch_sample_type=int(BranchSample.USER | BranchSample.ANY))
FLAGS = entry_flags(predicted=True, cycles=9)


def batch(count=2000, depth=8, pid=PID, base=BASE, step=16, flags=FLAGS, reach=16):
    """Stacks whose entries connect: from +4 of one place to the place before."""
    entries = np.zeros(count * depth, BRANCH_ENTRY_DTYPE)
    place = np.tile(np.arange(depth), count)
    entries["to"] = np.uint64(base) + (place * step).astype(np.uint64)
    entries["from"] = entries["to"] + np.uint64(reach + 4)
    entries["flags"] = flags
    return Samples.build(np.arange(count + 1) * depth, entries, ip=base, pid=pid,
                         tid=pid)


MMAP = Mmap(PID, PID, BASE, 0x1000, 0, "/bin/program")
COMM = Comm(PID, PID, "program", True)


def diagnosis(*records, event=EVENT, binary=None):
    return examine(Stacks(StacksMetadata(events=(event,)), records, "/nothing"), binary)


def test_a_good_recording():
    found = diagnosis(COMM, MMAP, batch())
    assert found.findings == [] and {found.verdict(c) for c in CONSUMERS} == {"good"}
    assert found.figures["mapped"] == 1 and found.figures["branches"] == 16000


@pytest.mark.parametrize(("records", "event", "level", "says", "consumer"), [
    ((COMM, MMAP), EVENT, "empty", "no samples", "perf report"),
    ((COMM, MMAP, batch(depth=0)), EVENT, "empty", "no branch stacks", "perf2bolt"),
    ((COMM, MMAP, batch(depth=1)), EVENT, "empty", "more than one entry", "AutoFDO"),
    ((COMM, MMAP, batch(20)), EVENT, "poor", "20 samples are few", "perf report"),
    ((COMM, MMAP, batch(), Lost(900)), EVENT, "poor", "900 samples were lost", "perf2bolt"),
    ((COMM, batch()), EVENT, "empty", "no mappings", "llvm-profgen"),
    ((COMM, MMAP, batch(), batch(500, base=0x90_0000)), EVENT, "empty", "AutoFDO wants 95 %",
     "AutoFDO"),
    ((COMM, MMAP, batch(), batch(500, base=0x90_0000)), EVENT, "poor", "no file is mapped",
     "perf2bolt"),
    ((COMM, MMAP, batch(base=0x90_0000)), EVENT, "empty", "100.0% of the branches leave",
     "perf2bolt"),
    ((MMAP, batch()), EVENT, "empty", "no COMM", "AutoFDO"),
    ((COMM, replace(MMAP, pid=0, tid=0), batch(pid=0)), EVENT, "empty", "no process", "perf2bolt"),
    ((COMM, MMAP, batch(), batch(3000, base=0xFFFF_FFFF_8100_0000)), EVENT, "poor",
     "the kernel's", "perf2bolt"),
    ((COMM, MMAP, batch(reach=0)), EVENT, "poor", "not connected", "perf2bolt"),
    ((COMM, MMAP, batch(flags=entry_flags(cycles=3))), EVENT, "note", "not measured",
     "perf report"),
    ((COMM, MMAP, batch(flags=entry_flags(predicted=True))), EVENT, "note", "no entry has cycles",
     "perf report"),
    ((COMM, MMAP, batch()), replace(EVENT, branch_sample_type=int(
        BranchSample.USER | BranchSample.ANY_CALL)), "poor", "(any_call)", "llvm-profgen"),
    ((COMM, MMAP, batch()), replace(EVENT, branch_sample_type=int(
        BranchSample.ANY | BranchSample.HW_INDEX)), "empty", "hardware's index", "AutoFDO"),
    ((COMM, MMAP, batch()), replace(EVENT, period=100_000), "poor", "-c 100003", "perf report"),
    ((COMM, MMAP, batch()), replace(EVENT, period=4096), "poor", "-c 4099", "perf report"),
    ((COMM, MMAP, batch()), replace(EVENT, attr=bytes(136)), "empty", "136 bytes", "perf2bolt"),
])  # fmt: skip
def test_each_thing_that_goes_wrong(records, event, level, says, consumer):
    found = diagnosis(*records, event=event)
    finding = next(f for f in found.findings if says in f.what + f.advice and f.level == level)
    assert consumer in finding.concerns
    assert finding.advice or finding.level == "note"
    if level != "note":
        assert found.verdict(consumer) in (level, "empty")
    levels = [f.level for f in found.findings]
    assert levels == sorted(levels, key=["empty", "poor", "note"].index)


def test_a_frequency_is_no_period():
    event = replace(EVENT, period=1000, flags=int(AttrFlag.FREQ))
    assert diagnosis(COMM, MMAP, batch(), event=event).findings == []


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The same program with DWARF 4 and relocations, with DWARF 5, and stripped."""
    place = tmp_path_factory.mktemp("programs")
    source = place / "x.c"
    source.write_text("int main(void) { return 0; }\n")
    for name, *options in (("four", "-gdwarf-4", "-Wl,--emit-relocs"), ("five", "-gdwarf-5"),
                           ("none", "-s")):
        subprocess.run(["gcc", "-O1", "-no-pie", "-Wl,--build-id", *options, "-o", place / name,
                        source], check=True)
    return place


def of_binary(path, mapped=None):
    maps = Mmap(PID, PID, 0x401000, 0x1000, 0x1000, str(mapped or path))
    return diagnosis(COMM, maps, batch(base=0x401000), binary=str(path))


def test_what_a_binary_lacks(programs):
    assert of_binary(programs / "four").findings == []
    five, none = of_binary(programs / "five"), of_binary(programs / "none")
    assert [f.what.split(", ")[0].split()[-2:] for f in five.findings] == [
        ["DWARF", "5"], ["no", "relocations:"]] or five.figures["dwarf"] == 5
    assert five.verdict("AutoFDO") == "empty" and five.verdict("llvm-profgen") == "good"
    assert none.verdict("llvm-profgen") == "empty" and none.verdict("perf2bolt") == "poor"


def test_another_binary_than_the_one_that_ran(programs):
    other = of_binary(programs / "four", "/usr/bin/other")
    assert {other.verdict(c) for c in CONSUMERS} == {"empty"}
    assert "was not recorded" in other.findings[0].what


def test_the_command(programs, tmp_path, capsys):
    from pylbr.perf.data_writer import write_perf_data

    maps = Mmap(PID, PID, 0x401000, 0x1000, 0x1000, str(programs / "five"))
    path = tmp_path / "x.perf.data"
    write_perf_data(path, (StacksMetadata(events=(EVENT,)), [COMM, maps, batch(base=0x401000)]))
    assert main(["doctor", str(path)]) == 0
    assert main(["doctor", str(path), "--binary", str(programs / "five")]) == 1
    text = capsys.readouterr().out
    assert "AutoFDO       empty" in text and "-> compile with -gdwarf-4" in text
    assert main(["doctor", "--json", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdicts"] == dict.fromkeys(CONSUMERS, "good") and found["mapped"] == 1
    assert main(["doctor", str(path), "--binary", __file__]) == 2
    assert "no ELF file" in capsys.readouterr().err


def test_a_trace_is_no_recording_of_stacks(tmp_path, capsys):
    path = tmp_path / "t.csv"
    path.write_text("from,to,class\n1,2,0\n")
    assert main(["doctor", str(path)]) == 2
    assert "pylbr replay" in capsys.readouterr().err
