"""perf reads the rarer forms of our files: several events, index, counters, kernel, threads."""

from __future__ import annotations

import numpy as np
import pytest
from peer_tools import perf

from lbrcore import ENTRY_DTYPE, BranchClass
from pylbr.perf.abi import BranchSample, SampleType
from pylbr.perf.batch import SampleBatch
from pylbr.perf.data_writer import write_perf_data
from pylbr.perf.entries import perf_samples
from pylbr.perf.events import parse_event
from pylbr.perf.script_writer import PerfScript
from pylbr.perf.stacks import Comm, Event, Exit, Fork, Mmap, Samples, StacksMetadata
from pylbr.trace.formats import open_stacks

pytestmark = pytest.mark.peer

KERNEL = 0xFFFF_FFFF_8100_0000
FIELDS = ("comm", "pid", "tid", "cpu", "time", "period", "event", "ip", "brstack")
EVERYTHING = int(
    SampleType.IP | SampleType.TID | SampleType.TIME | SampleType.CPU | SampleType.PERIOD
    | SampleType.BRANCH_STACK
)  # fmt: skip


def batch(events, n=40, depth=5):
    """Random records from user and kernel, with every class, on two threads."""
    random = np.random.default_rng(2)
    entries = np.zeros((n, depth), ENTRY_DTYPE)
    user = random.integers(0x401000, 0x402000, (2, n, depth)).astype("u8")
    side = random.random((2, n, depth)) < 0.3
    entries["from"], entries["to"] = np.where(side, user + np.uint64(KERNEL), user)
    entries["info"] = random.integers(0, 2**64, (n, depth), np.uint64)
    classes = random.integers(0, 16, (n, depth)).astype("u1")
    classes[classes == BranchClass.NOT_TAKEN] = BranchClass.COND
    tid = random.integers(7, 9, n)
    return SampleBatch.build(
        np.where(random.random(n) < 0.3, np.uint64(KERNEL), np.uint64(0x401000)), entries,
        nr=random.integers(0, depth + 1, n), classes=classes, pid=7, tid=tid,
        cpu=random.integers(0, 3, n), time=10**9 + np.arange(n) * 1000, period=tid * 10,
        event=random.integers(0, events, n), hw_idx=np.arange(n, dtype="u8"),
    )  # fmt: skip


@pytest.mark.parametrize("events", [1, 2])
@pytest.mark.parametrize(
    "extra",
    [0, BranchSample.HW_INDEX, BranchSample.COUNTERS,
     BranchSample.HW_INDEX | BranchSample.COUNTERS | BranchSample.TYPE_SAVE],
    ids=["plain", "index", "counters", "all"],
)  # fmt: skip
def test_perf_prints_what_we_print(tmp_path, events, extra):
    chosen = int(BranchSample.USER | BranchSample.KERNEL | BranchSample.ANY | extra)
    samples = perf_samples(batch(events), chosen)
    metadata = StacksMetadata(events=tuple(
        Event(name=name, config=4, period=100, sample_type=EVERYTHING, branch_sample_type=chosen)
        for name in ("branches:u", "cycles:u")[:events]
    ))  # fmt: skip
    records = [
        Comm(7, 7, "main", True, time=1),
        Mmap(-1, 0, KERNEL, 0x1000_0000, KERNEL, "[kernel.kallsyms]_text", misc=1, time=2),
        Mmap(7, 7, 0x401000, 0x1000, 0x1000, "/a b/program", time=3),
        Fork(7, 7, 8, 7, time=4), Comm(7, 8, "worker", time=5), samples,
        Exit(7, 7, 8, 7, time=2 * 10**9),
    ]  # fmt: skip
    path = tmp_path / "perf.data"
    assert write_perf_data(path, (metadata, records)) == 40
    # perf before 6.8 does not know COUNTERS: it reads the stacks, but no event's name.
    fields = [name for name in FIELDS if name != "event" or not extra & BranchSample.COUNTERS]
    script = PerfScript(metadata, fields)
    ours = b"".join(map(script.text, records)).decode()
    assert perf("script", "-i", path, "-F", ",".join(fields)) == ours
    with open_stacks(path) as stacks:
        (again,) = (record for record in stacks if isinstance(record, Samples))
    for name in ("ip", "pid", "tid", "time", "cpu", "period", "event", "misc", "entries"):
        assert getattr(again, name).tolist() == getattr(samples, name).tolist()
    for name, bit in (("hw_idx", BranchSample.HW_INDEX), ("counters", BranchSample.COUNTERS)):
        found = getattr(again, name)
        assert (found is not None) == bool(extra & bit)
        assert found is None or found.tolist() == getattr(samples, name).tolist()


def test_perf_prints_addresses_of_samples_of_every_branch(tmp_path):
    """As it does not of an event of its own that counts nothing."""
    path = tmp_path / "perf.data"
    event = parse_event("every-branch", 7).attributes(9)
    samples = perf_samples(batch(1), 9)
    write_perf_data(path, (StacksMetadata(events=(event,)), [samples]))
    printed = [int(line, 16) for line in perf("script", "-i", path, "-F", "ip").splitlines()]
    assert printed == samples.ip.tolist()
