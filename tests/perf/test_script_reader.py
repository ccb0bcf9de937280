"""perf script text: perf's own, other versions' forms, and the compiled parser's twin."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pylbr import trace
from pylbr.errors import TraceError
from pylbr.perf import abi, brstack, script_reader
from pylbr.perf._brstack import parse, use_avx2
from pylbr.perf.brstack import Prefix
from pylbr.perf.stacks import Comm, Exit, Fork, Lost, Mmap, Samples

FILES = ("perf.data.branch-4.14", "perf.data.raw_callgraph_branch-3.4")


def load(path):
    with trace.open_stacks(path) as stacks:
        records = list(stacks)
        names = [event.name for event in stacks.metadata.events]
    batches = [record for record in records if isinstance(record, Samples)]
    return names, batches, [record for record in records if not isinstance(record, Samples)]


def column(batches, name):
    return np.concatenate([getattr(batch, name) for batch in batches])


def stacks_of(batches):
    return [batch.stack(i).tolist() for batch in batches for i in range(len(batch))]


def perf(*arguments):
    if shutil.which("perf") is None:
        assert os.environ.get("CI") != "true", "perf is not installed"
        pytest.skip("perf is not installed")
    command = ["perf", "script", "-f", *arguments]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.mark.peer
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "fields",
    ["brstack", "ip,brstack", "pid,ip,brstack", "comm,tid,ip,brstack", "time,ip,brstack",
     "comm,pid,tid,time,period,event,ip,brstack", "comm,pid,tid,time,event,ip,sym,dso,brstack"],
)
def test_what_perf_prints_equals_the_file(shared, tmp_path, name, fields):
    """Every form of line that this perf prints, against its own binary file."""
    path = tmp_path / "t.txt"
    path.write_bytes(perf("-i", str(shared(name)), "-F", fields, "--ns"))
    _, original, _ = load(shared(name))
    names, batches, _ = load(path)
    order = np.argsort(column(original, "time"), kind="stable")
    if "sym" in fields:
        # With file names perf prints FROM(file)/TO(file).
        assert b"([kernel.kallsyms])/0x" in path.read_bytes()
    ours = stacks_of(batches)
    theirs = stacks_of(original)
    if "time" in fields:
        assert ours == [theirs[i] for i in order]
        assert np.array_equal(column(batches, "time"), column(original, "time")[order])
    else:
        assert sorted(ours) == sorted(theirs)
    if "tid" in fields:
        if "time" in fields:
            assert np.array_equal(column(batches, "tid"), column(original, "tid")[order])
        assert sorted(column(batches, "tid")) == sorted(column(original, "tid"))
    if "ip" in fields.split(",") and name.endswith("4.14"):
        # Of call chains perf prints addresses in the file, not in memory.
        assert sorted(column(batches, "ip")) == sorted(column(original, "ip"))
    if "event" in fields:
        assert names == [load(shared(name))[0][0]]
    if "period" in fields:
        assert np.array_equal(column(batches, "period"), column(original, "period")[order])


@pytest.mark.peer
@pytest.mark.parametrize("name", FILES)
def test_events_that_perf_prints(shared, tmp_path, name):
    path = tmp_path / "t.txt"
    path.write_bytes(perf("-i", str(shared(name)), "--ns", "--show-mmap-events",
                          "--show-task-events", "-F", "comm,pid,tid,time,ip,brstack"))
    _, _, original = load(shared(name))
    _, _, ours = load(path)

    def key(record, original):
        if isinstance(record, Mmap):
            inode = (record.major, record.minor, record.inode, record.generation)
            return (record.pid, record.tid, record.start, record.length, record.file_offset,
                    record.path, inode, record.prot & 4)
        if isinstance(record, Comm):
            return record.pid, record.tid, record.name, record.exec_
        return record.pid, record.ppid, record.tid, record.ptid

    for kind in (Mmap, Fork, Exit):
        theirs = sorted(key(r, True) for r in original if isinstance(r, kind))
        assert sorted(key(r, False) for r in ours if isinstance(r, kind)) == theirs
    theirs = {key(r, True) for r in original if isinstance(r, Comm)}
    assert theirs <= {key(r, False) for r in ours if isinstance(r, Comm)}


# Forms of an entry ---------------------------------------------------------------------------

P, M, X, A, N = 2, 1, 4, 8, 1 << 33


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("0x10/0x20/P/-/-", P),                                   # perf 3: no cycles
        ("0x10/0x20/P/-/-/0", P),                                 # five fields
        ("0x10/0x20/M/X/A/7", M | X | A | 7 << 4),
        ("0x10/0x20/P/-/-/0/", P),                                # 6.1, type unknown
        ("0x10/0x20/-/-/-/65535/COND", 65535 << 4 | 1 << 20),     # 6.1
        ("0x10/0x20/P/-/-/0//-", P),                              # 6.12
        ("0x10/0x20/P/-/-/1/COND/-", P | 1 << 4 | 1 << 20),
        ("0x10/0x20/P/-/-/1/RET/SPEC_CORRECT_PATH", P | 1 << 4 | 6 << 20 | 3 << 24),
        ("0x10/0x20/P/-/-/1//NON_SPEC_CORRECT_PATH", P | 1 << 4 | 2 << 24),
        ("0x10/0x20/P/-/-/1/FAULT_DATA/-", P | 1 << 4 | 15 << 20 | 1 << 26),
        ("0x10/0x20/P/-/-/1/ARCH_5", P | 1 << 4 | 15 << 20 | 7 << 26),
        ("0x10/0x20/PN/-/-/3/COND/-", P | N | 3 << 4 | 1 << 20),  # 6.14
        ("0x10/0x20/N/-/-/3/COND/-", N | 3 << 4 | 1 << 20),
        ("0x10(/bin/a b)/0x20([kernel])/P/-/-/0/", P),            # with dso
    ],
)
def test_forms_of_an_entry(tmp_path, text, flags):
    path = tmp_path / "t.txt"
    path.write_text(f"           401000 {text}  {text}\n")
    assert brstack.parse_entries(text.encode()) == ([(0x10, 0x20, flags)], len(text))
    _, batches, _ = load(path)
    assert stacks_of(batches) == [[(0x10, 0x20, flags)] * 2]
    assert column(batches, "ip").tolist() == [0x401000]


@pytest.mark.parametrize(
    ("line", "prefix"),
    [
        ("", Prefix()),
        ("           401136 ", Prefix(ip=0x401136)),
        (" ffffffffb42071f2 ", Prefix(ip=0xffffffffb42071f2)),
        ("          401136 ", Prefix()),  # a data address, or a weight
        (" 5805            401136 ", Prefix(ip=0x401136, pid=5805, tid=5805)),
        ("   5805            401136 ", Prefix(ip=0x401136, pid=5805, tid=5805)),
        ("16984  ", Prefix(pid=16984, tid=16984)),
        (" 401136 ", Prefix(pid=401136, tid=401136)),
        ("              dd  5805            401136 ",
         Prefix(ip=0x401136, pid=5805, tid=5805, comm=b"dd")),
        ("            perf  5805/5806  12631.245939:          1 cycles:ppp:            401136 "
         "main+0x4 (/bin/a) ",
         Prefix(0x401136, 12631245939000, 1, b"cycles:ppp", b"perf", 5805, 5806)),
        ("           a b c    12 [003]     1.500000:         77 cpu/branches,u/:            401136 "
         "add (/bin/a) ",
         Prefix(0x401136, 1500000000, 77, b"cpu/branches,u/", b"a b c", 12, 12, 3)),
        ("               x      -1/0       [001]     2.000000001: ",
         Prefix(0, 2000000001, 1, b"", b"x", -1, 0, 1)),
        ("     foobar [worker] 21332          1 branches:            401020 ",
         Prefix(0x401020, 0, 1, b"branches", b"foobar [worker]", 21332, 21332)),
        ("      0x1/2 a: b 4194303/4194303 [127] 123456.000004:         33 raw 0x20c4:  ",
         Prefix(0, 123456000004000, 33, b"raw 0x20c4", b"0x1/2 a: b", 4194303, 4194303, 127)),
        ("           12 34     9/9     10000000000 cycles:             beef              77"
         " ffffffff81000010 ",
         Prefix(0xffffffff81000010, 0, 10**10, b"cycles", b"12 34", 9, 9)),
    ],
)
def test_prefixes(tmp_path, line, prefix):
    assert brstack.parse_head(line.encode())._replace(columns=0) == prefix
    path = tmp_path / "t.txt"
    path.write_text(f"{line}0x1/0x2/P/-/-/0/\n")
    names, batches, others = load(path)
    (batch,) = batches
    for name in ("ip", "time", "period", "pid", "tid", "cpu"):
        assert int(getattr(batch, name)[0]) == getattr(prefix, name), name
    assert names == [prefix.event.decode()]
    assert [r.name for r in others] == ([prefix.comm.decode()] if prefix.comm else [])


def test_call_chains_and_empty_stacks(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text(
        "# a comment\n"
        "prog     7/8     [001]     1.000001:          5 cycles: \n"
        "\t          401136 main+0x10 (/bin/a)\n\t          7f0011 start (/lib/c)\n"
        " 0x10/0x20/P/-/-/1/  0x30/0x40/M/-/-/2/ \n\n"
        "prog     7/8     [001]     1.000002:          6 cycles: \n"
        "\t          401140 main (/bin/a)\n\n"
        "            prog     7/8     [001]     1.000003:          7 branches:            401150 "
        "main (/bin/a)\n"
        "            prog     7/8     [001]     1.000004:          8 branches:            401160 "
        "main (/bin/a) 0x50/0x60/P/-/-/3/"
    )
    names, batches, others = load(path)
    assert names == ["cycles", "branches"]
    assert column(batches, "ip").tolist() == [0x401136, 0x401140, 0x401150, 0x401160]
    assert column(batches, "period").tolist() == [5, 6, 7, 8]
    assert column(batches, "event").tolist() == [0, 0, 1, 1]
    assert list(map(len, stacks_of(batches))) == [2, 0, 0, 1]
    (chained,) = (batch for batch in batches if batch.chain is not None)
    assert chained.chain.tolist() == [0x401136, 0x7f0011, 0x401140]
    assert chained.chain_offsets.tolist() == [0, 2, 3, 3, 3]
    assert others == [Comm(7, 8, "prog", time=1000001000, cpu=1)]


@pytest.mark.parametrize(
    "between", [b"           401136", b"\n\t          401136 main (/bin/a)\n"])
def test_names_that_a_task_takes_on_stand_before_its_samples(tmp_path, between):
    """Whatever part reads the lines."""
    path = tmp_path / "t.txt"
    names = ["sh", "prog", "prog", "sh", "other", "sh"]
    path.write_bytes(b"".join(
        b"%16s %5d/%-5d [001]          5 cycles: %s 0x10/0x20/P/-/-/1/\n" % (
            name.encode(), tid, tid, between)
        for name, tid in zip(names, [8, 8, 9, 8, 9, 8], strict=True)))
    told, seen = {}, []
    with trace.open_stacks(path) as stacks:
        for record in stacks:
            if isinstance(record, Comm):
                told[record.tid] = record.name
            else:
                seen += [told[tid] for tid in record.tid.tolist()]
                assert stacks_of([record]) == [[(0x10, 0x20, P | 1 << 4)]] * len(record)
    assert seen == names


@pytest.mark.parametrize("end", ["damaged", "cut"])
def test_what_stands_before_an_error_is_handed_out(tmp_path, monkeypatch, end):
    """Also windows that were read ahead, and samples of several lines."""
    monkeypatch.setattr(script_reader, "_WINDOW", 4096)
    text = b"".join(b"%17x 0x10/0x20/P/-/-/1/\n" % i for i in range(20_000))
    text += b"a     1/1              5 cycles: \n\t%16x main\n 0x10/0x20/P/-/-/1/\n" % 20_000
    path = tmp_path / "t.gz"
    cut = gzip.compress(text)[:-20]
    path.write_bytes(cut if end == "cut" else gzip.compress(text + b"\nno sample\n"))
    ips = []
    with pytest.raises(TraceError, match="line 20005" if end == "damaged" else "cut off"), \
            script_reader.PerfScript(path) as stacks:
        for record in stacks:
            if isinstance(record, Samples):
                ips += record.ip.tolist()
    assert ips == list(range(len(ips)))
    assert len(ips) == 20_001 if end == "damaged" else 10_000 < len(ips) < 20_001


def test_event_lines(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text(
        "               a     1/1     [002]     0.500000: PERF_RECORD_COMM exec: a b:1/2\n"
        "               a     1/1         0.500000: PERF_RECORD_FORK(5:6):(1:2)\n"
        "               a     1/1         0.500000: PERF_RECORD_EXIT(5:6):(1:2)\n"
        "               a     1/1         0.500000: PERF_RECORD_MMAP2 1/2: [0x400000(0x1000) @ "
        "0x2000 08:0a 55 66]: r-xp /x y\n"
        "               a     1/1         0.500000: PERF_RECORD_MMAP2 1/2: [0x400000(0x1000) @ "
        "0 <00ff>]: rw-s /z\n"
        "PERF_RECORD_LOST lost 17\n"
        "               a     1/1         0.500000: PERF_RECORD_SWITCH OUT\n"
        "           401000 0x1/0x2/P/-/-/0/\n"
    )
    _, _, others = load(path)
    assert others == [
        Comm(1, 2, "a b", True, 500000000, 2),
        Fork(5, 1, 6, 2, 500000000), Exit(5, 1, 6, 2, 500000000),
        Mmap(1, 2, 0x400000, 0x1000, 0x2000, "/x y", b"", 8, 10, 55, 66, 5, 2, 2, 500000000),
        Mmap(1, 2, 0x400000, 0x1000, 0, "/z", b"\0\xff", 0, 0, 0, 0, 3, 1, 2, 500000000),
        Lost(17),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("           401000 0x1/0x2/Q/-/-/0/", "an entry that perf does not print"),
        ("           401000 0x1/0x2/P/-/-/65536/", "an entry that perf does not print"),
        ("           401000 0x1/0x2/P/-/-/0/NOTHING", "an entry that perf does not print"),
        ("           401000 0x/0x2/P/-/-/0/", "an entry that perf does not print"),
        ("           401000 0x11111111111111111/0x2/P/-/-/0/", "an entry that perf"),
        ("           401000 main+0x4/main+0x10/P/-/-/0/", "symbols in place of addresses"),
        ("some text", "is no line of perf script"),
        ("    1/1     PERF_RECORD_MMAP2 nonsense", "is no event as perf prints it"),
    ],
)
def test_bad_lines(tmp_path, line, message):
    path = tmp_path / "t.txt"
    good = "           401000 0x1/0x2/P/-/-/0/\n"
    path.write_text(good * 3 + line + "\n" + good)
    with pytest.raises(TraceError, match=f"line 4: .*{message}") as caught:
        load(path)
    assert caught.value.offset == 3 * len(good)


def test_windows_of_any_size(shared, tmp_path, monkeypatch):
    _, original, _ = load(shared(FILES[0]))
    lines = [
        "  ".join(f"0x{s:x}/0x{t:x}/P/-/-/{f >> 4 & 0xFFFF}/" for s, t, f in stack)
        for stack in stacks_of(original)
    ]
    path = tmp_path / "t.txt"
    path.write_text("".join(f"{i:17x} {line}\n" for i, line in enumerate(lines * 40)))
    whole = stacks_of(load(path)[1])
    assert len(whole) == 13 * 40
    for window in (64, 1000, 5000, 77_777):
        monkeypatch.setattr(script_reader, "_WINDOW", window)
        _, batches, _ = load(path)
        assert stacks_of(batches) == whole, window
        assert column(batches, "ip").tolist() == list(range(13 * 40))


def test_a_line_without_end_is_refused(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(b"           401000 0x1/0x2/P/-/-/0/\n" + b" 401000" * 1_000_000)
    with pytest.raises(TraceError, match="line 2: is longer than"):
        load(path)


# The twin ------------------------------------------------------------------------------------


def compiled(line: bytes):
    """One line through the compiled parser, in the form of `brstack.parse_line`; the same with
    and without AVX2."""
    use_avx2(False)
    try:
        found = compiled_once(line)
    finally:
        use_avx2(True)
    assert compiled_once(line) == found
    return found


def compiled_once(line: bytes):
    rows, offsets = np.zeros(4, brstack.ROW_DTYPE), np.zeros(5, np.int64)
    entries = np.zeros(len(line) // 8 + 8, abi.BRANCH_ENTRY_DTYPE)
    size = len(line) + 1
    at, count, why, _ = parse(
        line + b"\n" + b"0x77/0x77/P/-/-/7/\n".ljust(brstack.PADDING, b"0"), 0, size,
        rows.view("u1"), entries.view("u1"), offsets,
    )
    if why != brstack.AT_END:
        assert (at, count) == (0, 0)
        return why, None, []
    assert at == size
    row = rows[0]
    found = tuple(int(row[n]) for n in ("ip", "time", "period", "event", "comm", "pid", "tid",
                                        "cpu", "columns"))
    return why, found, entries[:offsets[1]].tolist()


def plain(line: bytes):
    why, prefix, entries = brstack.parse_line(line)
    if why != brstack.AT_END:
        return why, None, []
    hashed = prefix._replace(
        event=brstack.hash_of(prefix.event), comm=brstack.hash_of(prefix.comm))
    return why, tuple(hashed), entries


#: What may stand in a column, and the columns as perf pads them.
words = st.sampled_from([
    b"perf", b"dd", b"a", b"5805", b"-1", b"5805/5806", b"-1/0", b"[003]", b"[]", b"12.5:",
    b"12631.245939123:", b".5:", b"cycles:", b"cycles:ppp:", b":", b"401136", b"ffffffffb42071f2",
    b"beef", b"main+0x10", b"(/bin/a)", b"12345678901234567", b"7/", b"/7", b"1/2/3", b"#",
    b"99999999999999999999999", b"0x", b"[unknown]", b"1.2.3:", b"-", b"[1", b"x:y:", b"0x1/2",
    b"0x1(", b"1/ 2", b"1/-", b"K", b"UG", b"[0000000000001]",
])
blanks = st.sampled_from([b" ", b"  ", b"\t", b"           ", b"                 "])
#: In the order in which perf prints them.
COLUMN_ORDER = [
    b"%16s ", b"%5d/%-5d ", b"%7d/%-7d ", b"%5d ", b"%7d ", b"[%03d] ", b"U     ", b"KUHG  ",
    b"%5d.000001: ", b"%5d.000000001: ", b"%10d ", b"cycles:u: ", b" branches: ", b"%24s",
    b"%16x", b" %16x", b" main+0x10 (/bin/a)", b" ",
]
forms = st.sampled_from([*COLUMN_ORDER, b" %16x"])
values = st.sampled_from([0, 1, 9, 123, 99_999, 999_999, 4_194_304, 12_345_678_901, 2**40,
                          10**15 + 7, 2**63, 2**64 - 1, -1])


@st.composite
def padded_columns(draw):
    """Columns in the order in which perf prints them, or nearly."""
    text = b""
    for form in sorted(draw(st.lists(forms, max_size=8)), key=COLUMN_ORDER.index) if draw(
            st.integers(0, 4)) else draw(st.lists(forms, max_size=8)):
        if form == b"%16s ":
            text += form % draw(words)
        elif form == b"%24s":
            text += form % draw(st.sampled_from([b"", b"  jcc                   "]))
        elif b"/" in form and b"%" in form:
            text += form % (draw(values), draw(values))
        elif b"x" in form and b"%" in form:
            text += form % abs(draw(values))
        else:
            text += form % draw(values) if b"%" in form else form
    return text


names = st.sampled_from([*brstack.NAMES, b"", b"-", b"NONE", b"COND_", b"CON"])
numbers = st.sampled_from([b"0", b"7", b"42", b"65535", b"65536", b"999999", b"", b"00012", b"1x"])
hexes = st.one_of(
    st.integers(0, 2**64 - 1).map(lambda n: b"0x%x" % n),
    st.sampled_from([b"0x0", b"0x", b"0xFFff", b"0x0123456789abcdef", b"0x0123456789abcdef0",
                     b"12", b"0x12345678", b"0x123456789", b"0x1234g", b"0x12(/a b)", b"0x5(",
                     b"0x5()", b"0x12345678(x)", b"0x:/", b"0x@1", b"0x1`"]),
)


@st.composite
def entry_texts(draw):
    parts = [draw(hexes), draw(hexes), draw(st.sampled_from([b"P", b"M", b"-", b"PN", b"N", b"Q",
                                                             b"", b"MPN", b"NP"])),
             draw(st.sampled_from([b"-", b"X", b"Y", b""])),
             draw(st.sampled_from([b"-", b"A", b"B", b""]))]
    if draw(st.booleans()):
        parts.append(draw(numbers))
        parts += draw(st.lists(names, max_size=3))
    return b"/".join(parts)


good_entries = st.tuples(
    st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.sampled_from([b"P", b"M", b"-"]),
    st.integers(0, 65535), st.sampled_from([b"", b"COND", b"RET/-"]),
).map(lambda e: b"0x%x/0x%x/%s/-/-/%d/%s" % e)


@st.composite
def lines(draw):
    if draw(st.integers(0, 2)):
        head = draw(padded_columns())
    else:
        head = b"".join(draw(blanks) + draw(words) for _ in range(draw(st.integers(0, 9))))
        if draw(st.booleans()):
            head = head.lstrip()
    entries = draw(st.lists(st.one_of(good_entries, good_entries, entry_texts()), max_size=5))
    tail = b"".join(draw(blanks) + entry for entry in entries)
    return (head + tail + draw(st.sampled_from([b"", b" ", b"  "])))


@settings(max_examples=400, deadline=None)
@given(lines())
@example(b"           -1/0 []\x071.2.3:\t0x12/0x5/P/-/-/42/RET")
@example(b" [unknown]:  401000 0x12/0x5/P/-/-/42/RET")
def test_twin(line):
    if not line:
        return
    assert compiled(line) == plain(line)


@settings(max_examples=400, deadline=None)
@given(lines(), st.data())
def test_twin_on_damaged_lines(line, data):
    if not line:
        return
    damaged = bytearray(line)
    for _ in range(data.draw(st.integers(1, 3))):
        i = data.draw(st.integers(0, len(damaged) - 1))
        damaged[i] = data.draw(st.sampled_from(sorted(set(range(1, 256)) - {10})))
    assert compiled(bytes(damaged)) == plain(bytes(damaged))
