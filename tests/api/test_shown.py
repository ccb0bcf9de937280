"""What objects show of themselves at a prompt and in a notebook."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import pylbr
from lbrcore import BRANCH_DTYPE, INFO_CLASS, BranchClass, BranchFlag, LbrConfig, LbrState
from pylbr.arch import MODELS, find, registers
from pylbr.arch.branches import br_type_name
from pylbr.cpu import Processor
from pylbr.cpu.listing import changed
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE
from pylbr.perf.stacks import Event, Samples, Stacks, StacksMetadata

TRACE = Path(__file__).resolve().parents[2] / "examples" / "gzip.parquet"


class Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.cells = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag in ("td", "th", "p"):
            self.cells.append("")

    def handle_data(self, data):
        if data.strip():
            self.cells[-1] += data


def words(text):
    return text.split()


@pytest.mark.parametrize("exact", [False, True])
def test_an_lbr_state_shows_its_entries_with_classes(exact):
    lbr = LbrState(LbrConfig(info_mask=LbrConfig().info_mask | (INFO_CLASS if exact else 0)))
    lbr.ctl = 0x7F0007
    branches = np.zeros(len(BranchClass), BRANCH_DTYPE)
    branches["from"] = 0x401000 + np.arange(16)
    branches["to"], branches["class"], branches["cycles"] = 0x402000, np.arange(16), 7
    branches["flags"][3] = BranchFlag.MISPRED | BranchFlag.IN_TSX
    lbr.record(branches)
    head, titles, *lines = repr(lbr).splitlines()
    assert head == "LbrState: architectural, depth 32, IA32_LBR_CTL 0x7f0007; 14 entries"
    assert words(titles) == ["#", "from", "to", "class", "cycles", "flags"]
    kept = [cls for cls in reversed(BranchClass)
            if cls not in (BranchClass.NOT_TAKEN, BranchClass.ZERO_CALL)]
    names = [cls.name if exact or cls < 8 else br_type_name(cls) for cls in kept]
    assert [words(line)[:4] for line in lines] == [
        [str(i), f"{0x401000 + cls:#x}", "0x402000", name]
        for i, (cls, name) in enumerate(zip(kept, names, strict=True))]
    (missed,) = [line for line in lines if "MISPRED" in line]
    assert words(missed)[3:] == ["NEAR_IND_CALL", "7", "IN_TSX,", "MISPRED"]
    assert words(" ".join(Cells(lbr._repr_html_()).cells)) == words(repr(lbr))


def test_what_an_lbr_state_does_not_measure_has_no_column():
    lbr = LbrState(LbrConfig(flavour=1, depth=16, depth_bitmap=0, ctl_mask=0x1FF,
                             info_mask=1 << 63))
    assert repr(lbr) == "LbrState: legacy, depth 16, LBR_SELECT 0x0, not recording; no entries"
    lbr.enable = True
    lbr.record_one(0x1000, 0x2000, BranchClass.COND, cycles=9)
    head, titles, line = repr(lbr).splitlines()
    assert head.endswith("; 1 entry") and words(titles) == ["#", "from", "to"]
    assert words(line) == ["0", "0x1000", "0x2000"]
    lbr.frozen = True
    assert ", frozen" in repr(lbr)


@pytest.mark.parametrize("model", MODELS)
def test_a_processor_shows_what_is_not_at_reset(model):
    cpu = Processor(model)
    assert not list(changed(cpu.model, lambda index: cpu.rdmsr(index, host=True)))
    assert repr(cpu).startswith(f"Processor: {model}; no registers not at reset\nLbrState: ")
    for register in registers(cpu.model).values():
        value = register.reset ^ (register.writable & -register.writable)
        if value == register.reset or "{" in register.row.name:
            continue
        one = Processor(model)
        try:
            one.wrmsr(register.index, value)
        except pylbr.errors.GeneralProtection:
            continue
        if one.rdmsr(register.index, host=True) == register.reset:
            continue
        assert [f"{register.index:X}H", register.name, f"{value:#x}",
                f"{register.reset:#x}"] in [words(line) for line in repr(one).splitlines()]
        break
    else:
        pytest.fail("no register could be written")


def test_a_processor_shows_its_records_and_where_it_is():
    cpu = Processor("sapphire-rapids")
    cpu.wrmsr(find(cpu.model, "IA32_LBR_CTL").index, 0x7F0007)
    cpu.branch(BranchClass.NEAR_RET, 0x401000, 0x402000)
    text = repr(cpu)
    assert re.match(r"Processor: sapphire-rapids; 1 register not at reset\n *MSR ", text)
    assert re.search(r"^14CEH +IA32_LBR_CTL +0x7f0007 +0x0$", text, re.M)
    assert re.search(r"^0  0x401000  0x402000  NEAR_RET$", text, re.M)
    assert words(" ".join(Cells(cpu._repr_html_()).cells)) == words(text)
    before = cpu.state()
    repr(cpu)
    assert cpu.state() == before, "showing changes nothing"
    cpu.smi()
    assert repr(cpu).startswith("Processor: sapphire-rapids, in SMM; ")


def test_files_and_samples_show_what_they_hold():
    with pylbr.open(TRACE) as trace:
        count = sum(map(len, trace.chunks(("from",))))
        assert re.fullmatch(
            rf"Trace '.*gzip.parquet': {count:,} branches with from, to, .*; \d+ modules",
            repr(trace))
    entries = np.zeros(6, BRANCH_ENTRY_DTYPE)
    samples = Samples.build(np.array([0, 3, 6]), entries, pid=[7, 8])
    assert repr(samples) == "Samples: 2 with 6 entries, of process 7, 8"
    assert repr(Samples.build(np.array([0]), entries[:0])) == "Samples: 0 with 0 entries"
    many = Samples.build(np.arange(7), entries, pid=np.arange(6))
    assert repr(many) == "Samples: 6 with 6 entries, of process 0, 1, 2, 3, 4, ..."
    shown = Samples.build(np.array([0, *range(11), 11]), np.ones(12, BRANCH_ENTRY_DTYPE), ip=0x40,
                          pid=9, tid=8, time=np.arange(12))
    cells = Cells(shown._repr_html_()).cells
    assert cells[0] == "Samples: 12 with 11 entries, of process 9 (the first 10)"
    assert cells[1:9] == ["#", "ip", "pid", "tid", "time", "entries", "newest from", "to"]
    assert cells[9:25] == ["0", "0x40", "9", "8", "0", "0", "", "",
                           "1", "0x40", "9", "8", "1", "1", "0x1", "0x1"]
    assert len(cells) == 1 + 8 * 11
    metadata = StacksMetadata(events=(Event("branches:u"), Event(type=4, config=0x20)),
                              command_line=("perf", "record", "\x1b[2J"))
    assert repr(Stacks(metadata, [], "x")) == (
        r"Stacks 'x'; events: branches:u, type 4, config 0x20; recorded by: perf record \x1b[2J")
