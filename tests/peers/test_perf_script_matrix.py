"""Every choice of columns of the installed perf, read back: right, or refused, never wrong.

The samples are written byte by byte, with every field that a column can show.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections import Counter
from dataclasses import dataclass

import pytest
from peer_tools import need, run

from pylbr import cli
from pylbr.errors import TraceError
from pylbr.perf.abi import AttrFlag, SampleType
from pylbr.perf.stacks import Samples
from pylbr.trace.formats import open_stacks

pytestmark = pytest.mark.peer

#: Columns whose content pylbr keeps.
KEPT = ("comm", "pid", "tid", "cpu", "time", "period", "event", "ip")
#: All others of perf 6.1 that stand beside brstack; those that need others with them.
OTHERS = {
    "sym": "ip", "dso": "ip", "symoff": "ip,sym", "addr": "", "weight": "", "ins_lat": "",
    "misc": "", "flags": "", "srcline": "ip", "data_src": "", "phys_addr": "", "insn": "",
    "insnlen": "", "ipc": "", "data_page_size": "", "code_page_size": "", "srccode": "ip",
    "metric": "", "callindent": "ip", "synth": "", "brstacksym": "", "brstackoff": "",
    "brstackinsn": "ip", "brstackinsnlen": "ip", "iregs": "", "uregs": "", "machine_pid": "",
    "vcpu": "", "cgroup": "", "dsoff": "ip,dso", "retire_lat": "", "trace": "", "bpf-output": "",
    "tod": "",
}
#: Columns of text without a mark that shows where they end.
REFUSED = frozenset({"data_src", "iregs", "uregs", "brstackinsn", "brstackinsnlen"})
#: Columns behind the entries, or without meaning here: a line of nothing else is refused.
NOT_ALONE = frozenset({
    "addr", "weight", "ins_lat", "misc", "phys_addr", "insn", "insnlen", "data_page_size",
    "code_page_size",
})
#: Not of these events, or of no file without more: perf says so and prints nothing.
NOT_PRINTED = frozenset({"trace", "bpf-output", "tod"})
PROG = b"/usr/bin/true"
KERNEL = 0xFFFF_FFFF_8100_0000
CONTEXT_KERNEL, CONTEXT_USER = 2**64 - 128, 2**64 - 512


@dataclass(frozen=True)
class Sample:
    event: int
    ip: int
    pid: int
    tid: int
    time: int
    cpu: int
    period: int
    comm: str
    chain: tuple[int, ...]
    entries: tuple[tuple[int, int, int], ...]
    address: int = 0xBEEF
    weight: int = 77


#: Names of tasks that look like columns, numbers as wide as a column or wider, both halves of
#: the address space, an empty stack.
SAMPLES = (
    Sample(0, 0x401010, 7, 7, 1_000_001_000, 0, 1000, "prog", (CONTEXT_USER, 0x401010, 0x401100),
           ((0x401000, 0x401010, 2 | 1 << 4 | 1 << 20), (0x401020, 0x400FF0, 1 | 2 << 20))),
    Sample(1, 0x401020, 7, 8, 1_000_002_123, 1, 10**10, "foobar [worker]",
           (CONTEXT_USER, 0x401020), ((0x401001, 0x401011, 2),) * 3, 0xFACE),
    Sample(0, KERNEL + 16, 9, 9, 5_000_003_000, 11, 1, "12 34",
           (CONTEXT_KERNEL, KERNEL + 16, KERNEL + 32, CONTEXT_USER, 0x401020),
           ((KERNEL, KERNEL + 16, 2),), 2**64 - 1, 2**32 - 1),
    Sample(2, 0x401030, 4_194_303, 4_194_303, 123_456_000_004_000, 127, 33, "0x1/2 a: b",
           (CONTEXT_USER, 0x401030), ()),
    Sample(0, 0x401031, 1_000_000, 1_000_001, 123_456_000_005_000, 127, 12_345, "cycles: 5",
           (CONTEXT_USER, 0x401031), ((1, 2, 0),) * 32, 0xDEADBEEF),
    Sample(1, 0x7FFF_FFFF_F000, 12345, 123456, 9_123_456_789, 3, 2**63, "7/7 [001] 1.5:",
           (CONTEXT_USER, 0x401031), ((0x7FFF_FFFF_F000, 0x10, 1 | 65535 << 4),)),
)
EVENTS = (b"branches", b"cycles:ppp", b"cpu/event=0xc4,umask=0x20/u")


def record(kind, body, misc=2):
    return struct.pack("<IHH", kind, misc, 8 + len(body)) + body


def text(data):
    return data + bytes(8 - len(data) % 8)


def perf_data(chains, latency, samples=SAMPLES):
    """A file in which every column has something to show."""
    kind = (
        SampleType.IDENTIFIER | SampleType.IP | SampleType.TID | SampleType.TIME | SampleType.ADDR
        | SampleType.CPU | SampleType.PERIOD | SampleType.BRANCH_STACK | SampleType.REGS_USER
        | SampleType.DATA_SRC | SampleType.REGS_INTR | SampleType.PHYS_ADDR
        | SampleType.DATA_PAGE_SIZE | SampleType.CODE_PAGE_SIZE
        | (SampleType.CALLCHAIN if chains else 0)
        | (SampleType.WEIGHT_STRUCT if latency else SampleType.WEIGHT)
    )
    flags = AttrFlag.MMAP | AttrFlag.COMM | AttrFlag.SAMPLE_ID_ALL | AttrFlag.MMAP2
    attrs = [
        struct.pack("<IIQQQQQIIQQQQIiQIHHIIQ", 0, 128, config, 1000, int(kind), 0, int(flags),
                    0, 0, 0, 0, 9 | 1 << 16, 3, 0, 0, 3, 0, 0, 0, 0, 0, 0)
        for config in (4, 0, 4)
    ]
    ids_at = 104 + 144 * len(attrs)
    data_at = ids_at + 8 * len(attrs)

    def trailer(pid, tid):
        return struct.pack("<IIQIIQ", pid, tid, 1, 0, 0, 100)

    def sample(s):
        body = struct.pack("<QQIIQQIIQ", 100 + s.event, s.ip, s.pid, s.tid, s.time, s.address,
                           s.cpu, 0, s.period)
        if chains:
            body += struct.pack(f"<{len(s.chain) + 1}Q", len(s.chain), *s.chain)
        body += struct.pack("<Q", len(s.entries))
        body += b"".join(struct.pack("<QQQ", *entry) for entry in s.entries)
        weight = s.weight | 9 << 32 if latency else s.weight
        body += struct.pack("<QQQQQQQQQQQ", 2, 17, 18, weight, 0x5080144, 2, 19, 20, 0x123456000,
                            4096, 2 << 20)
        return record(9, body, 1 if s.ip >= KERNEL else 2)

    data = b"".join(
        record(3, struct.pack("<II", s.pid, s.tid) + text(s.comm.encode()) + trailer(s.pid, s.tid))
        for s in samples
    )
    for pid in {s.pid: 0 for s in samples}:
        data += record(10, struct.pack("<IIQQQIIQQII", pid, pid, 0x401000, 0x1000, 0x1000, 8, 1, 5,
                                       6, 5, 2) + text(PROG) + trailer(pid, pid))
    data += b"".join(map(sample, samples))
    description = struct.pack("<II", len(attrs), 128)
    for i, attr in enumerate(attrs):
        description += attr + struct.pack("<II", 1, 64) + EVENTS[i].ljust(64, b"\0")
        description += struct.pack("<Q", 100 + i)
    table = data_at + len(data)
    head = b"PERFILE2" + struct.pack("<QQ6Q4Q", 104, 144, 104, 144 * len(attrs), data_at,
                                     len(data), 0, 0, 1 << 12 | 1 << 15, 0, 0, 0)
    for i, attr in enumerate(attrs):
        head += attr + struct.pack("<QQ", ids_at + 8 * i, 8)
    head += struct.pack(f"<{len(attrs)}Q", *range(100, 100 + len(attrs)))
    features = struct.pack("<QQQQ", table + 32, len(description), table + 32 + len(description), 0)
    return head + data + features + description


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """By: call chains, latency beside weight, a sample with an empty stack."""
    place = tmp_path_factory.mktemp("matrix")
    found = {}
    for kind in itertools.product((False, True), repeat=3):
        *form, empty = kind
        found[kind] = place / ("-".join(map(str, kind)) + ".data")
        found[kind].write_bytes(perf_data(*form, [s for s in SAMPLES if s.entries or empty]))
    return found


def printed(path, columns, *options):
    """What perf prints, or None where it will not."""
    done = run(need("perf"), "script", "-f", "--ns", "-i", path, "-F", ",".join(columns), *options)
    return done.stdout if done.returncode == 0 and done.stdout else None


def rows(path):
    """(names of the events, rows of what was read)."""
    found = []
    with open_stacks(path) as stacks:
        names = [event.name for event in stacks.metadata.events]
        comms: dict[int, str] = {}
        for batch in stacks:
            if isinstance(batch, Samples):
                found += [
                    {
                        "pid": int(batch.pid[i]), "tid": int(batch.tid[i]),
                        "cpu": int(batch.cpu[i]), "time": int(batch.time[i]),
                        "period": int(batch.period[i]), "event": names[batch.event[i]],
                        "ip": int(batch.ip[i]), "comm": comms.get(int(batch.tid[i])),
                        "entries": tuple(batch.stack(i).tolist()),
                    }
                    for i in range(len(batch))
                ]
            elif hasattr(batch, "name"):
                comms[batch.tid] = batch.name
    return found


def expected(columns, chains, empty):
    """Rows of the samples with only what the columns show."""
    empty = empty and set(columns) & set(KEPT)  # else its line is blank, or refused
    wanted = sorted((s for s in SAMPLES if s.entries or empty), key=lambda s: s.time)
    return [
        {
            name: value for name, value in (
                ("pid", s.pid), ("tid", s.tid), ("cpu", s.cpu), ("time", s.time),
                ("period", s.period), ("event", EVENTS[s.event].decode()),
                ("ip", s.chain[1] if chains else s.ip), ("comm", s.comm), ("entries", s.entries),
            ) if name in (*columns, "entries")
        }
        for s in wanted
    ]


def check(files, columns, tmp_path, chains=False, latency=False, empty=False):
    """Read the text, and the perf.data that `pylbr convert` makes of it."""
    path = files[chains, latency, empty]
    options = ["--show-mmap-events"] if chains else []
    found = printed(path, [*columns, "brstack"], *options)
    if found is None:
        return "not printed"
    source, target = tmp_path / "t.txt", tmp_path / "t.perf.data"
    source.write_text(found)
    try:
        ours = rows(source)
    except TraceError:
        return "refused"
    want = expected(columns, chains, empty)
    names = set(want[0])
    if not {"pid", "tid"} & names:
        names.discard("comm")  # a name without a task
    want = [{name: row[name] for name in names} for row in want]
    assert [{name: row[name] for name in names} for row in ours] == want, f"{columns}:\n{found}"
    assert cli.main(["convert", str(source), "-o", str(target)]) == 0
    assert [{name: row[name] for name in names} for row in rows(target)] == want, columns
    return "right"


def subsets(names):
    return itertools.chain.from_iterable(
        itertools.combinations(names, n) for n in range(len(names) + 1))


@pytest.mark.parametrize("chains", [False, True], ids=["plain", "call-chains"])
def test_every_choice_of_kept_columns(files, tmp_path, chains):
    results = Counter(
        check(files, columns, tmp_path, chains, empty=True) for columns in subsets(KEPT))
    assert results == {"right": 256}


def test_this_perf_has_no_column_that_is_not_tried(files):
    usage = run(need("perf"), "script", "-F", "nonsense", "-i", files[False, False, False]).stderr
    fields = set(re.search(r"Fields: ([a-z,_-]+)", usage)[1].split(","))
    assert fields - {"brstack"} <= {*KEPT, *OTHERS}, "new columns of perf: try them here"


BASES = ((), ("ip",), ("pid", "ip"), ("event", "ip"), ("comm", "period"), ("comm", "tid", "ip"),
         ("pid", "tid", "period", "event"), KEPT)


@pytest.mark.parametrize("other", OTHERS)
def test_every_other_column(files, tmp_path, other):
    results = Counter()
    for base, chains in itertools.product(BASES, (False, True)):
        columns = list(dict.fromkeys([*base, *filter(None, OTHERS[other].split(",")), other]))
        latency = other == "ins_lat"
        results[check(files, columns, tmp_path, chains, latency)] += 1
        if other in NOT_ALONE:
            assert check(files, columns, tmp_path, chains, latency, True) in ("right", "refused")
    if other in REFUSED:
        assert set(results) <= {"right", "refused"} and results["refused"], results
    elif other in NOT_PRINTED:
        assert set(results) <= {"not printed", "right"}, results
    else:
        assert set(results) in ({"right"}, {"not printed"}), results


def test_pairs_of_other_columns(files, tmp_path):
    """Numbers without a name, one beside the other."""
    numbers = ("addr", "weight", "ins_lat", "flags", "misc", "phys_addr", "sym", "dso")
    for pair in itertools.combinations(numbers, 2):
        for base in (("ip",), ("pid", "event", "ip"), ("time", "period")):
            need_ip = ["ip"] if {"sym", "dso"} & set(pair) else []
            columns = list(dict.fromkeys([*base, *need_ip, *pair]))
            assert check(files, columns, tmp_path, latency="ins_lat" in pair) == "right"
