import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylbr.errors import TraceError
from pylbr.perf import _script_writer, reference
from pylbr.perf.abi import BRANCH_ENTRY_DTYPE, entry_flags
from pylbr.perf.script_writer import FORMS, PerfScript, write_perf_script
from pylbr.perf.stacks import Comm, Event, Exit, Fork, Mmap, Samples, Stacks, StacksMetadata
from pylbr.profile import tables
from pylbr.profile.autofdo import autofdo_text, write_autofdo
from pylbr.profile.link import OUTSIDE, LinkProfile
from pylbr.profile.preagg import preagg_lines, write_preagg
from pylbr.trace.formats import open_stacks

words = st.integers(0, 2**64 - 1)


@given(
    st.lists(st.tuples(words, st.lists(st.tuples(words, words, words), max_size=4)), max_size=5),
    st.booleans(), st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip
def test_twins_agree(drawn, with_prefixes, ip, brstack, spec):
    stacks = [stack for _, stack in drawn]
    samples = Samples.build(
        np.cumsum([0, *map(len, stacks)]),
        np.array([e for s in stacks for e in s], BRANCH_ENTRY_DTYPE),
        ip=np.array([ip for ip, _ in drawn], "u8"),
    )  # fmt: skip
    prefixes = [b"x" * (i * 7 % 40) for i in range(len(drawn))] if with_prefixes else None
    arguments = samples, prefixes, ip, brstack, spec
    assert _script_writer.format_stacks(*arguments) == reference.format_stacks(*arguments)


METADATA = StacksMetadata(events=(Event(name="branches:u"), Event(name="cyc")))
ENTRIES = [
    (0x401005, 0x1, entry_flags(predicted=True, cycles=12, kind=1)),
    (0xFFFF_FFFF_8100_0000, 0, entry_flags(mispredicted=True, predicted=True, in_tx=True,
                                           abort=True, cycles=65535)),
    (0x10, 0x2, entry_flags(mispredicted=True, kind=15, new_type=2, spec=3)),
]  # fmt: skip
SAMPLES = Samples.build(
    np.array([0, 3, 3]), np.array(ENTRIES, BRANCH_ENTRY_DTYPE),
    ip=np.array([0x401000, 0xFFFF_FFFF_8100_0000], "u8"), pid=np.array([7, -1]),
    tid=np.array([8, 0]), time=np.array([123_456_789, 5_000_000_000]), cpu=np.array([0, 12]),
    period=np.array([1, 100_003]), event=np.array([0, 1]),
)  # fmt: skip
RECORDS = [
    Comm(7, 8, "demo"), Mmap(7, 7, 0x401000, 0x1000, 0x1000, "/tmp/demo x"), Fork(9, 7, 9, 8),
    SAMPLES, Exit(9, 7, 9, 7),
]  # fmt: skip


def script(*fields, **options):
    formatter = PerfScript(METADATA, fields, **options)
    return b"".join(map(formatter.text, RECORDS)).decode()


def test_text_is_what_perf_6_1_prints():
    stack = (
        " 0x401005/0x1/P/-/-/12/COND  0xffffffff81000000/0x0/P/X/A/65535/ "
        " 0x10/0x2/M/-/-/0/FAULT_INST "
    )
    assert script("ip", "brstack") == f"           401000{stack}\n ffffffff81000000\n"
    assert script("comm", "pid", "tid", "cpu", "time", "period", "event", "ip").split("\n") == [
        "            demo     7/8     [000]     0.123456:          1 branches:u:            401000",
        "         swapper    -1/0     [012]     5.000000:     100003        cyc:  ffffffff81000000",
        "",
    ]
    assert script("pid", mmap_events=True, task_events=True) == (
        "    7 PERF_RECORD_COMM: demo:7/8\n"
        "    7 PERF_RECORD_MMAP2 7/7: [0x401000(0x1000) @ 0x1000 00:00 0 0]: r-xp /tmp/demo x\n"
        "    9 PERF_RECORD_FORK(9:9):(7:8)\n    7 \n   -1 \n    9 PERF_RECORD_EXIT(9:9):(7:7)\n"
    )


def test_form_6_12_adds_the_speculation():
    assert script("brstack", form="6.12") == (
        " 0x401005/0x1/P/-/-/12/COND/-  0xffffffff81000000/0x0/P/X/A/65535//- "
        " 0x10/0x2/M/-/-/0/FAULT_INST/SPEC_CORRECT_PATH \n\n"
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_branch_that_was_not_taken_is_marked(form):
    entries = np.array([
        (0x10, 0x12, entry_flags(predicted=True, not_taken=True)),
        (0x14, 0x16, entry_flags(mispredicted=True, not_taken=True)),
        (0x18, 0x1A, entry_flags(not_taken=True)),
    ], BRANCH_ENTRY_DTYPE)  # fmt: skip
    samples = Samples.build(np.array([0, 3]), entries)
    line = PerfScript(METADATA, ["brstack"], form=form).text(samples).decode()
    assert [entry.split("/")[2] for entry in line.split()] == ["PN", "MN", "-N"]
    slow = reference.format_stacks(samples, None, False, True, form != "6.1")
    assert slow.decode() == line
    assert tables.entry_rows(samples)["not_taken"].all()


def test_unknown_fields_and_forms_are_refused():
    with pytest.raises(ValueError, match="'sym' is none of comm, pid"):
        PerfScript(METADATA, ["sym"])
    with pytest.raises(ValueError, match=r"'7' is none of 6\.1"):
        PerfScript(METADATA, form="7")


def test_a_file_holds_the_stream(tmp_path):
    path = tmp_path / "out.perfscript"
    assert write_perf_script(path, Stacks(METADATA, RECORDS)) == 2
    lines = path.read_text().splitlines()
    assert len(lines) == 3 and lines[0].startswith("PERF_RECORD_MMAP2 7/7: [0x401000(0x1000) @")


class OffsetImage:
    """An image whose byte at link address a is the file's byte a - 0x10; 0x2c.. is its PLT."""

    def in_plt(self, address):
        return address >= 0x2C

    def base_offset(self, address):
        return address - 0x10


LINKED = LinkProfile(
    image=OffsetImage(),
    edges={(OUTSIDE, 0x26): (2, 0), (OUTSIDE, 0x2A): (1, 0), (0x10, 0x20): (5, 2),
           (0x12, 0x26): (1, 0), (0x14, 0x2E): (9, 0), (0x24, OUTSIDE): (3, 3)},
    traces={(0x10, 0x20, 0x24): 4, (OUTSIDE, 0x26, 0x28): 2, (0x12, 0x26, 0x28): 1,
            (OUTSIDE, 0x2A, 0x2C): 1, (0x14, 0x2E, 0x2E): 9}, ips={0x22: 6},
)  # fmt: skip


def test_preaggregated_branches_and_runs(tmp_path):
    write_preagg(tmp_path / "x", LINKED, "branches")
    assert (tmp_path / "x").read_text() == (
        "B X:0 26 2 0\nB X:0 2a 1 0\nB 10 20 5 2\nB 12 26 1 0\nB 14 2e 9 0\nB 24 X:0 3 3\n"
        "F 20 24 4\nF 26 28 1\nf 26 28 2\nf 2a 2c 1\n"
    )


def test_preaggregated_traces_hold_branch_and_run():
    """The newest entry of a stack has no run, nor has a way into the PLT or out of the binary."""
    assert list(preagg_lines(LINKED)) == [
        "T X:0 26 28 2", "T X:0 2a 2c 1", "T 10 20 24 4", "T 10 20 ffffffffffffffff 1",
        "T 12 26 28 1", "T 14 2e ffffffffffffffff 9", "T 24 X:0 ffffffffffffffff 3",
    ]  # fmt: skip


def test_autofdo_text(tmp_path):
    assert autofdo_text(LINKED) == (
        "4\n10-14:4\n16-18:3\n1a-1c:1\n1e-1e:9\n1\n12:6\n"
        "3\n0->10:5\n2->16:1\n4->1e:9\n"
    )
    assert autofdo_text(LinkProfile(OffsetImage(), {}, {}, {})) == "0\n0\n0\n"
    write_autofdo(tmp_path / "x", LINKED)
    assert (tmp_path / "x").read_text() == autofdo_text(LINKED)


def test_tables_hold_every_field():
    rows = tables.sample_rows(SAMPLES)
    assert rows.tolist() == [
        (0x401000, 123_456_789, 1, 7, 8, 0, 0, 3, 0),
        (0xFFFF_FFFF_8100_0000, 5_000_000_000, 100_003, -1, 0, 12, 1, 0, 3),
    ]  # fmt: skip
    entries = tables.entry_rows(SAMPLES, first_sample=10)
    assert entries.tolist() == [
        (10, 0, 0x401005, 0x1, False, True, False, False, 12, 1, 0, 0, 0, False, 0),
        (10, 1, 0xFFFF_FFFF_8100_0000, 0, True, True, True, True, 65535, 0, 0, 0, 0, False, 0),
        (10, 2, 0x10, 0x2, True, False, False, False, 0, 15, 3, 2, 0, False, 0),
    ]  # fmt: skip


def test_tables_are_the_same_in_arrow_and_pandas():
    for rows, arrow, frame in (
        (tables.sample_rows(SAMPLES), tables.arrow_samples(SAMPLES),
         tables.pandas_samples(SAMPLES)),
        (tables.entry_rows(SAMPLES), tables.arrow_entries(SAMPLES),
         tables.pandas_entries(SAMPLES)),
    ):  # fmt: skip
        assert isinstance(frame, pd.DataFrame)
        for name in rows.dtype.names:
            assert arrow.column(name).to_pylist() == rows[name].tolist() == frame[name].tolist()


@pytest.mark.parametrize("form", ["6.1", "6.12"])
def test_our_own_reader_takes_the_text(tmp_path, form):
    path = tmp_path / "x.perfscript"
    fields = ("comm", "pid", "tid", "cpu", "time", "period", "event", "ip", "brstack")
    entries = np.array([
        (0x401000 + i, 0x402000 + i, entry_flags(
            predicted=i % 2 == 0, mispredicted=i % 2 == 1, cycles=i * 7, kind=i,
            spec=i % 4 if form == "6.12" else 0,
        )) for i in range(15)
    ], BRANCH_ENTRY_DTYPE)  # fmt: skip
    samples = Samples.build(
        np.array([0, 10, 15]), entries, ip=np.array([5, 6]), pid=7, tid=8, period=100,
        time=np.array([1_000_000, 2_000_000]),
    )  # fmt: skip
    records = [Comm(7, 8, "demo"), Mmap(7, 7, 0x401000, 0x1000, 0x1000, "/tmp/demo"), samples]
    write_perf_script(path, Stacks(METADATA, records), fields=fields, form=form)
    with open_stacks(path) as stacks:
        found = [record for record in stacks if isinstance(record, Samples)]
    assert np.concatenate([s.entries for s in found]).tolist() == entries.tolist()
    for name in ("ip", "pid", "tid", "time", "period"):
        read = np.concatenate([getattr(s, name) for s in found])
        assert read.tolist() == getattr(samples, name).tolist()


def test_an_empty_text_for_autofdo_is_an_error(tmp_path):
    image = OffsetImage()
    image.path = "prog"
    only_out = LinkProfile(image, {(0x10, OUTSIDE): (3, 0)}, {}, {}, 3)
    with pytest.raises(TraceError, match="would be empty: nothing ran within prog"):
        write_autofdo(tmp_path / "x", only_out)
    assert not (tmp_path / "x").exists()
